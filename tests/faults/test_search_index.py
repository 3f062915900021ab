"""An index is complete or absent: killed at any write, or on a full disk."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core import temporary
from tavq.core.config import build
from tavq.search.index import TABLE, SearchIndex
from tavq.tokenizer import Tokenizer, TokenizerConfig

Start = Callable[..., Any]


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An aligned tokenizer of drawn weights."""
    folder = tmp_path_factory.mktemp("models") / "model"
    torch.manual_seed(0)
    values = {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 12, "width": 6},
        "align": {"name": "ta"},
        "text_width": 50,
    }
    Tokenizer(build(TokenizerConfig, values, "test")).save_pretrained(folder, metadata={"size": 32})
    return folder


@pytest.fixture(scope="module")
def data(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny images without a text store, and half of them."""
    folder = tmp_path_factory.mktemp("data")
    for name, count in (("whole", 16), ("half", 8)):
        shutil.copytree(shared_images, folder / name, ignore=shutil.ignore_patterns("text"))
        lines = (folder / name / "metadata.jsonl").read_text().splitlines()[:count]
        (folder / name / "metadata.jsonl").write_text("".join(f"{line}\n" for line in lines))
    return folder


def images(index: Path) -> int | None:
    """How many images an index holds, which is whole; None where there is none."""
    return SearchIndex.open(index, verify=True).manifest.images if index.exists() else None


def leftovers(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir() if path.name.startswith(temporary.TEMP_PREFIX)]


def test_killed_between_any_two_writes(start: Start, model: Path, data: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    command = ("search", "index", model, "--out", index, "--data")
    assert start(*command, data / "half").wait() == 0
    calls = 0
    for calls in range(1, 20):
        running = start(*command, data / "whole", die_at=calls)
        if running.wait() == 0:
            break
        assert running.code == -9
        assert images(index) in (8, 16)  # never missing: the new index and the old one exchange their names
        assert start(*command, data / "half").wait() == 0
        assert (images(index), leftovers(tmp_path)) == (8, [])
    assert calls > 3
    assert (images(index), leftovers(tmp_path)) == (16, [])


@pytest.mark.parametrize("largest", [600, 5_000, 40_000])
def test_a_full_disk(largest: int, start: Start, model: Path, data: Path, tmp_path: Path) -> None:
    index = tmp_path / "index"
    command = ("search", "index", model, "--out", index, "--data", data / "whole")
    running = start(*command, largest_file=largest)
    assert running.wait() == 1
    assert any("Could not write" in line and "Free space" in line for line in running.lines), running.lines
    assert (images(index), leftovers(tmp_path)) == (None, [])
    assert start(*command).wait() == 0
    table = (index / TABLE).stat().st_size
    assert largest < table or largest < (index / "model/model.safetensors").stat().st_size
    assert json.loads((index / "index.json").read_text())["bytes"] == table
