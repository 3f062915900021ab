"""The log of a run: means over steps, and what a resumed run keeps."""

import json
from pathlib import Path

import pytest
import torch

from tavq.core.errors import FileError
from tavq.training.log import RunLog


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_the_means_since_the_last_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 0)
    log.add({"room/a": torch.tensor(1.0)})
    log.add({"room/a": torch.tensor(2.0), "room/late": torch.tensor(7.0)})
    log.write(2, {"learning_rate": 1e-3})
    log.add({"room/a": torch.tensor(5.0)})
    log.write(3, {"learning_rate": 2e-3})
    first, second = lines(tmp_path / "log.jsonl")
    assert (first["step"], first["room/a"], first["room/late"], first["learning_rate"]) == (2, 1.5, 7.0, 1e-3)
    assert (second["step"], second["room/a"]) == (3, 5.0)
    assert "room/late" not in second
    assert first["seconds_per_step"] > 0


def test_resuming_drops_lines_after_the_checkpoint_and_a_cut_line(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 4, "alarm": "codebook collapse"}\n{"step": 6}\n{"step": 8, "a')
    RunLog(path, 4)
    assert lines(path) == [{"step": 2}, {"step": 4}, {"step": 4, "alarm": "codebook collapse"}]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 2}\n{"st\n{"step": 6}\n')
    with pytest.raises(FileError, match=r"log\.jsonl line 2 is not valid JSON"):
        RunLog(tmp_path / "log.jsonl", 4)


def test_adding_keeps_no_graph(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 0)
    log.add({"a": torch.ones((), requires_grad=True) * 2})
    assert not log.values["a"][0].requires_grad
