"""Nothing of a held-out image reaches what a task learns: no text, question or box, and no pixel."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tavq.core.config import build
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.interfaces import FULL_TEXT, FULL_TEXT_IDS, GRANULARITIES, POOLED
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import tasks
from tavq.tasks.model_folder import load_task
from tavq.tasks.understanding import UnderstandingTask
from tavq.tokenizer import Tokenizer
from tavq.training.task.trainer import TaskTrainer

SMALL: dict[str, Any] = {
    "language": {"layers": 1, "heads": 2, "width": 16, "dropout": 0.1},
    "layers": 1,
    "heads": 2,
    "width": 16,
    "hidden": 16,
}
"""Settings of tasks, used where a task has them."""

NAMES = [name for name in tasks if issubclass(tasks[name], UnderstandingTask)]
COLOURS = ["red", "green", "blue", "brown"]
SPLITS = ["train", "test", "train", "val"] * 3
FACTS = {"README.md"}
"""Files of a model folder that record its origin, and thus the hash of metadata.jsonl."""

pytestmark = [pytest.mark.slow, pytest.mark.parametrize("name", NAMES)]


def line(number: int, split: str, colour: str, thing: str) -> dict[str, Any]:
    """An image with everything that a record can hold."""
    return {
        "file_name": f"{number}.png",
        "split": split,
        "captions": [f"A {colour} {thing} beside a lake.", f"There is a {colour} {thing}."],
        "long_text": f"A {colour} {thing} stands beside a lake. The sky is grey. It is {number} o'clock.",
        "objects": [{"box": [4, 8, 12, 16], "name": thing, "phrases": [f"the {colour} {thing}"]}],
        "questions": [{"question": f"what is the color of the {thing}", "answer": colour, "type": "color"}],
    }


def write(folder: Path, held_out: Callable[[dict[str, Any]], dict[str, Any]], pixels: bool) -> Path:
    """A data set whose val and test records are changed, and whose images may be no images."""
    lines = []
    for number, split in enumerate(SPLITS):
        record = line(number, split, COLOURS[number % 4], "barn")
        save_png(folder / record["file_name"], np.random.default_rng(number).integers(0, 255, (32, 32, 3), np.uint8))
        if split != "train":
            record = held_out(record)
            if not pixels:
                (folder / record["file_name"]).write_bytes(b"no image")
        lines.append(json.dumps(record))
    (folder / "metadata.jsonl").write_text("".join(f"{text}\n" for text in lines))
    return folder


def other(record: dict[str, Any]) -> dict[str, Any]:
    """Words, answers and boxes that no other record has, and more of each."""
    changed = line(77, record["split"], "magenta", "zeppelin")
    changed["captions"] = [*changed["captions"], "Zeppelins and more zeppelins over magenta hills that go on and on."]
    changed["questions"] = [
        *changed["questions"],
        {"question": "how many zeppelins", "answer": "ninety", "type": "odd"},
    ]
    changed["objects"] = [{"box": [0, 0, 30, 31], "name": "zeppelin", "phrases": ["the vast zeppelin", "it"]}] * 2
    return {**changed, "file_name": record["file_name"]}


def bare(record: dict[str, Any]) -> dict[str, Any]:
    return {"file_name": record["file_name"], "split": record["split"]}


class Guarded:
    """A text source that has the text of training images and fails the test when another text is read."""

    width = 5

    def __init__(self, dataset: FolderDataset) -> None:
        self.own = {record.file_name for record in dataset}
        self.asked: set[str] = set()

    def __contains__(self, key: str) -> bool:
        return True

    def vectors(self, key: str) -> dict[str, Any]:
        assert key in self.own, f"the text of {key}, which is held out, was read"
        self.asked.add(key)
        draw = np.random.default_rng(int(Path(key).stem))
        tables = {name: draw.normal(size=(3, self.width)).astype(np.float32) for name in (*GRANULARITIES, FULL_TEXT)}
        return {**tables, FULL_TEXT_IDS: np.arange(3), POOLED: draw.normal(size=self.width).astype(np.float32)}

    def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
        raise AssertionError("a store's vocabulary is that of all splits")


@pytest.fixture
def train(make: Callable[..., Tokenizer], tmp_path: Path) -> Callable[..., Path]:
    """Two steps of a task on a data set; gives the model folder."""
    tokenizer = make(seed=1)
    tokenizer.save_pretrained(tmp_path / "tokenizer", metadata={"size": 32})

    def run(name: str, data: Path, **settings: Any) -> Path:
        known = tasks[name].Config.model_fields
        small = {key: value for key, value in SMALL.items() if key in known}
        values = {
            "task": {"name": name, "image": {"patch": 2, "hidden": 16}, **small, **settings},
            "train": {"steps": 2, "batch": 3, "log_every": 1, "checkpoint_every": 2, "sample_every": 2},
        }
        dataset = FolderDataset(data, "train")
        recipe = build(TaskRecipe, values, "test")
        trainer = TaskTrainer(recipe, tmp_path / "tokenizer", dataset, tmp_path / f"run-{data.name}", Guarded(dataset))
        return trainer.run()

    return run


def learned(folder: Path) -> dict[str, Any]:
    """Everything in a model folder except its origin: settings, files and weights."""
    found: dict[str, Any] = {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in FACTS and path != folder / "config.json"
    }
    stored = json.loads((folder / "config.json").read_text())
    return {**found, "settings": stored["model"], "sha256": stored["sha256"]}


@pytest.mark.parametrize("source", ["codes", "features"])
def test_held_out_records_and_images_change_nothing(
    name: str, source: str, train: Callable[..., Path], tmp_path: Path
) -> None:
    image = {"source": source, "patch": 2, "hidden": 16}
    first = learned(train(name, write(tmp_path / "as-it-is", lambda record: record, True), image=image))
    assert "model.safetensors" in first
    for place, change in (("other", other), ("bare", bare)):
        again = learned(train(name, write(tmp_path / place, change, pixels=False), image=image))
        assert again.keys() == first.keys()
        assert [key for key in first if again[key] != first[key]] == []


def test_training_records_do_change_it(name: str, train: Callable[..., Path], tmp_path: Path) -> None:
    """The test above can fail."""
    first = learned(train(name, write(tmp_path / "as-it-is", lambda record: record, True)))
    data = write(tmp_path / "swapped", lambda record: record, True)
    text = (data / "metadata.jsonl").read_text()
    text = text.replace("barn", "mill").replace("12, 16]", "16, 12]").replace("red", "tan")
    records = [json.loads(line) for line in text.splitlines()]
    for record in records:
        record["objects"] *= 2
    (data / "metadata.jsonl").write_text("".join(f"{json.dumps(record)}\n" for record in records))
    again = learned(train(name, data))
    assert again["sha256"] != first["sha256"] or [key for key in first if again[key] != first[key]]


def test_a_trained_model_has_no_words_of_held_out_records(
    name: str, train: Callable[..., Path], tmp_path: Path
) -> None:
    folder = train(name, write(tmp_path / "other", other, True))
    torch.manual_seed(0)
    assert load_task(folder).task is not None
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            assert b"zeppelin" not in path.read_bytes().lower(), path.name
            assert b"magenta" not in path.read_bytes().lower(), path.name
