"""The table of a comparison of tasks: a row for each thing that is seen, a column for each main figure."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tavq.report.measures import Measure
from tavq.report.run import Run
from tavq.report.task.replicates import (
    Estimate,
    Row,
    estimate,
    rows_of,
    seed_of,
    source_of,
    task_of,
    tokenizer_of,
    tokenizer_sha256,
)
from tavq.report.task_measures import KINDS, is_main, measure_of, places

EQUAL = 1e-9
"""Baselines nearer than this are the same one."""


@dataclass(frozen=True)
class Column:
    """A figure, and its name in an evaluation by whose it is."""

    measure: Measure
    keys: dict[str, str]


@dataclass(frozen=True)
class Line:
    """A row of the table: of runs, or of a baseline (`kind`), which belongs to the row `of`, or to all."""

    name: str
    kind: str | None
    row: Row | None
    figures: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class TaskTable:
    """The runs of one task."""

    task: str
    columns: tuple[Column, ...]
    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    repeated: tuple[str, ...]
    """A sentence for each run that repeats another one with its seed and is left out."""


def tables_of(runs: Sequence[Run]) -> list[TaskTable]:
    """A table for each task, in the order the runs are named."""
    tasks = dict.fromkeys(map(task_of, runs))
    return [_table(task, [run for run in runs if task_of(run) == task]) for task in tasks]


def _table(task: str, runs: Sequence[Run]) -> TaskTable:
    rows, repeated = rows_of(runs)
    found = places([run.evaluation or {} for row in rows for run in row.evaluated])
    columns = tuple(
        Column(measure_of(group, name), keys)
        for group, figures in found.items()
        for name, keys in figures.items()
        if is_main(group, name)
    )
    kinds = [kind for kind in KINDS if kind != "drawn" and any(kind in column.keys for column in columns)]
    baselines = [[_line(KINDS[kind][0], kind, row, columns) for row in rows if row.evaluated] for kind in kinds]
    own = [several for several in baselines if not _one(several)]
    lines = []
    for row in rows:
        lines.append(_line(row.name, "drawn", row, columns))
        lines += [line for several in own for line in several if line.row is row]
    lines += [replace(several[0], row=None) for several in baselines if several not in own]
    return TaskTable(task, columns, tuple(lines), tuple(rows), tuple(repeated))


def _line(name: str, kind: str, row: Row, columns: Sequence[Column]) -> Line:
    keys = [column.keys.get(kind) for column in columns]
    figures = tuple(None if key is None else estimate(row.evaluated, key) for key in keys)
    return Line(name, None if kind == "drawn" else kind, row, figures)


def _one(lines: Sequence[Line]) -> bool:
    """Whether a baseline is the same for all rows and all their seeds: it depends on the data alone."""
    for several in zip(*(line.figures for line in lines), strict=True):
        values = [value for figure in several for value in (figure.each if figure else (None,))]
        known = [value for value in values if value is not None]
        if known and (len(known) < len(values) or max(known) - min(known) > EQUAL):
            return False
    return True


# --- told -------------------------------------------------------------------------------------------------------


def seeds_in_words(line: Line) -> str:
    """How many trainings a row stands on, "" of a baseline that none has a part in."""
    if line.row is None:
        return ""
    runs, tokenizers = line.row.evaluated, len(line.row.tokenizers)
    if tokenizers > 1:
        return f"{tokenizers} tokenizers" + (f", {len(runs)} runs" if len(runs) > tokenizers else "")
    return "not evaluated" if not runs else "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def texts(measure: Measure, figure: Estimate | None) -> tuple[str, str]:
    """A figure and its interval as a person reads them."""
    if figure is None:
        return "–", ""
    ends = "" if figure.interval is None else " – ".join(measure.text(end) for end in figure.interval)
    return measure.text(figure.value), ends


def cells_of(table: TaskTable) -> list[list[str]]:
    """The rows as a terminal shows them, the interval below its figure."""
    return [
        [line.name if line.kind is None else f"  … {line.name}", seeds_in_words(line)]
        + [
            "\n".join(filter(None, texts(column.measure, figure)))
            for column, figure in zip(table.columns, line.figures, strict=True)
        ]
        for line in table.lines
    ]


def as_json(table: TaskTable) -> dict[str, Any]:
    """A table as a file keeps it; `over` says what an interval is over, `each` are the runs' own figures."""
    keys = [column.keys.get("drawn") or next(iter(column.keys.values())) for column in table.columns]
    return {
        "task": table.task,
        "columns": [
            {"figure": key, "name": column.measure.name, "better": column.measure.better}
            for key, column in zip(keys, table.columns, strict=True)
        ],
        "rows": [
            {"name": line.name, "baseline": line.kind, **_sources(line.row), "figures": _figures(keys, line)}
            for line in table.lines
        ],
    }


def _sources(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {}
    return {
        "tokenizers": [{"name": tokenizer_of(run), "sha256": tokenizer_sha256(run)} for run in row.tokenizers],
        "source": source_of(row.runs[0]),
        "runs": [run.name for run in row.evaluated],
        "seeds": [seed_of(run) for run in row.evaluated],
        "not_evaluated": [run.name for run in row.waiting],
    }


def _figures(keys: Sequence[str], line: Line) -> dict[str, Any]:
    return {
        key: {
            "value": figure.value,
            "interval": None if figure.interval is None else list(figure.interval),
            "over": figure.over,
            "each": list(figure.each),
        }
        for key, figure in zip(keys, line.figures, strict=True)
        if figure is not None
    }
