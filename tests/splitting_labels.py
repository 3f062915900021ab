"""Captions labelled by hand (golden/splitting.txt), and how much of the labels a splitter finds."""

import re
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from tavq.text.granularity import Units

PATH = Path(__file__).parent / "golden" / "splitting.txt"
WORD = re.compile(r"(\w(?:[\w.,:/’'-]*\w)?)\*")
PHRASE = re.compile(r"\[([^]]*)\]")


class Labelled(NamedTuple):
    """A text and what it must be split into."""

    text: str
    words: frozenset[str]
    phrases: frozenset[str]
    sentences: tuple[str, ...]

    @property
    def boundaries(self) -> frozenset[int]:
        return boundaries(self.sentences)


class Score(NamedTuple):
    """Shares of what was found that is right, and of what is labelled that was found."""

    precision: float
    recall: float


def read_labelled() -> list[Labelled]:
    """Every labelled text; sentences are joined by a space, or by a blank line where a ¶ stands between them."""
    blocks = re.sub(r"^#.*\n", "", PATH.read_text("utf-8"), flags=re.MULTILINE).strip().split("\n\n")
    return [_labelled(block.strip()) for block in blocks if block.strip()]


def _labelled(block: str) -> Labelled:
    plain = re.sub(r"[][*]", "", block)
    phrases = (re.sub(r"\*", "", phrase).lower() for phrase in PHRASE.findall(block))
    return Labelled(
        plain.replace("\n¶\n", "\n\n").replace("\n", " ").replace("  ", "\n\n"),
        frozenset(word.lower() for word in WORD.findall(block)),
        frozenset(phrases),
        tuple(line for line in plain.split("\n") if line != "¶"),
    )


def boundaries(sentences: Iterable[str]) -> frozenset[int]:
    """After how many characters other than white space a sentence ends and another follows."""
    ends = []
    end = 0
    for sentence in sentences:
        end += len("".join(sentence.split()))
        ends.append(end)
    return frozenset(ends[:-1])


def score(pairs: Sequence[tuple[Labelled, Units]], granularity: str) -> Score:
    """Micro-averaged over all texts; sentences by the boundaries inside a text.

    Neither a last dot ("D.C.", "ft.") nor a space before a clitic is a difference: these are tokenizers' habits.
    """
    hits = found = labelled = 0
    for truth, units in pairs:
        if granularity == "sentences":
            expected, given = truth.boundaries, boundaries(units.sentences)
        else:
            expected = getattr(truth, granularity)
            given = frozenset(unit.replace(" 's", "'s").rstrip(".") for unit in units[granularity])
        hits, found, labelled = hits + len(expected & given), found + len(given), labelled + len(expected)
    return Score(hits / found, hits / labelled)
