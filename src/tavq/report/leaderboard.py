"""One page, one table and one file that compare tokenizers by the same measurements of the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import UInt8

from tavq.core import files
from tavq.core.markdown import table_lines
from tavq.metrics.record import Evaluation, Metric, evaluation_as_json
from tavq.report.html.images import img
from tavq.report.html.markup import Markup, tag
from tavq.report.metric_tables import cell, cell_text
from tavq.report.page import write_page
from tavq.report.tokenizer.comparison import render_figure, render_metrics
from tavq.report.tokenizer.sections import describe_images, note, section, table

COLUMNS = (
    "fid", "fd_", "perturbed/fd_", "lpips_", "perceptual_", "psnr", "ssim", "usage_deep", "perplexity_deep", "bits",
    "encoded_per_second", "decoded_per_second", "probe_code_text_cosine", "zero_shot_words",
    "retrieval/image_to_text/recall@5",
)  # fmt: skip
"""Metrics of the short table: keys, and beginnings of keys that end with `_`."""

NOTES = (
    "Every tokenizer reconstructed the same images, resized and cropped in the same way, and every distance is to the "
    "originals of the same images. Published values were measured otherwise and cannot be put into this table.",
    "Intervals are 95 %, over images; they do not say what another training would give.",
    "Speed is that of this machine and of one batch.",
)


@dataclass(frozen=True)
class Shown:
    """An image and what each tokenizer makes of it, by the tokenizer's name."""

    key: str
    original: UInt8[np.ndarray, "y x 3"]
    reconstructions: Mapping[str, UInt8[np.ndarray, "y x 3"]]


@dataclass(frozen=True)
class Entry:
    """One tokenizer of a leaderboard."""

    name: str
    model: Mapping[str, Any]
    """The model's config.json."""
    evaluation: Evaluation

    def metric(self, key: str) -> Metric | None:
        """A metric by its key; None if it was not measured."""
        return next((metric for metric in self.evaluation.metrics if metric.key == key), None)

    def value(self, key: str) -> float | None:
        """The value of a metric; None if it was not measured."""
        metric = self.metric(key)
        return None if metric is None else metric.value


class Leaderboard:
    """Tokenizers with their metrics, best first by the first column of the short table.

    Where no tokenizer has a value of that column, they stay in the order that they were given.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        self.columns = _choose_columns(entries)
        self.entries = sorted(entries, key=self._place)

    def _place(self, entry: Entry) -> float:
        first = next(iter(self.columns), None)
        value = None if first is None else entry.value(first.key)
        return float("inf") if value is None or first is None else -first.better * value

    @property
    def headings(self) -> list[str]:
        """The headings of the short table."""
        return ["tokenizer", *(_title(metric) + metric.arrow for metric in self.columns)]

    @property
    def values(self) -> list[list[str]]:
        """The rows of the short table, without intervals."""
        return [
            [entry.name, *(metric.text(entry.value(metric.key)) for metric in self.columns)] for entry in self.entries
        ]

    def _with_intervals(self, entry: Entry) -> list[str]:
        cells = [cell_text(metric, entry.metric(metric.key)) for metric in self.columns]
        return [entry.name, *(f"{value} ({interval})" if interval else value for value, interval in cells)]

    @property
    def frame(self) -> str:
        """What was measured, and on what."""
        return describe_images(self.entries[0].evaluation)

    @property
    def warnings(self) -> list[str]:
        """What must be known before a value is used."""
        found = (warning for entry in self.entries for warning in entry.evaluation.warnings)
        return [*_differences(self.entries), *dict.fromkeys(found)]

    def as_markdown(self) -> str:
        """What was measured, the notes and the short table."""
        rows = table_lines(self.headings, list(map(self._with_intervals, self.entries)))
        notes = [f"- {line}" for line in (self.frame, *NOTES, *self.warnings)]
        return "\n".join(["# Leaderboard", "", *notes, "", *rows, ""])

    def as_json(self) -> dict[str, Any]:
        """All metrics of each tokenizer, and how they were measured."""
        found = [{"name": entry.name, **evaluation_as_json(entry.evaluation)} for entry in self.entries]
        return {"tokenizers": found}


def write_leaderboard(out: Path, board: Leaderboard, shown: Sequence[Shown]) -> Path:
    """Write OUT/leaderboard.html, .md and .json, and return the page."""
    files.write_text(out / "leaderboard.md", board.as_markdown())
    files.write_json(out / "leaderboard.json", board.as_json())
    body = [
        tag("h1", f"Leaderboard of {len(board.entries)} tokenizers"),
        tag("p", NOTES[0], class_="lead"),
        *(tag("p", warning, class_="warning") for warning in _differences(board.entries)),
        _render_short(board),
        render_metrics(board.entries),
        _render_images(board.entries, shown),
    ]
    return write_page(out / "leaderboard.html", "Leaderboard", body)


def _choose_columns(entries: Sequence[Entry]) -> list[Metric]:
    """The metrics of the short table that at least one tokenizer has a value of."""
    known = {metric.key: metric for entry in entries for metric in entry.evaluation.metrics if metric.value is not None}
    keys = [key for name in COLUMNS for key in known if key == name or (name.endswith("_") and key.startswith(name))]
    return [known[key] for key in keys]


def _title(metric: Metric) -> str:
    return metric.title if metric.baseline is None else f"{metric.title}, {metric.baseline.title}"


def _render_short(board: Leaderboard) -> Markup:
    entries, columns = board.entries, board.columns
    best = {metric.key: metric.best([entry.value(metric.key) for entry in entries]) for metric in columns}
    lines = []
    for index, entry in enumerate(entries):
        cells = [tag("th", entry.name, scope="row")]
        for metric in columns:
            class_ = "number best" if index in best[metric.key] else "number"
            cells.append(cell(*cell_text(metric, entry.metric(metric.key)), class_=class_))
        lines.append(cells)
    return section(
        "ranking",
        "Ranking",
        note("Ordered by the first column. ", " ".join(NOTES[1:])),
        table(board.headings, lines, numbers=range(1, 1 + len(columns))),
    )


def _differences(entries: Sequence[Entry]) -> list[str]:
    """What else than the method differs, a sentence each."""
    sizes = {entry.name: entry.model.get("size") for entry in entries}
    measured = entries[0].evaluation.details.get("size") or [None]
    others = [f"{name} ({size} px)" for name, size in sizes.items() if size != measured[0]]
    sentences = []
    if others:
        sentences.append(f"Measured at {measured[0]} px, which these were not trained at: {', '.join(others)}.")
    data = {entry.model.get("data_sha256") for entry in entries}
    if len(data - {None}) > 1:
        sentences.append("The tokenizers were trained on different data.")
    if None in data:
        unknown = ", ".join(entry.name for entry in entries if entry.model.get("data_sha256") is None)
        sentences.append(f"What these were trained on is not known: {unknown}. The images measured may be among it.")
    return sentences


def _render_images(entries: Sequence[Entry], shown: Sequence[Shown]) -> Markup | None:
    if not shown:
        return None
    lines = []
    for each in shown:
        rebuilt = [render_figure(img(each.reconstructions[entry.name], entry.name), entry.name) for entry in entries]
        lines.append(tag("div", render_figure(img(each.original, each.key), "image"), *rebuilt, class_="row"))
    about = note("The first images of the split, not picked by hand.")
    title = "The same images reconstructed by each tokenizer"
    return section("images", title, about, tag("div", *lines, class_="rows wide"))
