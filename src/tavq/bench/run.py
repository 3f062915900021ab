"""Measuring the rows, and comparing what was measured with the floors."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from tavq.bench.case import OURS, Case, Scale
from tavq.bench.machine import describe_machine
from tavq.bench.rows import ROWS
from tavq.bench.timing import compare
from tavq.core.errors import UsageError, unknown_name
from tavq.core.files import read_json, write_json

FLOORS = Path(__file__).parent / "floors.json"
SECONDS = 45.0
"""After so many seconds a case starts no further round, once it has two."""

BenchResult = dict[str, Any]


def run_bench(
    device: torch.device,
    rows: Sequence[str] = (),
    seconds: float = SECONDS,
    toy: bool = False,
    progress: Callable[[str], None] | None = None,
) -> BenchResult:
    """Measure rows of the table; returns machine, settings and cases, ready for JSON.

    Args:
        device: where all alternatives compute.
        rows: names in `ROWS`; all if empty.
        seconds: the time of a case, beyond two rounds of it.
        toy: sizes of a moment, to try the command; the numbers mean nothing.
        progress: called with the title of each case before it is measured.

    Raises:
        UsageError: there is no such row.
    """
    for name in rows:
        if name not in ROWS:
            raise UsageError(unknown_name("row", name, ROWS))
    if not seconds > 0:
        raise UsageError(f"seconds must be positive, not {seconds:g}.")
    cases = {}
    for name in rows or ROWS:
        for case in ROWS[name](Scale(device, toy)):
            if progress is not None:
                progress(case.title)
            cases[case.key] = measure_case(case, device, seconds)
    return {"format": 1, "toy": toy, "seconds": seconds, "machine": describe_machine(device), "cases": cases}


def measure_case(case: Case, device: torch.device, seconds: float) -> BenchResult:
    """The measurements of a case and what is absent from it."""
    if not case.alternatives:
        return {"title": case.title, "rounds": 0, "rows": {}, "absent": case.absent}
    measured, rounds = compare(case.alternatives, case.rounds, device, seconds)
    rows = {one.name: {**asdict(measured[one.name]), "note": one.note} for one in case.alternatives}
    return {"title": case.title, "rounds": rounds, "rows": rows, "absent": case.absent}


def ratios_of_ours(result: BenchResult) -> dict[str, float]:
    """The median ratio of each of our alternatives, by case and name."""
    found = {}
    for key, case in result["cases"].items():
        for name, row in case["rows"].items():
            if name.startswith(OURS) and name != next(iter(case["rows"])):
                found[f"{key}/{name}"] = row["ratio"]
    return found


def read_floors(path: Path = FLOORS) -> dict[str, dict[str, float]]:
    """Least ratios by class of machine, and by case and name.

    Raises:
        UsageError: the file holds something else.
    """
    floors = read_json(path)
    good = isinstance(floors, dict) and all(
        isinstance(own, dict) and all(isinstance(value, int | float) and value > 0 for value in own.values())
        for own in floors.values()
    )
    if not good:
        raise UsageError(f"{path} is not a file of floors: expected ratios by class of machine, case and name.")
    return floors


def find_failures(result: BenchResult, floors: Mapping[str, Mapping[str, float]]) -> tuple[list[str], list[str]]:
    """Lines on ratios below their floors, and on floors that were not measured because something is missing.

    Raises:
        UsageError: toy sizes were measured, or no floors are kept for this class of machine.
    """
    machine = result["machine"]["class"]
    if result["toy"]:
        raise UsageError("Toy sizes measure nothing; leave --toy or --check out.")
    if machine not in floors:
        kept = ", ".join(sorted(floors)) or "none"
        raise UsageError(
            f"No floors are kept for machines of class {machine!r} (kept: {kept}). Measure on a quiet machine and keep "
            "them with --write-floors FILE, then check with --floors FILE."
        )
    measured = ratios_of_ours(result)
    chosen = {key.partition("/")[0] for key in result["cases"]}
    failures, missing = [], []
    for key, floor in floors[machine].items():
        if key in measured and not measured[key] >= floor:  # NaN fails too
            failures.append(f"{key}: {measured[key]:.2f}, below its floor {floor:.2f}")
        elif key not in measured and key.partition("/")[0] in chosen:
            missing.append(f"{key}: not measured (floor {floor:.2f})")
    return failures, missing


def write_floors(result: BenchResult, path: Path, fraction: float) -> None:
    """Keep a fraction of each of our ratios as the floor of this class of machine; other classes stay.

    Raises:
        UsageError: the fraction is not in (0, 1], or toy sizes were measured.
    """
    if not 0 < fraction <= 1:
        raise UsageError(f"The fraction of what was measured must be above 0 and at most 1, not {fraction:g}.")
    if result["toy"]:
        raise UsageError("Toy sizes measure nothing; leave --toy or --write-floors out.")
    floors = read_floors(path) if path.exists() else {}
    own = {key: round(ratio * fraction, 2) for key, ratio in ratios_of_ours(result).items()}
    floors[result["machine"]["class"]] = {**floors.get(result["machine"]["class"], {}), **own}
    write_json(path, floors)


def absent_lines(result: BenchResult) -> Iterable[str]:
    """Each alternative that is not here, once, and why."""
    return dict.fromkeys(
        f"{name}: {reason}" for case in result["cases"].values() for name, reason in case["absent"].items()
    )
