"""Captioning by command: trained, resumed, measured, asked for captions, and asked wrongly."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]

SMALL = "--task.language.layers 1 --task.language.heads 2 --task.language.width 16 --task.image.hidden 16"
SMALL += " --task.max_length 12 --train.steps 4 --train.batch 4 --train.log_every 1 --train.checkpoint_every 2"


@pytest.fixture(scope="module")
def place(tavq: Tavq, tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A tokenizer's run, its data, and a run of captioning."""
    place = tmp_path_factory.mktemp("captions")
    shutil.copytree(home / "data", place / "data")
    shutil.copytree(home / "plain", place / "plain")
    done = tavq(*train(place))
    assert done.code == 0, done.err
    assert f"Next: tavq caption {place / 'captioner'}" in " ".join(done.err.split())
    return place


def train(place: Path, *more: Any) -> tuple[Any, ...]:
    return (
        *("task", "train", "captioning-tiny", "--tokenizer", place / "plain", "--data", place / "data"),
        *("--out", place / "captioner", *SMALL.split(), *more),
    )


def images(place: Path, count: int) -> list[Path]:
    return sorted((place / "data/images").iterdir())[:count]


def captions(tavq: Tavq, place: Path, out: Path, *arguments: Any) -> list[dict[str, str]]:
    done = tavq("caption", place / "captioner", *arguments, "--json", out)
    assert done.code == 0, done.err
    found = json.loads(out.read_text())
    assert all(set(row) == {"image_id", "caption"} and row["caption"] for row in found)
    return found  # type: ignore[no-any-return]


def test_a_resumed_run_is_bit_for_bit_the_same(tavq: Tavq, place: Path) -> None:
    weights = (place / "captioner/model/model.safetensors").read_bytes()
    shutil.rmtree(place / "captioner/checkpoints/00000004")
    done = tavq(*train(place, "--resume"))
    assert done.code == 0, done.err
    assert (place / "captioner/model/model.safetensors").read_bytes() == weights


def test_images_get_captions(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    two = images(place, 2)
    found = captions(tavq, place, tmp_path / "a.json", *two, "--count", 3)
    assert [row["image_id"] for row in found] == [str(path) for path in two for _ in range(3)]
    done = tavq("caption", place / "captioner", two[0], "--count", 3)
    assert done.code == 0, done.err
    assert all(row["caption"] in done.out for row in found[:3])
    assert captions(tavq, place, tmp_path / "b.json", two[0]) == found[:1]
    many = captions(tavq, place, tmp_path / "c.json", two[0], "--count", 7)  # more than the recipe's beams
    assert len({row["caption"] for row in many}) > 5


@pytest.mark.parametrize("how", [("--temperature", 1.5), ("--top-p", 0.9), ("--top-k", 5, "--beams", 1)])
def test_a_seed_samples_the_same_captions_in_any_batch(
    tavq: Tavq, place: Path, tmp_path: Path, how: tuple[Any, ...]
) -> None:
    one, other = images(place, 2)
    found = [
        captions(tavq, place, tmp_path / "a.json", *given, "--count", 4, "--seed", seed, *how)
        for given, seed in (((one, other), 1), ((other,), 1), ((other,), 2))
    ]
    assert found[0][4:] == found[1] != found[2]


def test_the_evaluation_measures_what_the_command_writes(
    tavq: Tavq, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from tavq.nets.language import DecodingConfig
    from tavq.tasks.captioning import Captioning

    drawn = DecodingConfig(beams=1, temperature=1.5)
    written: dict[str, str] = {}
    usual = Captioning.caption

    def record_call(
        task: Any, seen: Any, decoding: Any = None, count: int = 1, seed: int = 0, names: Any = None
    ) -> Any:
        found = usual(task, seen, drawn, count, seed, names)
        written.update(zip(names, [texts[0] for texts in found], strict=True))
        return found

    found = captions(tavq, place, tmp_path / "p.json", place / "data", "--temperature", 1.5)
    monkeypatch.setattr(Captioning, "caption", record_call)
    assert tavq("task", "evaluate", place / "captioner", "--data", place / "data").code == 0
    assert written == {row["image_id"]: row["caption"] for row in found}


def test_captions_of_a_data_set_are_read_by_metrics(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    found = captions(tavq, place, tmp_path / "p.json", place / "data", "--references", tmp_path / "r.json")
    lines = [json.loads(line) for line in (place / "data/metadata.jsonl").read_text().splitlines()]
    known = {line["file_name"]: line["captions"] for line in lines if line["split"] == "test"}
    assert [row["image_id"] for row in found] == list(known)
    assert json.loads((tmp_path / "r.json").read_text()) == known
    files = ("--predictions", tmp_path / "p.json", "--references", tmp_path / "r.json")
    done = tavq("metrics", "captions", *files, "--json", tmp_path / "scores.json")
    assert done.code == 0, done.err
    scored = json.loads((tmp_path / "scores.json").read_text())["metrics"]
    done = tavq("task", "evaluate", place / "captioner", "--data", place / "data", "--json", tmp_path / "e.json")
    assert done.code == 0, done.err
    measured = json.loads((tmp_path / "e.json").read_text())["metrics"]
    for name in ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr-D"):
        assert measured[name] == scored[name]
    assert {"constant/CIDEr-D", "shuffled/CIDEr-D"} <= set(measured)
    alone = tavq("caption", place / "captioner", place / "data", "--split", "val")
    assert alone.code == 0, alone.err
    assert "images/10.png" in alone.out


def test_an_unreadable_image_is_named_and_left_out(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(place / "data", tmp_path / "data")
    (copy / "images/14.png").write_bytes(b"no image")
    done = tavq(
        "caption", place / "captioner", copy, "--json", tmp_path / "p.json", "--references", tmp_path / "r.json"
    )
    assert done.code == 0, done.err
    assert "Skipped images/14.png" in done.err
    names = {"images/13.png", "images/15.png"}
    assert {row["image_id"] for row in json.loads((tmp_path / "p.json").read_text())} == names
    assert set(json.loads((tmp_path / "r.json").read_text())) == names


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("caption captioner", r"There is no image; give images, or one folder data set"),
        ("caption captioner nowhere.png", r"nowhere\.png"),
        ("caption captioner data data", r"data is a folder; give images, or one folder data set alone"),
        ("caption captioner IMAGE data", r"data is a folder; give images"),
        ("caption captioner data --split tset", r"no images in the split 'tset'; it has: train"),
        ("caption captioner IMAGE --references r.json", r"--references needs a folder data set"),
        (
            "caption captioner IMAGE --beams 3 --temperature 1",
            r"sampling \(temperature 1\.0\) or beam search \(beams 3\)",
        ),
        ("caption captioner IMAGE --temperature 0 --top-p 0.5", r"give a temperature above 0"),
        ("caption captioner IMAGE --count 3 --beams 2", r"3 texts per image need a beam width of at least 3, not 2"),
        ("caption captioner IMAGE --beams 65", r"65"),
        ("caption plain IMAGE", r"holds a tokenizer; train a task on it first"),
        ("ask captioner IMAGE what", r"'captioning'; it is used by: tavq caption"),
        ("generate captioner", r"'captioning'; it is used by: tavq caption"),
        ("task train captioning-tiny --tokenizer plain --data bare --out x", r"learns from captions, and no image"),
        (
            "task train captioning-tiny --tokenizer plain --data data --out x --task.language.pretrained nowhere",
            r"The language model 'nowhere' is not a folder",
        ),
        (
            "task train captioning-tiny --tokenizer plain --data data --out x --task.freeze_language true",
            r"name a language\.pretrained",
        ),
        ("task train captioning-tiny --tokenizer plain --data data --out x --task.image.patch 3", r"does not divide"),
    ],
)
def test_a_wrong_call_is_one_line(
    command: str, message: str, tavq: Tavq, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    bare = place / "bare"
    if not bare.exists():
        shutil.copytree(place / "data/images", bare)
    image = str(images(place, 1)[0].relative_to(place))
    done = tavq(*[image if part == "IMAGE" else part for part in command.split()])
    assert done.code in (1, 2)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert re.search(message, lines[0]), done.err
    assert not (place / "x/recipe.yaml").exists()
