"""Grounding and masked words by command: trained, resumed, measured, asked, and asked wrongly."""

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

Tavq = Callable[..., Any]

SMALL = "--task.layers 1 --task.heads 2 --task.width 16 --task.image.hidden 16 --train.steps 4 --train.batch 4 "
SMALL += "--train.log_every 1 --train.checkpoint_every 2 --train.warmup 1"
TASKS = ("grounding", "masked-words")


@pytest.fixture(scope="module")
def place(tavq: Tavq, tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """Scenes, a tokenizer of them and a run of both tasks."""
    place = tmp_path_factory.mktemp("tasks")
    data = place / "data"
    commands: list[tuple[Any, ...]] = [
        ("data", "scenes", data, "--images", 20, "--size", 32),
        ("train", "vqgan-tiny", "--data", data, "--out", place / "images", *small),
        *(train(place, task) for task in TASKS),
    ]
    for command in commands:
        done = tavq(*command)
        assert done.code == 0, done.err
    return place


def train(place: Path, task: str, *more: Any) -> tuple[Any, ...]:
    return (
        *("task", "train", f"{task}-tiny", "--tokenizer", place / "images", "--data", place / "data"),
        *("--out", place / task, *SMALL.split(), *more),
    )


def first(place: Path) -> Path:
    return min((place / "data/images").iterdir())


@pytest.mark.parametrize("task", TASKS)
def test_a_resumed_run_is_bit_for_bit_the_same(task: str, tavq: Tavq, place: Path) -> None:
    weights = (place / task / "model/model.safetensors").read_bytes()
    shutil.rmtree(place / task / "checkpoints/00000004")
    done = tavq(*train(place, task, "--resume"))
    assert done.code == 0, done.err
    assert (place / task / "model/model.safetensors").read_bytes() == weights


@pytest.mark.parametrize(
    ("task", "names"),
    [
        ("grounding", ("accuracy@0.5", "mean_iou", "constant/mean_iou", "constant/name/mean_iou")),
        ("masked-words", ("masked-1/recall@1", "masked-3/content/recall@5", "constant/previous/masked-1/recall@1")),
    ],
)
def test_a_task_is_measured(task: str, names: tuple[str, ...], tavq: Tavq, place: Path) -> None:
    done = tavq("task", "evaluate", place / task, "--data", place / "data", "--json", place / f"{task}.json")
    assert done.code == 0, done.err
    found = json.loads((place / f"{task}.json").read_text())["metrics"]
    assert all(0 <= found[name]["value"] <= 1 for name in names)
    assert found[names[0]]["interval"] is not None  # of so few images some metrics have none


def test_a_phrase_is_found(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    out, figures = tmp_path / "found.png", tmp_path / "found.json"
    done = tavq("ground", place / "grounding", first(place), "the red thing", "--out", out, "--json", figures)
    assert done.code == 0, done.err
    found = json.loads(figures.read_text())
    x, y, w, h = found["box"]
    assert min(x, y, w, h) >= 0
    assert max(x + w, y + h) <= 32.001
    assert np.shape(found["heatmap"]) == (4, 4)
    assert np.sum(found["heatmap"]) == pytest.approx(1, abs=1e-5)
    with Image.open(out) as shown:
        assert shown.size == (320 + 8 + 320, 320)
    assert "does not know the word 'thing'" in done.err
    assert all(f"{round(edge, 1):.4g}" in done.out for edge in (x, y, w, h))


def test_the_image_is_written_into_the_run_by_default(tavq: Tavq, place: Path) -> None:
    done = tavq("ground", place / "grounding", first(place), "the tree")
    assert done.code == 0, done.err
    assert (place / "grounding/grounded.png").is_file()


def test_a_wide_image_has_its_box_in_its_own_pixels(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    """The same square with a margin on each side is the same to the task; the box moves by the margin."""
    with Image.open(first(place)) as stored:
        square = stored.convert("RGB")
    wide = Image.new("RGB", (96, 32), (255, 0, 255))
    wide.paste(square, (32, 0))
    wide.save(tmp_path / "wide.png")
    square.save(tmp_path / "square.png")
    boxes = {}
    for name in ("wide", "square"):
        image, figures = tmp_path / f"{name}.png", tmp_path / f"{name}.json"
        done = tavq("ground", place / "grounding", image, "the tree", "--out", tmp_path / "x.png", "--json", figures)
        assert done.code == 0, done.err
        boxes[name] = json.loads(figures.read_text())["box"]
    assert boxes["wide"] == pytest.approx([boxes["square"][0] + 32, *boxes["square"][1:]])


@pytest.mark.parametrize("mode", ["L", "RGBA", "CMYK", "P", "1"])
@pytest.mark.parametrize("size", [(50, 31), (16, 90)])
def test_any_image_is_read(mode: str, size: tuple[int, int], tavq: Tavq, place: Path, tmp_path: Path) -> None:
    with Image.open(first(place)) as stored:
        image = stored.convert("RGB").resize(size).convert(mode)
    path = tmp_path / ("a.jpg" if mode == "CMYK" else "a.png")
    image.save(path)
    done = tavq("ground", place / "grounding", path, "the tree", "--out", tmp_path / "found.png")
    assert done.code == 0, done.err
    done = tavq("fill", place / "masked-words", path, "a ___ tree")
    assert done.code == 0, done.err


def test_missing_words_are_filled_in(tavq: Tavq, place: Path, tmp_path: Path) -> None:
    figures = tmp_path / "filled.json"
    done = tavq(*("fill", place / "masked-words", first(place), "a ___ tree in a ___", "--count", 3, "--json", figures))
    assert done.code == 0, done.err
    found = json.loads(figures.read_text())
    assert [len(words) for words in found["gaps"]] == [3, 3]
    assert all(0 < row["probability"] < 1 for words in found["gaps"] for row in words)
    assert all(row["word"] in done.out for words in found["gaps"] for row in words)


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("ground grounding IMAGE ", r"phrase is empty"),
        ("ground grounding IMAGE дом", r"phrase 'дом' has no word that the model knows"),
        ("ground grounding nowhere.png tree", r"nowhere\.png"),
        ("ground grounding grounding.txt tree", r"grounding\.txt: it is not an image"),
        ("ground masked-words IMAGE tree", r"'masked-words'; it is used by: tavq fill"),
        ("ground images IMAGE tree", r"holds a tokenizer; train a task on it first"),
        ("fill grounding IMAGE a_tree", r"'grounding'; it is used by: tavq ground"),
        ("fill masked-words IMAGE tree", r"'tree' has no gap; write ___"),
        ("fill masked-words IMAGE ___дом", r"has no gap"),
        ("fill masked-words IMAGE ___ --count 0", r"count"),
        (
            "task train grounding-tiny --tokenizer images --data bare --out x",
            r"learns from objects that have phrases",
        ),
        ("task train masked-words-tiny --tokenizer images --data bare --out x", r"learns from captions"),
        (
            "task train grounding-tiny --tokenizer images --data data --out x --task.text_encoder ./nowhere",
            r"no text encoder folder './nowhere'",
        ),
        ("task train grounding-tiny --tokenizer images --data data --out x --task.heads 3", r"not a multiple of 3"),
    ],
)
def test_a_wrong_call_is_one_line(
    command: str, message: str, tavq: Tavq, place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(place)
    (place / "grounding.txt").write_text("no image")
    (place / "bare").mkdir(exist_ok=True)
    shutil.copy(first(place), place / "bare/a.png")
    image = str(first(place).relative_to(place))
    done = tavq(*[image if part == "IMAGE" else part for part in command.split(" ")])
    assert done.code in (1, 2)
    lines = done.err.strip().splitlines()
    assert len(lines) == 1, done.err
    assert re.search(message, lines[0]), done.err
    assert not (place / "x").exists() or not (place / "x/recipe.yaml").exists()
