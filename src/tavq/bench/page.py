"""What was measured as a Markdown table and as a plot."""

import math
from collections.abc import Iterator
from typing import Any
from xml.sax.saxutils import escape

from tavq.bench.case import OURS
from tavq.bench.run import BenchResult, absent_lines
from tavq.core.memory import format_bytes

BENCH_COLUMNS = ("", "ms", "times faster", "range", "peak memory", "note")
ROW, BAR, LEFT, WIDTH = 16, 10, 300, 900
"""Pixels of the plot: height of a line and of a bar, where bars start, and the whole width."""


def make_cells(name: str, row: dict[str, Any]) -> tuple[str, ...]:
    """The cells of one alternative."""
    memory = "" if row["memory"] is None else format_bytes(row["memory"])
    spread = f"{row['least']:.2f}-{row['greatest']:.2f}"
    return name, f"{row['milliseconds']:.3g}", f"{row['ratio']:.2f}", spread, memory, row["note"]


def describe(result: BenchResult) -> str:
    """One line on the machine and what the columns mean."""
    machine = result["machine"]
    where = machine.get("gpu") or f"{machine['cores']:g} cores, {', '.join(machine['features']) or 'no AVX2'}"
    clock = "GPU" if machine.get("gpu") else "CPU"
    return (
        f"{where} (class {machine['class']}), threads: {machine['threads']}, torch {machine['torch']}. Medians of "
        f"{clock} time in interleaved rounds; times faster than the first line of each table, with the least and "
        "greatest of a round."
    )


def make_markdown(result: BenchResult) -> str:
    """A table for each case, and what is not installed."""
    lines = [describe(result), ""]
    for case in result["cases"].values():
        lines += [f"**{case['title']}** ({case['rounds']} rounds)", ""]
        lines += ["| " + " | ".join(BENCH_COLUMNS) + " |", "|" + " --- |" * len(BENCH_COLUMNS)]
        lines += ["| " + " | ".join(make_cells(name, row)) + " |" for name, row in case["rows"].items()]
        lines.append("")
    absent = list(absent_lines(result))
    if absent:
        lines += ["Not measured:", "", *(f"- {line}" for line in absent), ""]
    return "\n".join(lines)


def make_plot(result: BenchResult) -> str:
    """Bars of how many times faster each alternative is, on a logarithmic axis, as an SVG."""
    shown = [case for case in result["cases"].values() if case["rows"]]
    largest = max((row["ratio"] for case in shown for row in case["rows"].values()), default=1.0)
    smallest = min((row["ratio"] for case in shown for row in case["rows"].values()), default=1.0)
    low, high = math.log10(min(smallest, 0.5)), math.log10(max(largest, 2.0))
    height = sum(ROW * (len(case["rows"]) + 2) for case in shown) + ROW
    body = "\n".join(_draw_cases(shown, low, high))
    style = "text{font:11px sans-serif;fill:#222}.b{font-weight:bold}"
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" width="{WIDTH}" height="{height}">\n'
        f'<style>{style}</style>\n<rect width="{WIDTH}" height="{height}" fill="#fff"/>\n{body}\n</svg>\n'
    )


def _draw_cases(cases: list[BenchResult], low: float, high: float) -> Iterator[str]:
    def across(ratio: float) -> float:
        return LEFT + (math.log10(max(ratio, 1e-9)) - low) / (high - low) * (WIDTH - LEFT - 60)

    one, y = across(1.0), ROW
    for case in cases:
        y += ROW
        yield f'<text class="b" x="8" y="{y}">{escape(case["title"])}</text>'
        yield f'<line x1="{one:.1f}" x2="{one:.1f}" y1="{y + 4}" y2="{y + ROW * len(case["rows"]) + 4}" stroke="#999"/>'
        for name, row in case["rows"].items():
            y += ROW
            end = across(row["ratio"])
            colour = "#2066a8" if name.startswith(OURS) else "#a3a3a3"
            yield f'<text x="16" y="{y}">{escape(name)}</text>'
            yield (
                f'<rect x="{min(one, end):.1f}" y="{y - BAR + 1}" width="{max(abs(end - one), 1):.1f}" height="{BAR}" '
                f'fill="{colour}"/>'
            )
            yield f'<text x="{max(one, end) + 4:.1f}" y="{y}">{row["ratio"]:.2f}</text>'
        y += ROW
