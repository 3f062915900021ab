"""The log of a run: means over steps, the codebook's figures, and what a resumed run keeps."""

import json
from pathlib import Path

import pytest
import torch

from tavq.core.errors import FileError
from tavq.training.log import RunLog

ENTRIES = torch.tensor([[0.0, 0], [0, 3], [4, 3], [4, 9]])


def lines(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_a_line_holds_the_means_since_the_last_line(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 0, sizes=(4,))
    log.add({"room/a": torch.tensor(1.0)}, torch.tensor([[[0, 0]]]))
    log.add({"room/a": torch.tensor(2.0), "room/late": torch.tensor(7.0)}, torch.tensor([[[1, 1]]]))
    log.write(2, 1e-3, ENTRIES)
    log.add({"room/a": torch.tensor(5.0)}, torch.tensor([[[3, 3]]]))
    log.write(3, 2e-3, ENTRIES)
    first, second = lines(tmp_path / "log.jsonl")
    assert (first["step"], first["room/a"], first["room/late"], first["learning_rate"]) == (2, 1.5, 7.0, 1e-3)
    assert (second["step"], second["room/a"]) == (3, 5.0)
    assert "room/late" not in second
    assert first["seconds_per_step"] > 0


def test_usage_and_perplexity_by_hand(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 0, sizes=(4,))
    log.add({}, torch.tensor([[[0, 0], [1, 1]]]))
    even = log.write(1, 0.1, ENTRIES)
    assert (even["codebook/usage"], even["codebook/perplexity"]) == (0.5, pytest.approx(2))
    log.add({}, torch.tensor([[[2, 2], [2, 2]]]))  # the counts of the first line are gone
    alone = log.write(2, 0.1, ENTRIES)
    assert (alone["codebook/usage"], alone["codebook/perplexity"]) == (0.25, pytest.approx(1))
    log.add({}, torch.tensor([[[0, 0], [0, 3]]]))
    assert log.write(3, 0.1, ENTRIES)["codebook/perplexity"] == pytest.approx((4 / 3) ** 0.75 * 4**0.25)


def test_the_codebook_is_looked_at_as_it_is_then(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 0, sizes=(4,))
    log.add({}, torch.tensor([[[0, 0], [1, 1]]]))
    line = log.write(1, 0.1, ENTRIES)
    # nearest others at 3, 3, 4 and 6; torch's median is the lower of the middle two
    assert line["codebook/spacing"] == pytest.approx(3 / 2**0.5)
    assert line["codebook/scale"] == pytest.approx(((9 + 16 + 9 + 16 + 81) / 8) ** 0.5)
    assert line["codebook/dead"] == 2
    log.add({}, torch.tensor([[[0, 0], [1, 1]]]))
    assert "codebook/spacing" not in log.write(2, 0.1, ENTRIES[:1])  # of a single entry there is none


def test_resuming_drops_what_came_after_the_checkpoint_and_the_line_that_was_cut(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    path.write_text('{"step": 2}\n{"step": 4}\n{"step": 4, "alarm": "codebook collapse"}\n{"step": 6}\n{"step": 8, "a')
    RunLog(path, 4, sizes=(4,))
    assert lines(path) == [{"step": 2}, {"step": 4}, {"step": 4, "alarm": "codebook collapse"}]


def test_a_damaged_line_is_named(tmp_path: Path) -> None:
    (tmp_path / "log.jsonl").write_text('{"step": 2}\n{"st\n{"step": 6}\n')
    with pytest.raises(FileError, match=r"log\.jsonl line 2 is not valid JSON"):
        RunLog(tmp_path / "log.jsonl", 4, sizes=(4,))


def test_adding_keeps_no_graph(tmp_path: Path) -> None:
    log = RunLog(tmp_path / "log.jsonl", 0, sizes=(4,))
    log.add({"a": torch.ones((), requires_grad=True) * 2}, torch.tensor([[[0]]]))
    assert not log.values["a"][0].requires_grad
