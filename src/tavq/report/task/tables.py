"""The table of a comparison of tasks: a row for each input, a column for each main metric."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from tavq.metrics.record import Metric
from tavq.report.metric_tables import MetricRow, arrange_metrics
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

EQUAL = 1e-9
"""Baselines nearer than this are the same one."""


@dataclass(frozen=True)
class Line:
    """A line of the table: of the runs of a row, or of a baseline of that row; `row` is None for one of all rows."""

    name: str
    baseline: str | None
    row: Row | None
    estimates: tuple[Estimate | None, ...]


@dataclass(frozen=True)
class TaskTable:
    """The runs of one task."""

    task: str
    columns: tuple[MetricRow, ...]
    lines: tuple[Line, ...]
    rows: tuple[Row, ...]
    repeated: tuple[str, ...]
    """A sentence for each run left out because it repeats another one with the same seed."""


def tables_of(runs: Sequence[Run]) -> list[TaskTable]:
    """A table for each task, in the order the runs are given."""
    tasks = dict.fromkeys(map(task_of, runs))
    return [_table(task, [run for run in runs if task_of(run) == task]) for task in tasks]


def _table(task: str, runs: Sequence[Run]) -> TaskTable:
    rows, repeated = rows_of(runs)
    evaluations = [run.evaluation for row in rows for run in row.evaluated if run.evaluation is not None]
    columns = tuple(row for found in arrange_metrics(evaluations) for row in found.rows if row.metric.main)
    measured = [metric for column in columns for metric in column.metrics.values()]
    titles = {metric.baseline.name: metric.baseline.title for metric in measured if metric.baseline is not None}
    evaluated = [row for row in rows if row.evaluated]
    baselines = [[_line(title, name, row, columns) for row in evaluated] for name, title in titles.items()]
    own = [several for several in baselines if not _one(several)]
    lines = []
    for row in rows:
        lines.append(_line(row.name, None, row, columns))
        lines += [line for several in own for line in several if line.row is row]
    lines += [replace(several[0], row=None) for several in baselines if several not in own]
    return TaskTable(task, columns, tuple(lines), tuple(rows), tuple(repeated))


def _line(name: str, baseline: str | None, row: Row, columns: Sequence[MetricRow]) -> Line:
    keys = [column.key(baseline) for column in columns]
    estimates = tuple(None if key is None else estimate(row.evaluated, key) for key in keys)
    return Line(name, baseline, row, estimates)


def _one(lines: Sequence[Line]) -> bool:
    """Whether a baseline is the same for all rows and seeds, as it depends on the data alone."""
    for several in zip(*(line.estimates for line in lines), strict=True):
        values = [value for found in several for value in (found.each if found else (None,))]
        known = [value for value in values if value is not None]
        if known and (len(known) < len(values) or max(known) - min(known) > EQUAL):
            return False
    return True


# --- as text and as JSON ----------------------------------------------------------------------------------------


def seeds_in_words(line: Line) -> str:
    """How many trainings a row averages; empty for a baseline that depends on none."""
    if line.row is None:
        return ""
    runs, tokenizers = line.row.evaluated, len(line.row.tokenizers)
    if tokenizers > 1:
        return f"{tokenizers} tokenizers" + (f", {len(runs)} runs" if len(runs) > tokenizers else "")
    return "not evaluated" if not runs else "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def texts(metric: Metric, estimate: Estimate | None) -> tuple[str, str]:
    """A value and its interval as a person reads them."""
    if estimate is None:
        return metric.text(None), ""
    return metric.text(estimate.value), metric.interval_text(estimate.interval)


def cells_of(table: TaskTable) -> list[list[str]]:
    """The rows as a terminal shows them, with intervals below their values."""
    rows = []
    for line in table.lines:
        name = line.name if line.baseline is None else f"  … {line.name}"
        cells = [texts(column.metric, found) for column, found in zip(table.columns, line.estimates, strict=True)]
        rows.append([name, seeds_in_words(line), *("\n".join(filter(None, cell)) for cell in cells)])
    return rows


def as_json(table: TaskTable) -> dict[str, Any]:
    """A table as JSON; `over` is what an interval is over, `each` has the values of the runs."""
    metrics = [column.metric for column in table.columns]
    return {
        "task": table.task,
        "columns": [{"metric": one.name, "title": one.title, "better": one.better} for one in metrics],
        "rows": [
            {"name": line.name, "baseline": line.baseline, **_sources(line.row), "metrics": _values(metrics, line)}
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


def _values(metrics: Sequence[Metric], line: Line) -> dict[str, Any]:
    return {
        metric.name: {
            "value": found.value,
            "interval": None if found.interval is None else list(found.interval),
            "over": found.over,
            "each": list(found.each),
        }
        for metric, found in zip(metrics, line.estimates, strict=True)
        if found is not None
    }
