"""Two processes of `torchrun` give the same files and the same values as one, and fail with one message."""

import json
from pathlib import Path

import pytest
from processes import launch, run_tavq
from tiny_bert import write_bert
from tiny_llava import build

import tavq as package
from tavq.text import encoding

from .conftest import Tavq

TRAIN = "--train.steps 2 --train.batch 4 --train.log_every 1"
LAYERS = "--task.layers 1 --task.heads 2 --task.width 16"
LANGUAGE = "--task.language.layers 1 --task.language.heads 2 --task.language.width 16 --task.max_length 12"

SCRIPT = """
import contextlib, json, os, sys
from pathlib import Path
from tavq.cli import run
from tavq.text import encoding

encoding.UNITS_CHUNK, encoding.TEXTS_CHUNK = 16, 8  # several chunks of few texts
out = Path(sys.argv[1])
for name, words in json.loads((out / "commands.json").read_text()).items():
    with (out / f"{name}.{os.environ['RANK']}.log").open("w") as log, contextlib.redirect_stdout(log):
        if run(words):
            sys.exit(f"{name} failed")
"""


@pytest.fixture(scope="module")
def place(tavq: Tavq, small: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Scenes, more than a batch of them in a split, with tokenizers and tasks."""
    place = tmp_path_factory.mktemp("shared")
    data = place / "data"
    task = ("--tokenizer", place / "plain", "--data", data, *TRAIN.split())
    for command in (
        ("data", "scenes", data, "--images", 120, "--size", 32),
        ("text", data, "--encoder", write_bert(place / "bert")),
        ("train", "vqgan-tiny", "--data", data, "--out", place / "plain", *small),
        ("train", "ta-vqgan-tiny", "--data", data, "--out", place / "aligned", *small, "--model.align.iterations", 5),
        ("task", "train", "unconditional-tiny", *task, *LAYERS.split(), "--out", place / "prior"),
        ("task", "train", "completion-tiny", *task, *LAYERS.split(), "--out", place / "completion"),
        ("task", "train", "captioning-tiny", *task, *LANGUAGE.split(), "--out", place / "captioner"),
        ("encode", place / "plain", data, "--out", place / "tokens.safetensors"),
        ("decode", place / "plain", place / "tokens.safetensors", "--out", place / "decoded"),
    ):
        done = tavq(*command)
        assert done.code == 0, done.err
    return place


def content(out: Path) -> dict[str, bytes]:
    files = [out] if out.is_file() else [path for path in out.rglob("*") if path.is_file()]
    return {str(path.relative_to(out)): path.read_bytes() for path in files if not path.name.startswith(".lock")}


COMMANDS = {
    "encode": "encode PLACE/plain PLACE/data --out OUT",
    "shards": "encode PLACE/plain PLACE/data --shard-size 50 --out OUT",
    "decode": "decode PLACE/plain PLACE/tokens.safetensors --out OUT",
    "generate": "generate PLACE/prior --count 40 --seed 3 --out OUT",
    "complete": "complete PLACE/completion PLACE/data/images/000000.png --mask centre --count 40 --out OUT",
    "caption": "caption PLACE/captioner PLACE/data --split train --json OUT",
    "caption-sampled": "caption PLACE/captioner PLACE/data --split train --temperature 1 --count 2 --json OUT",
    "caption-images": "caption PLACE/captioner PLACE/data/images/000000.png PLACE/data/images/000001.png "
    "PLACE/data/images/000002.png --json OUT",
    "search": "search index PLACE/aligned --data PLACE/data --out OUT",
    "text": "text PLACE/data --encoder PLACE/bert --full-text --word-graph --min-count 1 --out OUT",
    "pairs": "metrics images PLACE/decoded PLACE/data --paired --json OUT",
    "sets": "metrics images PLACE/decoded PLACE/data --json OUT",
    "describe": "describe PLACE/bare --model PLACE/llava --max-tokens 8 --json OUT",
}


@pytest.fixture(scope="module")
def both(place: Path, tavq: Tavq) -> Path:
    """The results of each command by one process in `one`, and by two in `two`."""
    _write_undescribed(place / "bare")
    build(place / "llava")
    (place / "run.py").write_text(SCRIPT)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(encoding, "UNITS_CHUNK", 16)
        patch.setattr(encoding, "TEXTS_CHUNK", 8)
        (place / "one").mkdir()
        for name in COMMANDS.keys() - {"describe"}:
            done = tavq(*words(place, name, place / "one" / name))
            assert done.code == 0, done.err
            (place / "one" / f"{name}.0.log").write_text(done.out)
    (place / "two").mkdir()
    commands = {name: words(place, name, place / "two" / name) for name in COMMANDS}
    (place / "two/commands.json").write_text(json.dumps(commands))
    codes = launch(2, [place / "two"], place, place / "run.py")
    assert codes == [0, 0], "".join(path.read_text() for path in place.glob("errors-*"))
    return place


def words(place: Path, name: str, out: Path) -> list[str]:
    return COMMANDS[name].replace("PLACE", str(place)).replace("OUT", str(out)).split()


def _write_undescribed(data: Path) -> None:
    package.make_scenes(data, images=6, size=32)
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        line.pop("long_text", None)
    (data / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.mark.parametrize("name", [name for name in COMMANDS if name not in ("pairs", "sets", "describe")])
def test_two_processes_write_what_one_does(name: str, both: Path) -> None:
    one, two = (content(both / kind / name) for kind in ("one", "two"))
    assert one
    assert one == two


@pytest.mark.parametrize("name", COMMANDS)
def test_only_the_first_process_prints(name: str, both: Path) -> None:
    assert (both / f"two/{name}.1.log").read_text() == ""
    if name not in ("describe", "text"):  # whose numbers and places are of more than one process
        one, two = ((both / kind / f"{name}.0.log").read_text() for kind in ("one", "two"))
        assert one == two
    told = (both / "errors-1").read_text()
    assert "tavq" not in told
    assert "images are in" not in told


@pytest.mark.parametrize("name", ["pairs", "sets"])
def test_two_processes_measure_images_as_one_does(name: str, both: Path) -> None:
    found = [json.loads((both / kind / name).read_text()) for kind in ("one", "two")]
    for one, two in zip(*(each.pop("metrics").values() for each in found), strict=True):
        for key in (key for key in ("value", "standard_error") if two.get(key) is not None):
            assert one[key] == pytest.approx(two[key], rel=1e-9)
        assert one.keys() == two.keys()
    assert found[0] == found[1]
    assert len(found[0]["per_image"]) == (120 if name == "pairs" else 0)


def test_processes_describe_a_share_each(both: Path) -> None:
    counts = json.loads((both / "two/describe").read_text())
    shards = sorted((both / "bare").glob("long_text*.jsonl"))
    described = [json.loads(line)["file_name"] for path in shards for line in path.read_text().splitlines()]
    assert [path.name for path in shards] == ["long_text-1-of-2.jsonl", "long_text-2-of-2.jsonl"]
    assert counts["described"] + counts["failed"] == 6
    assert sorted(described) == [f"images/{number:06d}.png" for number in range(6)]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("encode nowhere data --out out", "There is no model at 'nowhere'"),
        ("generate {prior} --count 2 --animate --out {out}", "--animate shows how one process decodes"),
        ("encode", "requires an argument"),
    ],
)
def test_a_failure_of_all_is_told_once(place: Path, tmp_path: Path, arguments: str, message: str) -> None:
    names = {"{plain}": place / "plain", "{captioner}": place / "captioner", "{data}": place / "data",
             "{prior}": place / "prior", "{out}": tmp_path / "out"}  # fmt: skip
    done = run_tavq(2, [names.get(word, word) for word in arguments.split()])
    told = [line for line in done.stderr.splitlines() if line.startswith("tavq: ")]
    assert done.returncode != 0
    assert len(told) == 1, done.stderr
    assert message in told[0]


def test_a_failure_of_one_ends_all_with_its_message(place: Path, tmp_path: Path) -> None:
    package.make_scenes(tmp_path / "data", images=80, size=32)
    names = [json.loads(line)["file_name"] for line in (tmp_path / "data/metadata.jsonl").read_text().splitlines()]
    (tmp_path / "data" / names[40]).write_bytes(b"no image")  # in the second batch, which the second process reads
    done = run_tavq(2, ["encode", place / "plain", tmp_path / "data", "--out", tmp_path / "t", "--fault-budget", 0])
    told = [line for line in done.stderr.splitlines() if line.startswith("tavq: ")]
    assert done.returncode != 0
    assert len(told) == 1, done.stderr
    assert "1 of 80 images" in told[0]
    assert not (tmp_path / "t").exists()
