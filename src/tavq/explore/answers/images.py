"""Answers about images: a list, a page, heat maps and searches."""

from typing import Literal

from tavq.explore.answers.base import Answer, Granularity, Grid, Level, Missing
from tavq.explore.answers.codes import CodeRow, UnitLink
from tavq.explore.answers.units import ImageRow, UnitRow


class ImageList(Answer):
    """A part of the images."""

    total: int
    offset: int
    images: list[ImageRow]
    missing: list[Missing]


class AlignedScore(UnitLink):
    """Cosine of the image and a unit in the aligned space."""

    cosine: float


class ImagePage(ImageRow):
    """An image as a model sees it."""

    captions: list[str]
    long_text: str | None
    units: dict[Granularity, list[UnitLink]]
    original: str
    reconstruction: str
    difference: str
    """Address of the absolute difference of the two, in grey; 255 is the whole range."""
    difference_max: int
    """The largest value of `difference`, by which a page can scale it."""
    error: Grid
    """Mean absolute difference at each position of the deep grid, in steps of 255."""
    grids: dict[Level, list[list[list[int]]]]
    """Codes [h][w][parts] of each level."""
    labels: dict[Level, dict[str, str]]
    """Label of each code of the grids that has one, by the code as text."""
    words: dict[Level, dict[str, list[str]]]
    """Up to four words that go with each code beyond chance, by lift, strongest first."""
    aligned: list[AlignedScore]
    """Scores of its own words, nearest first."""
    missing: list[Missing]


class HeatMap(Answer):
    """Where the codes of an image carry a unit of text."""

    unit: UnitLink
    level: Level
    source: Literal["statistics", "aligned"]
    values: Grid
    """log2 of the lift of each position's codes (their mean over parts), or their cosine; 0 is neutral."""
    missing: list[Missing]


class SearchResult(Answer):
    """What a typed text finds."""

    units: list[UnitRow]
    codes: list[CodeRow]
    """Codes associated with one unit, which `notes` names: the best exact match with the text or a word of it, or else
    the first of `units`."""
    captions: ImageList
    """Images with these words in a caption."""
    aligned: list[ImageRow]
    """Images near the text in the aligned space."""
    notes: list[str]
    missing: list[Missing]


class UploadResult(Answer):
    """An uploaded image and the images most like it; it is kept in memory until others displace it."""

    upload: ImageRow
    by_codes: list[ImageRow]
    """By the cosine of their codes' counts, rare codes weighted more."""
    aligned: list[ImageRow]
    units: list[UnitRow]
    """Units that its codes suggest, by the formula of the held-out score."""
    missing: list[Missing]
