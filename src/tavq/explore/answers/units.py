"""Answers about words, phrases and sentences, and about models compared by them."""

from tavq.explore.answers.base import Answer, Interval, Level, Missing
from tavq.explore.answers.codes import CodeLink, UnitLink


class UnitRow(UnitLink):
    """A unit of text in a list."""

    images: int
    """Images whose text has it."""


class UnitList(Answer):
    """Units that match a query, most frequent first."""

    total: int
    offset: int
    units: list[UnitRow]
    missing: list[Missing]


class UnitCode(CodeLink):
    """How a code goes with a unit; the numbers are those of `Association`."""

    lift: float
    interval: Interval
    certain: bool
    precision: float
    recall: float
    both: int
    with_code: int


class AlignedCode(CodeLink):
    """A code near a unit in the aligned space."""

    cosine: float
    lift: float
    """By the statistics: near 1, images do not bear the alignment out."""
    statistical_rank: int
    """Rank by lift among all codes, from 0."""


class ImageRow(Answer):
    """An image in a list."""

    image: str
    """Its id in addresses: its number in the data set, or "u" and a number for an upload."""
    key: str
    """Its file name."""
    split: str | None
    caption: str | None
    """Its first caption, as plain text."""
    url: str
    score: float | None = None


class UnitPage(UnitRow):
    """A word, phrase or sentence and the codes that go with it."""

    level: Level
    codes: list[UnitCode]
    """Given the unit, the codes whose use grows most: by lift, certain ones first."""
    predictors: list[UnitCode]
    """Given a code, where the unit is most probable: by precision, certain ones only."""
    aligned: list[AlignedCode]
    aligned_lift: float | None
    """Mean lift of the aligned codes, `word_code_lift` of the evaluation for one word."""
    examples: list[ImageRow]
    """The first images whose text has it."""
    missing: list[Missing]


class ModelWord(Answer):
    """A word in several models."""

    unit: UnitRow
    best: list[UnitCode | None]
    """The code with the highest lift in each model."""


class ModelComparison(Answer):
    """Several models side by side."""

    models: list[str]
    level: Level
    words: list[ModelWord]
    total: int
    offset: int
    missing: list[Missing]
