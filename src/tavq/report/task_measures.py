"""The figures of a task's evaluation.json in words: what is measured, and of whose images."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tavq.report import reading_measures
from tavq.report.measures import Measure

KINDS: dict[str, tuple[str, str]] = {
    "drawn": ("this task", "the trained network"),
    "untrained": ("untrained", "the same network with drawn weights: what training has to beat"),
    "nearest": ("nearest copy", "a copy of the training image nearest to what the task is told"),
    "mean_colour": ("mean colour", "the hidden part in the mean colour of the known part"),
    "continued": ("continuation", "the hidden part as a blurred continuation of the known part"),
    "mixed": ("mixed codes", "at each place the code of some image: what knows places and no neighbours"),
    **reading_measures.KINDS,
    "shuffled": ("another text", "drawn images that look for another image's text, or are asked about it: chance"),
    "held_out": ("held-out images", "images that training never saw, through the same tokenizer"),
    "codes": ("own codes", "the images' own codes decoded: what the tokenizer allows at best"),
    "images": ("real images", "the split's images themselves"),
}
"""Who made the images: a name and what it means, the task first and what cannot be beaten last."""

ARROWS = {1: " ↑", -1: " ↓", 0: ""}
"""Which way is better."""

FILLINGS = ("untrained", "nearest", "mean_colour", "continued", "codes")

COPYING = (
    "How often a drawn image is nearer to the training images than a held-out one. 50 % is as near as new images "
    "are; towards 100 % training images are repeated, towards 0 % drawn ones are unlike any."
)
SETS = (
    "Do they look alike as sets to the network {network!r}? Comparable between equal numbers of images of one size "
    "only."
)


@dataclass(frozen=True)
class Place:
    """Where a figure stands: in which table, in which row, and in whose column."""

    group: str
    row: str
    kind: str


def place_of(key: str) -> Place:
    """The place of a figure by its name; one that is not known here stands alone under its own."""
    first, _, rest = key.partition("/")
    told = reading_measures.place(key)
    if told is not None:
        return Place(told[0], told[1], told[2] or "drawn")
    if first in KINDS and rest.partition("/")[0] == "answers":
        return Place("asked", rest, first)
    if first == "loss":
        return Place("loss", rest, "drawn")
    if first == "novelty":
        held_out = key.endswith("_held_out")
        return Place("novelty", rest.removesuffix("_held_out"), "held_out" if held_out else "drawn")
    if first == "completed" and "/" in rest:
        mask, _, measure = rest.partition("/")
        filling = next((name for name in FILLINGS if measure.endswith(f"_{name}")), None)
        return Place(f"completed/{mask}", measure.removesuffix(f"_{filling}"), filling or "drawn")
    if first in KINDS and rest.startswith("loss/"):
        return Place("loss", rest.removeprefix("loss/"), first)
    if first in KINDS and rest:
        return Place("text" if rest.startswith("text_") else "sets", rest, first)
    return Place("other", key, "drawn")


TITLES = {
    **reading_measures.TITLES,
    "sets": "Drawn images beside real ones",
    "text": "Do images show what their texts say?",
    "asked": "Are questions about the images answered right?",
    "novelty": "Is anything copied?",
    "loss": "Objective",
    "other": "Other figures",
}
NOTES = {
    **reading_measures.NOTES,
    "sets": "Distance between the images of each column and the split's own.",
    "text": "Each image looks for its own text among all of the split, in the space of an aligned tokenizer.",
    "asked": "A task that answers questions is asked the data set's questions about the images of each column.",
    "novelty": "Distance of each image to its nearest training image in the features of a network.",
    "loss": "The terms of the training's objective on the split's own codes.",
}
ORDER = (*reading_measures.TITLES, "sets", "text", "asked", "completed", "novelty", "loss", "other")
MAIN = {
    **reading_measures.MAIN,
    "sets": re.compile(r"fid|fd_.+"),
    "text": re.compile(r"text_recall@1|text_r_precision"),
    "asked": re.compile(r".+"),
    "completed": re.compile(r"psnr"),
}
"""The figures that a comparison shows first."""


def title_of(group: str) -> str:
    """The heading of a table."""
    name, _, mask = group.partition("/")
    where = {"centre": "the centre hidden"}.get(mask, f"the {mask} half hidden")
    return f"Completion, {where}" if name == "completed" else TITLES[name]


def note_of(group: str) -> str:
    """What a table's figures are of."""
    return "Of the hidden part alone." if group.startswith("completed/") else NOTES.get(group, "")


def measure_of(group: str, row: str) -> Measure:
    """A row in words."""
    network = row.rpartition("_")[2]
    if group in reading_measures.TITLES:
        return reading_measures.measure(group, row)
    if group == "asked":
        kind = row.partition("/")[2]
        name = "Right answers" + (f": {kind}" if kind else "")
        return Measure(row, name, 1, "Share of the questions; how well the reader reads bounds it.", percent=True)
    if group == "loss":
        return Measure(row, f"Loss: {row.rpartition('/')[2]}", -1, "A term of the objective.", 3)
    if row.startswith("text_recall@"):
        count = row.partition("@")[2]
        return Measure(row, f"Own text among the first {count}", 1, "Share of the images.", percent=True)
    if row == "text_r_precision":
        return Measure(row, "R-precision among 100 texts", 1, "Its text is first of 100; chance is 1 %.", percent=True)
    if row.startswith("data_copying_"):
        return Measure(row, f"Nearer than a held-out image ({network})", 0, COPYING, percent=True)
    if row.startswith("nearest_distance_"):
        return Measure(row, f"Distance to the training images ({network})", 0, "Mean over images.", 2)
    if group == "sets":
        name = {"fid": "FID", "kid": "KID"}.get(row) or (
            f"Fréchet distance ({row[3:]})" if row.startswith("fd_") else f"Kernel distance ({row[4:]})"
        )
        return Measure(row, name, -1, SETS.format(network=network), 2)
    plain = {"psnr": ("PSNR in dB", 2), "ssim": ("SSIM", 3)}
    if group.startswith("completed/") and row in plain:
        name, decimals = plain[row]
        return Measure(row, name, 1, "Of the hidden pixels.", decimals)
    if group.startswith("completed/"):
        name = "LPIPS" if row.startswith("lpips_") else "Perceptual distance"
        return Measure(row, f"{name} ({network})", -1, "Difference of features over the hidden pixels.", 3)
    return Measure(row, row, 0, "", 3)


def is_main(group: str, row: str) -> bool:
    """Whether a comparison shows a figure first."""
    pattern = MAIN.get(group.partition("/")[0])
    return pattern is not None and pattern.fullmatch(row) is not None


UNPRINTED = ("images", "training_images", "seed", "limit")


def places(evaluations: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, dict[str, str]]]:
    """The keys of some evaluations' figures by group, row and kind, each in the order of a page."""
    found: dict[str, dict[str, dict[str, str]]] = {}
    for evaluation in evaluations:
        for key, value in evaluation.items():
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if number and key not in UNPRINTED and not key.endswith("_standard_error"):
                place = place_of(key)
                found.setdefault(place.group, {}).setdefault(place.row, {})[place.kind] = key
    return dict(sorted(found.items(), key=lambda item: ORDER.index(item[0].partition("/")[0])))


def kinds_of(rows: Mapping[str, Mapping[str, str]]) -> list[str]:
    """The columns of a table."""
    there = {kind for row in rows.values() for kind in row}
    return [kind for kind in KINDS if kind in there]


def cell(measure: Measure, evaluation: Mapping[str, Any], key: str | None) -> tuple[str, str]:
    """A figure and its interval as a person reads them, "" where there is none."""
    value = evaluation.get(key) if key is not None else None
    intervals = evaluation.get("intervals")
    ends = intervals.get(key) if isinstance(intervals, Mapping) else None
    number = float(value) if isinstance(value, int | float) else None
    if number is None or not isinstance(ends, list) or len(ends) != 2:
        return measure.text(number), ""
    return measure.text(number), f"{measure.text(ends[0])} – {measure.text(ends[1])}"
