"""The speed of a run on its page."""

from pathlib import Path
from typing import Any

from tavq.report.run import Run
from tavq.report.tokenizer.speed import ROWS, render_speed


def run_with(*speeds: Any, **provenance: Any) -> Run:
    lines = tuple({"step": step, "speed": speed} for step, speed in enumerate(speeds, 1))
    return Run(Path("run"), "run", {}, provenance, lines, (), None)


def test_the_medians_are_shown_without_the_start() -> None:
    speeds = [{"images_per_second": rate, "data_wait": 0.25, "memory_allocated": 3e9} for rate in (1.0, 40, 60, 50)]
    page = render_speed(run_with(*speeds, device="NVIDIA H200", processes=4))
    assert page is not None
    for shown in ("NVIDIA H200, 4 processes", '<td class="number">50</td>', "25.0%", "3.00 GB"):
        assert shown in page
    assert "MFU" not in page  # not measured: no row


def test_a_run_of_one_line_shows_that_line() -> None:
    page = render_speed(run_with({"mfu": 0.315}))
    assert page is not None
    assert "31.5%" in page


def test_an_older_or_altered_log_has_no_such_section() -> None:
    assert render_speed(run_with(None, None)) is None
    assert render_speed(run_with("fast", {"data_wait": "much"}, [1], {"mfu": True})) is None
    assert render_speed(Run(Path("run"), "run", {}, {}, ({"step": 1},), (), None)) is None


def test_every_quantity_has_a_row() -> None:
    page = render_speed(run_with({}, dict.fromkeys(ROWS, 0.5)))
    assert page is not None
    assert page.count("<tr>") == len(ROWS) + 1
