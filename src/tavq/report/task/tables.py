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
    estimate_mean,
    group_replicates,
    image_source,
    task_name,
    tokenizer_name,
    tokenizer_sha256,
    training_seed,
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


def make_task_tables(runs: Sequence[Run]) -> list[TaskTable]:
    """A table for each task, in the order the runs are given."""
    tasks = dict.fromkeys(map(task_name, runs))
    return [_make_table(task, [run for run in runs if task_name(run) == task]) for task in tasks]


def _make_table(task: str, runs: Sequence[Run]) -> TaskTable:
    rows, repeated = group_replicates(runs)
    evaluations = [run.evaluation for row in rows for run in row.evaluated if run.evaluation is not None]
    measured_rows = [row for found in arrange_metrics(evaluations) for row in found.rows]
    columns = tuple(row for row in measured_rows if row.metric.main)
    measured = [metric for column in columns for metric in column.metrics.values()]
    titles = {metric.baseline.name: metric.baseline.title for metric in measured if metric.baseline is not None}
    evaluated = [row for row in rows if row.evaluated]
    baselines = []
    for name, title in titles.items():
        baselines.append([_make_line(title, name, row, columns) for row in evaluated])
    own = [several for several in baselines if not _is_shared(several)]
    lines = []
    for row in rows:
        lines.append(_make_line(row.name, None, row, columns))
        lines += [line for several in own for line in several if line.row is row]
    lines += [replace(several[0], row=None) for several in baselines if several not in own]
    return TaskTable(task, columns, tuple(lines), tuple(rows), tuple(repeated))


def _make_line(name: str, baseline: str | None, row: Row, columns: Sequence[MetricRow]) -> Line:
    keys = [column.key(baseline) for column in columns]
    estimates = tuple(None if key is None else estimate_mean(row.evaluated, key) for key in keys)
    return Line(name, baseline, row, estimates)


def _is_shared(lines: Sequence[Line]) -> bool:
    """Whether a baseline is the same for all rows and seeds, as it depends on the data alone."""
    for several in zip(*(line.estimates for line in lines), strict=True):
        known = [value for found in several if found is not None for value in found.each]
        if known and (None in several or max(known) - min(known) > EQUAL):
            return False
    return True


# --- as text and as JSON ----------------------------------------------------------------------------------------


def describe_seeds(line: Line) -> str:
    """How many trainings a row averages; empty for a baseline that depends on none."""
    if line.row is None:
        return ""
    runs, tokenizers = line.row.evaluated, len(line.row.tokenizers)
    if tokenizers > 1:
        return f"{tokenizers} tokenizers" + (f", {len(runs)} runs" if len(runs) > tokenizers else "")
    if not runs:
        return "not evaluated"
    return "1 seed" if len(runs) == 1 else f"{len(runs)} seeds"


def format_estimate(metric: Metric, estimate: Estimate | None) -> tuple[str, str]:
    """A value and its interval as a person reads them."""
    if estimate is None:
        return metric.text(None), ""
    return metric.text(estimate.value), metric.interval_text(estimate.interval)


def format_cells(table: TaskTable) -> list[list[str]]:
    """The rows as a terminal shows them, with intervals below their values."""
    rows = []
    for line in table.lines:
        name = line.name if line.baseline is None else f"  … {line.name}"
        cells = []
        for column, estimate in zip(table.columns, line.estimates, strict=True):
            cells.append("\n".join(filter(None, format_estimate(column.metric, estimate))))
        rows.append([name, describe_seeds(line), *cells])
    return rows


def table_as_json(table: TaskTable) -> dict[str, Any]:
    """A table as JSON; `over` is what an interval is over, `each` has the values of the runs."""
    metrics = [column.metric for column in table.columns]
    columns = [{"metric": metric.name, "title": metric.title, "better": metric.better} for metric in metrics]
    rows = []
    for line in table.lines:
        named = {"name": line.name, "baseline": line.baseline, **_sources(line.row)}
        rows.append(named | {"metrics": _values(metrics, line)})
    return {"task": table.task, "columns": columns, "rows": rows}


def _sources(row: Row | None) -> dict[str, Any]:
    if row is None:
        return {}
    tokenizers = [{"name": tokenizer_name(run), "sha256": tokenizer_sha256(run)} for run in row.tokenizers]
    return {
        "tokenizers": tokenizers,
        "source": image_source(row.runs[0]),
        "runs": [run.name for run in row.evaluated],
        "seeds": [training_seed(run) for run in row.evaluated],
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
