"""Answers about edits, what tasks say of them, the guessing game, and the bundle of an offline page."""

from typing import Any, Literal

from tavq.explore.answers.base import VERSION, Answer, Grid, Interval, Level, Missing
from tavq.explore.answers.codes import Patch, UnitLink


class ScoreChange(UnitLink):
    """An aligned text score before and after an edit."""

    before: float
    after: float
    label_of: list[int]
    """The changed codes, from before and after the edit, whose label it is."""


class EditResult(Answer):
    """An image after some of its codes were changed."""

    model: str
    image: str
    share: str
    """Holds the edit: the model, the image and every changed code. See `GET /edits/{share}`."""
    changed: int
    """Positions whose codes differ."""
    codes: list[list[list[int]]]
    """The deep grid after the edit [h][w][parts]."""
    edited: str
    """The decoded image as a data URI."""
    change: str
    """The absolute difference to the unedited reconstruction, in grey, as a data URI; 255 is the whole range."""
    change_max: int
    """The largest value of `change`, by which a page can scale it."""
    change_map: Grid
    """Mean absolute difference at each position, in steps of 255."""
    outside: float
    """Mean absolute difference at positions that were not edited, in steps of 255."""
    aligned: list[ScoreChange]
    """Of the image's own words and of the labels of changed codes, largest change first."""
    milliseconds: float
    missing: list[Missing]


class TaskText(Answer):
    """A caption, or an answer or word with its probability."""

    text: str
    probability: float | None = None
    gap: int | None = None
    """Which gap of the caption the word fills, from 0; null except for masked-words."""


class TaskReply(Answer):
    """What a task says of an image before and after an edit."""

    task: str
    question: str | None
    before: list[TaskText]
    after: list[TaskText]
    before_images: list[str]
    after_images: list[str]
    """Completed images as data URIs."""
    notes: list[str]
    missing: list[Missing]


class Puzzle(Answer):
    """Which word goes with a code? Its patches are of images kept apart from those that chose the label."""

    puzzle: str
    """Goes back with the guess."""
    level: Level
    code: int
    tile: str | None
    patches: list[Patch]
    choices: list[str]


class GameScore(Answer):
    """Guesses that were logged on this machine."""

    model: str
    guesses: int
    right: int
    chance: float
    """Fraction that random guesses would get right."""
    interval: Interval | None
    """Of the fraction that is right; None without a guess."""
    log: str
    """Name of the log file in the store."""


class Verdict(Answer):
    """Whether a guess was right, and the score so far; of a puzzle that was guessed before, that guess again."""

    right: bool
    answer: str
    choice: str
    score: GameScore


class Bundle(Answer):
    """A chosen part for a page that works offline: answers and images by the address that serves them."""

    version: Literal[1] = VERSION
    tavq: str
    answers: dict[str, Any]
    """Bodies of GET requests by their path and query, as the server would answer them."""
    images: dict[str, str]
    """Data URIs by path and query."""
    left_out: dict[str, int]
    """How many codes, units and images of the choice did not fit."""
