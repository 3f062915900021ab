"""Time of alternatives, run in turn so that a busy machine slows all of them equally: of the process, or of a GPU."""

import argparse
import platform
import statistics
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from tavq.bench.timing import seconds
from tavq.core.files import write_json

CPU = torch.device("cpu")


def compare(
    works: Mapping[str, Callable[[], object]],
    rounds: int,
    repeats: Mapping[str, int] | None = None,
    device: torch.device | None = None,
) -> dict[str, Any]:
    """The median time of each alternative, and how many times faster it is than the first.

    A round calls every alternative once. Ratios are taken within a round, so that they do not mix moments of different
    load; their median, minimum and maximum are returned.

    Args:
        works: the alternatives by name.
        rounds: how many rounds.
        repeats: how often a short alternative runs in each round.
        device: a CUDA device times by its events.
    """
    times: dict[str, list[float]] = {name: [] for name in works}
    for work in works.values():
        work()
    for _ in range(rounds):
        for name, work in works.items():
            times[name].append(seconds(work, (repeats or {}).get(name, 1), device or CPU))
    reference = times[next(iter(works))]
    return {name: _summary(reference, own) for name, own in times.items()}


def _summary(reference: list[float], own: list[float]) -> dict[str, float]:
    ratios = [a / b for a, b in zip(reference, own, strict=True)]
    return {
        "milliseconds": 1000 * statistics.median(own),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_greatest": max(ratios),
    }


def report(title: str, measure: Callable[..., dict[str, dict[str, Any]]], **choices: int | str) -> None:
    """Run a benchmark script: parse its flags, measure, print one table per case, and write JSON if asked.

    `choices` are further settings with their defaults; each becomes a flag, and a keyword argument of `measure`.
    """
    parser = argparse.ArgumentParser(description=title)
    parser.add_argument("--rounds", type=int, default=5, help="interleaved rounds (default 5)")
    parser.add_argument("--json", type=Path, help="also write the numbers to this file")
    for name, default in choices.items():
        flag = f"--{name.replace('_', '-')}"
        parser.add_argument(flag, type=type(default), default=default, help=f"(default {default})")
    options = parser.parse_args()
    torch.set_num_threads(1)
    chosen = {name: getattr(options, name) for name in choices}
    cases = measure(options.rounds, **chosen)
    machine = {"processor": platform.processor() or platform.machine(), "torch": torch.__version__, "threads": 1}
    for case, rows in cases.items():
        Console().print(_table(f"{title}: {case}", rows))
    if options.json:
        settings = {"title": title, "rounds": options.rounds, **chosen, "machine": machine}
        write_json(options.json, {**settings, "cases": cases})


def _table(title: str, rows: Mapping[str, Mapping[str, Any]]) -> Table:
    table = Table("", "ms", "times faster", "range", "note", title=title, title_justify="left")
    for name, row in rows.items():
        ratios = f"{row['ratio_least']:.2f}-{row['ratio_greatest']:.2f}"
        table.add_row(name, f"{row['milliseconds']:.2f}", f"{row['ratio']:.2f}", ratios, row.get("note", ""))
    return table
