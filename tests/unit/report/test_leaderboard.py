"""The order of a leaderboard, and what it says about how its tokenizers differ."""

from typing import Any

import pytest

from tavq.metrics.record import Evaluation, Group, Metric
from tavq.report.leaderboard import Entry, Leaderboard

DISTANCE = Metric("fd_scenes", "Distance", Group("reconstruction", "Reconstruction"), better=-1, main=True)
PSNR = Metric("psnr", "PSNR | dB", Group("reconstruction", "Reconstruction"), better=1, main=True)
DETAILS = {"images": 3, "size": [32, 32], "split": "test", "data": "photos"}


def entry(name: str, distance: float | None, data: str | None = "a", size: int = 32, **others: Any) -> Entry:
    metrics = (DISTANCE.measured(distance, **others), PSNR.measured(20.0, (19.0, 21.0)))
    return Entry(name, {"data_sha256": data, "size": size}, Evaluation(metrics, DETAILS))


def test_the_first_distance_decides_and_missing_ones_come_last() -> None:
    board = Leaderboard([entry("none", None), entry("far", 9.0), entry("near", 1.0)])
    assert [each.name for each in board.entries] == ["near", "far", "none"]
    assert board.values == [["near", "1.000", "20.000"], ["far", "9.000", "20.000"], ["none", "–", "20.000"]]
    assert board.headings == ["tokenizer", "Distance ↓", "PSNR | dB ↑"]


def test_the_table_says_what_was_measured() -> None:
    text = Leaderboard([entry("a", 1.0), entry("b", 2.0)]).as_markdown()
    assert "- Measured on 3 images of 32 × 32 px of the split “test” of photos" in text
    assert "| a | 1.000 | 20.000 (19.000 – 21.000) |" in text
    assert "PSNR \\| dB ↑" in text


@pytest.mark.parametrize(
    ("data", "said", "silent"),
    [
        (("a", "a"), [], ["different data", "is not known"]),
        (("a", "b"), ["different data"], ["is not known"]),
        (("a", None), ["What these were trained on is not known: second."], ["different data"]),
        ((None, None), ["is not known: first, second."], ["different data"]),
    ],
)
def test_training_data_that_differ_or_are_unknown(data: tuple[Any, Any], said: list[str], silent: list[str]) -> None:
    board = Leaderboard([entry("first", 1.0, data[0]), entry("second", 2.0, data[1])])
    warnings = " ".join(board.warnings)
    assert all(part in warnings for part in said)
    assert not any(part in warnings for part in silent)


def test_warnings_of_metrics_and_other_sizes_are_said_once() -> None:
    board = Leaderboard([entry("a", 1.0, warning="biased"), entry("b", 2.0, size=64, warning="biased")])
    assert board.warnings == ["Measured at 32 px, which these were not trained at: b (64 px).", "biased"]


def test_without_a_distance_the_best_of_what_is_better_higher_comes_first() -> None:
    def only_psnr(name: str, value: float) -> Entry:
        return Entry(name, {"data_sha256": "a", "size": 32}, Evaluation((PSNR.measured(value),), DETAILS))

    board = Leaderboard([only_psnr("low", 19.0), only_psnr("high", 23.0)])
    assert [each.name for each in board.entries] == ["high", "low"]
