"""Metrics as a table on the terminal."""

from collections.abc import Sequence

from tavq.cli import console
from tavq.metrics.record import Evaluation, Metric

COUNTS = {"images": "images", "images_with_text": "with text", "training_images": "training images"}
"""Details of an evaluation that the title tells."""


def print_evaluation(title: str, evaluation: Evaluation) -> None:
    """Print the metrics of an evaluation below a title and the number of images."""
    details = evaluation.details
    counts = [f"{details[key]:,} {what}" for key, what in COUNTS.items() if key in details]
    print_metrics(": ".join([title, *([", ".join(counts)] if counts else [])]), evaluation.metrics)


def print_metrics(title: str, metrics: Sequence[Metric]) -> None:
    """Print each metric with its value, its 95 % interval or standard error, and the name that files have it under.

    Warnings follow on standard error.
    """
    rows = [[_name(metric), metric.text(metric.value), _uncertainty(metric), metric.key] for metric in metrics]
    console.print_cells(title, ["metric", "value", "95 %", "name"], rows, [True, False, True, True])
    for warning in dict.fromkeys(metric.warning for metric in metrics if metric.warning):
        first = next(metric for metric in metrics if metric.warning == warning)
        console.say(f"{first.title}: {warning}")


def _name(metric: Metric) -> str:
    return metric.title + metric.arrow if metric.baseline is None else f"  … {metric.baseline.title}"


def _uncertainty(metric: Metric) -> str:
    if metric.standard_error is not None:
        return f"± {metric.text(metric.standard_error)} standard error"
    return metric.interval_text(metric.interval)
