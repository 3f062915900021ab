"""Metrics as a table on the terminal."""

import sys
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table

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
    shown = Table(title=title, title_justify="left")
    for heading in ("metric", "value", "95 %", "name"):
        shown.add_column(heading, justify="right" if heading == "value" else "left")
    for metric in metrics:
        name = metric.title + metric.arrow if metric.baseline is None else f"  … {metric.baseline.title}"
        shown.add_row(name, metric.text(metric.value), _uncertainty(metric), metric.key)
    Console(file=sys.stdout, width=None if sys.stdout.isatty() else 200, highlight=False).print(shown)
    for warning in dict.fromkeys(metric.warning for metric in metrics if metric.warning):
        first = next(metric for metric in metrics if metric.warning == warning)
        console.say(f"{first.title}: {warning}")


def _uncertainty(metric: Metric) -> str:
    if metric.standard_error is not None:
        return f"± {metric.text(metric.standard_error)} standard error"
    return metric.interval_text(metric.interval)
