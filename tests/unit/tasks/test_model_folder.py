"""Model folders of tasks that older versions wrote."""

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import FileError
from tavq.tasks.base import tasks
from tavq.tasks.model_folder import CONDITION_TOKENIZER, FORMAT, TOKENIZER, load_task, save_task
from tavq.tokenizer import Tokenizer, TokenizerConfig

FORMAT_1: dict[str, dict[str, Any]] = json.loads(Path(__file__).with_name("format_1.json").read_text())
"""Settings, and names and shapes of all weights in their order, of one small network of each task."""


def tokenizer(entries: int = 3) -> Tokenizer:
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}
    codebook = {"name": "learned", "entries": entries, "width": 4}
    return Tokenizer(build(TokenizerConfig, {"net": net, "codebook": codebook}, "test")).eval()


def old_weights(task: str) -> dict[str, Tensor]:
    """Weights by their old names, each filled with its place among all."""
    weights = FORMAT_1[task]["weights"]
    integers = ("seen",)  # a count; all others are floats
    return {
        name: torch.full(shape, index, dtype=torch.int64 if name in integers else torch.float32)
        for index, (name, shape) in enumerate(weights.items())
    }


def old_folder(folder: Path, task: str) -> Path:
    """A model folder as version 0.1 wrote it."""
    stored = FORMAT_1[task]["model"]
    inner = [TOKENIZER] if stored["given"] is None else [TOKENIZER, CONDITION_TOKENIZER]
    for name in inner:
        tokenizer().save_pretrained(folder / name)
    files.write_tensors(folder / "model.safetensors", old_weights(task))
    hashes = {name: files.read_json(folder / name / "config.json")["sha256"] for name in inner}
    record = {"format": 1, "kind": "task", "model": stored, "tokenizers": hashes, "files": {}, "step": 7}
    record["sha256"] = files.sha256(folder / "model.safetensors")
    files.write_json(folder / "config.json", record)
    return folder


@pytest.mark.parametrize("task", FORMAT_1)
def test_a_folder_of_format_1_is_read(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every weight arrives under its new name, and all stand in the same order, on which optimizers rely."""
    monkeypatch.setattr(tasks[task], "read_files", lambda self, folder: None)  # its word lists are not weights
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        model = load_task(old_folder(tmp_path / "old", task))
    values = [float(value.flatten()[0]) for value in model.task.state_dict().values()]
    assert values == [float(index) for index in range(len(FORMAT_1[task]["weights"]))]
    assert model.metadata["step"] == 7


def test_a_folder_is_written_in_the_current_format(tmp_path: Path) -> None:
    model = load_task(old_folder(tmp_path / "old", "prior"))
    maps = model.condition_tokenizer
    save_task(tmp_path / "new", model.config, model.task, model.tokenizer, maps, "", {"step": 7})
    stored = files.read_json(tmp_path / "new" / "config.json")
    assert stored["format"] == FORMAT == 2
    assert stored["model"]["task"]["condition_dropout"] == 0.2
    assert stored["model"]["condition_layout"] == FORMAT_1["prior"]["model"]["given"]
    again = load_task(tmp_path / "new").task.state_dict()
    assert all(torch.equal(again[name], value) for name, value in model.task.state_dict().items())


def test_a_folder_of_a_later_format_is_refused(tmp_path: Path) -> None:
    path = old_folder(tmp_path / "old", "prior") / "config.json"
    files.write_json(path, {**files.read_json(path), "format": 3})
    with pytest.raises(FileError, match=r"does not describe a task of this project in format 2 or older"):
        load_task(tmp_path / "old")
