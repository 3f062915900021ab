"""Two processes that saw half of the items each score them exactly as one does that saw all."""

import json
from pathlib import Path

import pytest
from processes import run_alone_and_as_two

pytestmark = pytest.mark.slow  # starts processes that train


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    run_alone_and_as_two(Path(__file__).with_name("one_metric_process.py"), tmp_path)
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert (alone["c"]["images"], alone["a"]["questions"], alone["b"]["phrases"]) == (12, 12, 12)
    assert alone["d"]["metrics"]["kid_corners"]["value"] > 0.1
    expected = alone["d"]["metrics"].pop("fd_corners")
    for found in (first, second):
        # sums of float64 in another order
        frechet = found["d"]["metrics"].pop("fd_corners")
        assert frechet["value"] == pytest.approx(expected["value"], rel=1e-12)
        assert {**frechet, "value": expected["value"]} == expected
    assert first == alone
    assert second == alone
