"""Measuring our speed and memory beside peers."""

from collections.abc import Callable, Sequence
from pathlib import Path

from tavq.bench.page import make_markdown, make_plot
from tavq.bench.run import FLOORS, SECONDS, BenchResult, find_failures, read_floors
from tavq.bench.run import run_bench as run
from tavq.core.devices import default_device
from tavq.core.files import write_json, write_text


def run_bench(
    rows: Sequence[str] = (),
    seconds: float = SECONDS,
    toy: bool = False,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Measure rows of the table on the default device; returns machine, settings and cases, ready for JSON.

    Args:
        rows: their names; all if empty.
        seconds: time of each case beyond two rounds.
        toy: sizes of a moment, which measure nothing.
        progress: called with the title of each case.

    Raises:
        UsageError: there is no such row.
    """
    return run(default_device(), rows, seconds, toy, progress)


def write_bench(result: BenchResult, folder: Path) -> None:
    """Write `bench.json`, the table `bench.md` and the plot `bench.svg` into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    write_json(folder / "bench.json", result)
    write_text(folder / "bench.md", make_markdown(result))
    write_text(folder / "bench.svg", make_plot(result))


def check_floors(result: BenchResult, floors: Path | None = None) -> tuple[list[str], list[str]]:
    """Lines on ratios below their floors, and on floors that were not measured.

    Args:
        result: of `run_bench`.
        floors: the file of floors; None for those that tavq brings.

    Raises:
        UsageError: the file holds something else, no floors are kept for this class of machine, or toy sizes were
            measured.
    """
    return find_failures(result, read_floors(floors or FLOORS))
