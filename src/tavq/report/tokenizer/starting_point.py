"""What a run started from: the metrics before its first step, beside those of now."""

from tavq.metrics.record import Evaluation, Metric
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import cell, cell_text
from tavq.report.run import Run
from tavq.report.tokenizer.sections import describe_images, note, section, table


def render_start(run: Run) -> Markup | None:
    """A table of the metrics before the first step; None where they were not measured."""
    if run.start is None:
        return None
    shown = [metric for metric in run.start.metrics if metric.value is not None and metric.baseline is None]
    return section(
        "start",
        "Before the first step",
        note(describe_images(run.start), f" The run started from {run.start.details.get('model', '?')}."),
        note(compare_images(run.start, run.evaluation)),
        table(["metric", "before", "now", "change"], [_render_row(metric, run) for metric in shown], numbers=[1, 2, 3]),
    )


def compare_images(start: Evaluation, now: Evaluation | None) -> str:
    """Whether the metrics of now were measured on the same images."""
    if now is None:
        return "The run has not been evaluated since."
    before, after = (evaluation.details.get("protocol", {}).get("images", {}) for evaluation in (start, now))
    if before.get("sha256") == after.get("sha256"):
        return "Both were measured on the same pixels."
    counts = f"{start.details.get('images', '?')} and {now.details.get('images', '?')}"
    return f"They were measured on other images ({counts} of them), so that small differences mean nothing."


def _render_row(metric: Metric, run: Run) -> list[Markup]:
    now = run.metric(metric.key)
    change = metric.difference(now.value if now is not None else None, metric.value)
    title = tag("th", f"{metric.title}{metric.arrow}", scope="row")
    values = [cell(*cell_text(metric, measured)) for measured in (metric, now)]
    return [title, *values, tag("td", change, class_="number")]
