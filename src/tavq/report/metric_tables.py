"""Arranges metrics as tables: one row per metric, with the values of the model and of its baselines."""

from collections.abc import Sequence
from dataclasses import dataclass

from tavq.metrics.record import Baseline, Evaluation, Group, Metric
from tavq.report.html.markup import Markup, tag


@dataclass(frozen=True)
class MetricRow:
    """One metric of the model and of its baselines, by the baseline's name (None for the model)."""

    metrics: dict[str | None, Metric]

    @property
    def metric(self) -> Metric:
        """Describes the metric; its value is that of the first evaluation that has it."""
        return next(iter(self.metrics.values()))

    def key(self, baseline: str | None) -> str | None:
        """The key of the value in an evaluation; None if no evaluation has this baseline."""
        metric = self.metrics.get(baseline)
        return None if metric is None else metric.key


@dataclass(frozen=True)
class MetricTable:
    """The metrics of one group."""

    group: Group
    rows: tuple[MetricRow, ...]

    @property
    def baselines(self) -> dict[str | None, Baseline | None]:
        """The columns: the model (None) and the baselines, in the order of measurement."""
        return {name: metric.baseline for row in self.rows for name, metric in row.metrics.items()}


def arrange_metrics(evaluations: Sequence[Evaluation]) -> list[MetricTable]:
    """Arrange the metrics that have a value in at least one evaluation, a table for each group, in their order."""
    groups: dict[str, Group] = {}
    found: dict[str, dict[str, dict[str | None, Metric]]] = {}
    for metric in (metric for evaluation in evaluations for metric in evaluation.metrics):
        if metric.value is None:
            continue
        group = groups.setdefault(metric.group.name, metric.group)
        baseline = None if metric.baseline is None else metric.baseline.name
        found.setdefault(group.name, {}).setdefault(metric.name, {}).setdefault(baseline, metric)
    return [MetricTable(groups[name], tuple(map(MetricRow, rows.values()))) for name, rows in found.items()]


def cell_text(shown: Metric, measured: Metric | None) -> tuple[str, str]:
    """Format a value and its interval; the interval is empty if there is none.

    Args:
        shown: the metric of the row, which decides the format.
        measured: the metric with the value; None if it was not measured.
    """
    if measured is None or measured.value is None:
        return shown.text(None), ""
    return shown.text(measured.value), shown.interval_text(measured.interval)


def cell(value: str, interval: str, class_: str = "number", bold: bool = False) -> Markup:
    """A table cell: the value, and its interval in small print.

    Args:
        value: as text.
        interval: as text, or empty.
        class_: of the cell.
        bold: print the value in bold.
    """
    small = [tag("small", interval, class_="ends")] if interval else []
    return tag("td", tag("b", value) if bold else value, *small, class_=class_)


def legend(tables: Sequence[MetricTable]) -> list[Markup]:
    """Explanations of the columns and metrics of tables."""
    baselines = {baseline.title: baseline for table in tables for baseline in table.baselines.values() if baseline}
    columns = [tag("li", tag("b", f"{title}: "), baseline.meaning) for title, baseline in baselines.items()]
    metrics = {row.metric.title: row.metric for table in tables for row in table.rows}
    rows = [tag("li", tag("b", f"{title}: "), metric.meaning) for title, metric in metrics.items() if metric.meaning]
    return [
        *([tag("ul", *columns, class_="note")] if columns else []),
        tag("details", tag("summary", "What each metric means"), tag("ul", *rows, class_="note")),
    ]
