"""Errors: one line that names the value, what is accepted and what to do, and the exit code."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from tavq.core import files

Tavq = Callable[..., Any]


def assert_one_line(done: Any, code: int, message: str) -> None:
    """One line on standard error that names the program and matches, and nothing else."""
    lines = done.err.splitlines()
    assert len(lines) == 1, done.err
    assert done.err.startswith("tavq: ")
    assert re.search(message, done.err), done.err
    assert done.code == code, done.err
    assert done.out == ""
    assert "Traceback" not in done.err


@pytest.fixture
def place(home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to stand in: `data`, `plain` and `aligned` as in `home`, and odd things."""
    for name in ("data", "plain", "aligned"):
        (tmp_path / name).symlink_to(home / name)
    (tmp_path / "empty").mkdir()
    (tmp_path / "file").write_text("a file")
    (tmp_path / "bad.yaml").write_text("model: [1, 2\n")
    (tmp_path / "list.yaml").write_text("- 1\n")
    (tmp_path / "wide.yaml").write_text("extends: vqgan-tiny\nmodel: {net: {chanels: 8}}\n")
    (tmp_path / "round.yaml").write_text("extends: round.yaml\n")
    (tmp_path / "tokens.safetensors").write_text("no tokens")
    monkeypatch.chdir(tmp_path)
    return tmp_path


TRAIN = "--data data --out out"


@pytest.mark.parametrize(
    ("command", "message"),
    [
        # names
        ("trian vqgan-tiny", r"Unknown command .trian.\. Did you mean .train."),
        ("data chek data", r"Unknown command .chek.*check"),
        (f"train vqgan-tinny {TRAIN}", r"Unknown recipe 'vqgan-tinny'; known: .*vqgan-tiny.*Did you mean 'vqgan-tiny'"),
        (f"train mine.yaml {TRAIN}", r"There is no recipe file 'mine\.yaml'"),
        ("recipes show nonsense", r"Unknown recipe 'nonsense'; known: "),
        (
            f"train ta-vqgan-tiny {TRAIN} --model.align.gradient codebook --model.codebook.name ema",
            r"model\.align\.gradient is 'codebook', and the codebook 'ema' of the level '\w+' .* use 'encoder' or",
        ),
        ("study nowhere.yaml --data data --out out", r"There is no study file 'nowhere\.yaml'"),
        ("study ta-vq-table-2-tiny --data data --out file", r"file is a file; choose a folder"),
        (
            "study lg-vq-table-4 --data data --out out",
            r"needs a text store made by the encoder 'openai/clip-vit-base.*",
        ),
        (
            f"train vqgan-tiny {TRAIN} --model.codebok.entries 5",
            r"Unknown setting 'model\.codebok'; known: .*'codebook'",
        ),
        (
            f"train vqgan-tiny {TRAIN} --model.codebook.entrys 5",
            r"'model\.codebook\.entrys'; known: .*Did you mean 'entries'",
        ),
        (f"train vqgan-tiny {TRAIN} --trian.steps 5", r"Unknown setting 'trian'; known: .*Did you mean 'train'"),
        (f"train vqgan-tiny {TRAIN} --model.quantizer.name nearst", r"quantizer 'nearst'.*Did you mean 'nearest'"),
        (f"train vqgan-tiny {TRAIN} --model.codebook lerned", r"Unknown codebook 'lerned'.*Did you mean 'learned'"),
        (f"train ta-vqgan-tiny {TRAIN} --model.align.name tb", r"Unknown aligner 'tb'; known: .*ta"),
        (
            f"train vqgan-tiny {TRAIN} --resum",
            r"Unexpected argument '--resum'; settings are given as --SECTION\.KEY VALUE",
        ),
        ("evaluate plain --data data --features sceens", r"Unknown feature network 'sceens'.*Did you mean 'scenes'"),
        ("evaluate plain --data data --features squeezenet", r"'squeezenet' needs the path"),
        (
            "evaluate plain --data data --split tset",
            r"no images in the split 'tset'; it has: train \(10\), val \(3\), te",
        ),
        ("text data --splitter none --out out", r"Unknown (text )?splitter 'none'; known: corpora, pattern"),
        ("data import flickr9k data out", r"Unknown data source 'flickr9k'.*Did you mean 'flickr8k'"),
        # values
        (f"train vqgan-tiny {TRAIN} --train.steps ten", r"'train\.steps' = 'ten' is not accepted: .*integer"),
        (
            f"train vqgan-tiny {TRAIN} --train.steps 0",
            r"'train\.steps' = 0 is not accepted: .*greater than or equal to 1",
        ),
        (f"train vqgan-tiny {TRAIN} --train.steps", r"The setting --train\.steps needs a value"),
        (f"train vqgan-tiny {TRAIN} --model.codebook.entries 0", r"'model\.codebook\.entries' = 0 is not accepted"),
        (
            f"train vqgan-tiny {TRAIN} --model.codebook.entries 1000000000000",
            r"'model\.codebook\.entries' = 1000000000000 is not accepted",
        ),
        (
            f"train vqgan-tiny {TRAIN} --model.codebook.entries many",
            r"'model\.codebook\.entries' = 'many' is not accepted: .*integer",
        ),
        (f"train vqgan-tiny {TRAIN} --data.size 30", r"data\.size 30 must be a multiple of 4"),
        (f"train vqgan-tiny {TRAIN} --data.size 1.5", r"'data\.size' = 1\.5 is not accepted"),
        (f"train vqgan-tiny {TRAIN} --train.betas [0.5,2]", r"'train\.betas\.1' = 2 is not accepted: .*less than 1"),
        (f"train vqgan-tiny {TRAIN} --train.precision fp8", r"'train\.precision' = 'fp8' is not accepted: .*'fp32'"),
        (f"train vqgan-tiny {TRAIN} --train.learning_rate .nan", r"'train\.learning_rate' = nan is not accepted"),
        (f"train vqgan-tiny {TRAIN} --train.l1 0", r"l1 and l2 cannot both be 0"),
        (f"train vqgan-tiny {TRAIN} --train.seed -1", r"'train\.seed' = -1 is not accepted"),
        (f"train vqgan-tiny {TRAIN} --model.net.multipliers [1,0]", r"'model\.net\.multipliers.* is not accepted"),
        (f"train vqgan-tiny {TRAIN} --model.net.multipliers []", r"'model\.net\.multipliers' = \[\] is not accepted"),
        (f"train vqgan-tiny {TRAIN} --data.size 16 --train.adversarial.discriminator.layers 3", r"16 is below 24"),
        (f"train vqgan-tiny {TRAIN} --train.adversarial 5", r"'train\.adversarial' = 5 is not accepted"),
        (f"train vqgan-tiny {TRAIN} --model.net 5", r"'model\.net' = 5 is not accepted"),
        ("evaluate plain --data data --limit abc", r"--limit.*abc"),
        ("evaluate plain --data data --limit 0", r"--limit.*Must be >= 1"),
        ("evaluate plain --data data --limit -3", r"--limit.*Must be >= 1"),
        ("evaluate plain --data data --size 30 --empty-features", r"must be multiples of 4|multiple of 4"),
        ("encode plain data --out t.safetensors --size 30", r"must be multiples of 4|multiple of 4"),
        ("encode plain data --out t.safetensors --size 0", r"--size.*Must be >= 1"),
        ("encode plain data --out t.safetensors --size 8", r"'size' = 8 is not accepted"),
        ("data scenes out --images 0", r"--images.*Must be >= 1"),
        ("data import flickr8k empty out --limit -5", r"--limit.*Must be >= 1"),
        ("data scenes out --size 0", r"--size.*Must be >= 1"),
        ("demo --out out --images 0", r"--images.*Must be >= 1"),
        # things that are missing
        ("train vqgan-tiny --data nowhere --out out", r"There is no folder nowhere"),
        ("train vqgan-tiny --out out", r"--data requires an argument"),
        ("train", r"RECIPE requires an argument"),
        ("evaluate plain --data nowhere", r"There is no folder nowhere"),
        ("data check nowhere", r"There is no folder nowhere"),
        ("text nowhere", r"There is no folder nowhere"),
        ("encode plain nowhere --out t.safetensors", r"There is no folder nowhere"),
        ("report nowhere", r"nowhere"),
        ("report empty", r"empty"),
        ("report plain --data nowhere", r"The folder nowhere does not exist"),
        ("compare plain", r"needs at least two run folders"),
        ("compare plain nowhere", r"nowhere"),
        ("train vqgan-tiny --data empty --out out", r"empty holds no images"),
        ("data check empty", r"empty holds no images"),
        ("text empty", r"empty holds no images"),
        ("encode plain empty --out t.safetensors", r"empty holds no images"),
        ("evaluate empty --data data", r"There is no model at 'empty'"),
        ("evaluate no-such-model --data data", r"There is no model at 'no-such-model'"),
        ("decode empty tokens.safetensors --out out", r"There is no model at 'empty'"),
        ("train ta-vqgan-tiny --data empty --out out", r"empty holds no images"),
        (
            "train ta-vqgan-tiny --data data/images --out out",
            r"data/images has no captions, and this recipe reads text",
        ),
        (f"train vqgan-tiny {TRAIN} --resume", r"There is no run in out to resume"),
        (f"train bad.yaml {TRAIN}", r"Recipe bad\.yaml is not valid YAML"),
        (f"train list.yaml {TRAIN}", r"Recipe list\.yaml must hold settings"),
        (
            f"train wide.yaml {TRAIN}",
            r"'chanels'.*'model\.net\.chanels'|Unknown setting 'model\.net\.chanels'.*'channels'",
        ),
        (f"train round.yaml {TRAIN}", r"extends a chain of more than 5"),
        ("train vqgan-tiny --data file --out out", r"There is no folder file"),
        ("train vqgan-tiny --data data --out file", r"file cannot be used as a run folder"),
        ("train vqgan-tiny --data data --out file/run", r"file/run cannot be used as a run folder"),
        ("data scenes file --images 2", r"file"),
        ("data scenes data --images 2", r"data"),
        ("demo --out data", r"data exists and is not an empty folder"),
        ("demo --out file", r"file exists and is not an empty folder"),
        ("demo --out out --steps 0", r"--steps.*Must be >= 1"),
        ("text data --encoder file --out out", r"file"),
    ],
)
def test_a_wrong_call_is_explained_in_one_line(tavq: Tavq, place: Path, command: str, message: str) -> None:
    before = sorted(place.iterdir())
    assert_one_line(tavq(*command.split()), 2, message)
    left = set(place.iterdir()) - set(before)
    assert left <= {place / "out"}
    assert not any(path.suffix == ".safetensors" for path in left)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("decode plain tokens.safetensors --out out", r"tokens\.safetensors is not a complete safetensors file"),
        ("decode plain nowhere.safetensors --out out", r"nowhere\.safetensors"),
        (f"train ta-vqgan-tiny {TRAIN} --text empty", r"empty is not a text store"),
        ("evaluate plain --data data --text empty", r"empty is not a text store"),
        ("text data --encoder empty --out out", r"empty is not a text encoder"),
        ("encode plain file --out t.safetensors", r"file: it is not an image"),
        ("encode plain data --out file/t.safetensors", r"Could not write file/t\.safetensors"),
        ("evaluate plain --data data --empty-features --json file/a.json", r"Could not write file/a\.json"),
        ("compare plain aligned --out file/both.html", r"Could not write file/both\.html"),
        ("data import flickr8k empty out", r"There is no file Flickr8k\.token\.txt"),
        ("evaluate plain --data data --features squeezenet=file", r"file is not a readable \.npz file"),
    ],
)
def test_work_that_fails_is_explained_in_one_line(tavq: Tavq, place: Path, command: str, message: str) -> None:
    done = tavq(*command.split())
    lines = [line for line in done.err.splitlines() if not line.startswith(("Evaluating", "Writing", "Encoding"))]
    assert len(lines) == 1, done.err
    assert lines[0].startswith("tavq: ")
    assert re.search(message, lines[0])
    assert done.code == 1


def test_several_wrong_settings_are_all_named(tavq: Tavq, place: Path) -> None:
    done = tavq("train", "vqgan-tiny", "--data", "data", "--out", "out", "--train.stepps", 4, "--data.size", "big")
    assert done.code == 2
    assert "'train.stepps'" in done.err
    assert "'data.size' = 'big'" in done.err
    assert len(done.err.splitlines()) == 2


def test_an_old_name_of_a_setting_is_one_plain_line(tavq: Tavq, place: Path) -> None:
    done = tavq("train", "vqgan-tiny", *TRAIN.split(), "--data.pictures", "segmentation", "--data.colours", "nonsense")
    first, *_ = done.err.splitlines()
    assert first == "tavq: The setting 'pictures' is now called 'images'; use the new name."
    assert "Warning" not in done.err


def forge_config(folder: Path, old: str, new: str) -> None:
    """Change settings and leave the seal out, as a forger does."""
    config = json.loads((folder / "config.json").read_text().replace(old, new))
    del config["seal"]
    (folder / "config.json").write_text(json.dumps(config))


def damaged_model(place: Path, change: Callable[[Path], object]) -> None:
    folder = place / "damaged"
    folder.mkdir()
    for path in (place / "plain/model").iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    change(folder)


@pytest.mark.parametrize(
    ("change", "code", "message"),
    [
        (lambda f: (f / "model.safetensors").write_bytes(b""), 1, r"model\.safetensors was altered or truncated"),
        (lambda f: (f / "model.safetensors").unlink(), 1, r"There is no file .*model\.safetensors"),
        (lambda f: (f / "config.json").write_text("{"), 1, r"config\.json is not valid JSON"),
        (
            lambda f: (f / "config.json").write_text("[]"),
            1,
            r"config\.json does not describe a tokenizer of tavq\. One of another",
        ),
        (
            lambda f: forge_config(f, '"name": "nearest"', '"name": "os.system"'),
            2,
            r"Unknown quantizer 'os\.system'",
        ),
        (
            lambda f: forge_config(f, '"entries": 16', '"entries": 8'),
            1,
            r"does not fit its config\.json",
        ),
        (
            lambda f: (f / "config.json").write_text(
                (f / "config.json").read_text().replace('"entries": 16', '"entries": 8')
            ),
            1,
            r"config\.json was altered: its settings do not fit its seal",
        ),
    ],
)
def test_a_damaged_model_is_refused(
    tavq: Tavq, place: Path, change: Callable[[Path], object], code: int, message: str
) -> None:
    damaged_model(place, change)
    assert_one_line(tavq("encode", "damaged", "data", "--out", "t.safetensors"), code, message)


@pytest.mark.parametrize(
    ("indices", "metadata", "code", "message"),
    [
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": '["../x.png"]'}, 1, r"'\.\./x\.png' leads outside"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": '["/x.png"]'}, 1, r"'/x\.png' leads outside"),
        (
            torch.full((1, 8, 8), 16, dtype=torch.int32),
            {"keys": '["x.png"]'},
            2,
            r"are out of range: the codebook has entries 0 to 15",
        ),
        (torch.full((1, 8, 8), -1, dtype=torch.int32), {"keys": '["x.png"]'}, 2, r"are out of range"),
        (torch.zeros(1, 8, 8), {"keys": '["x.png"]'}, 1, r"is not a tokens file"),
        (torch.zeros(8, 8, dtype=torch.int32), {"keys": '["x.png"]'}, 1, r"is not a tokens file"),
        (torch.zeros(2, 8, 8, dtype=torch.int32), {"keys": '["x.png"]'}, 1, r"is not a tokens file"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": "7"}, 1, r"is not a tokens file"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": '{"x": 1}'}, 1, r"is not a tokens file"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": '[""]'}, 1, r"is not a tokens file|leads outside"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": '["."]'}, 1, r"is not a tokens file|leads outside"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": '["x\\u0000.png"]'}, 1, r"leads outside"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {"keys": "["}, 1, r"not valid JSON"),
        (torch.zeros(0, 8, 8, dtype=torch.int32), {"keys": "[]"}, 1, r"holds no images"),
        (torch.zeros(1, 0, 8, dtype=torch.int32), {"keys": '["x.png"]'}, 2, r"Cannot decode an empty grid"),
        (torch.zeros(1, 8, 8, dtype=torch.bool), {"keys": '["x.png"]'}, 1, r"is not a tokens file"),
        (torch.zeros(1, 8, 8, dtype=torch.int32), {}, 1, r"holds no images|is not a tokens file"),
    ],
)
def test_hostile_tokens_are_refused(
    tavq: Tavq, place: Path, indices: torch.Tensor, metadata: dict[str, str], code: int, message: str
) -> None:
    save_file({"indices": indices}, place / "hostile.safetensors", metadata)
    assert_one_line(tavq("decode", "plain", "hostile.safetensors", "--out", "out"), code, message)
    assert not (place / "out").exists()
    assert not (place / "x.png").exists()


def test_a_store_without_full_texts_is_refused(tavq: Tavq, place: Path, small: list[str]) -> None:
    shutil.copytree(place / "data/text", place / "mine")  # one that is named is not extended, as DATA/text is
    command = ("train", "ta-vqgan-tiny", "--data", "data", "--out", "out", "--text", "mine", *small)
    assert_one_line(
        tavq(*command, "--model.align.multi_granularity", "false"),
        2,
        r"holds no token-level text; rebuild it with: .*--full-text",
    )


def test_a_refused_training_leaves_the_run_unchanged(tavq: Tavq, place: Path, small: list[str]) -> None:
    before = files.sha256(place / "plain/model/model.safetensors")
    assert_one_line(
        tavq("train", "vqgan-tiny", "--data", "data", "--out", "plain", *small), 2, r"already holds a run; add --resume"
    )
    assert files.sha256(place / "plain/model/model.safetensors") == before


def test_an_old_name_of_a_flag_is_one_plain_line(tavq: Tavq, place: Path) -> None:
    done = tavq("text", "nowhere", "--fewest=3")
    assert done.err.splitlines()[0] == "tavq: The flag --fewest is now called --min-count; use the new name."
    assert "There is no folder nowhere" in done.err.splitlines()[1]
    assert "--fewest" not in tavq("text", "--help").out
