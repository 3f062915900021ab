"""Splits a long text into words, phrases and sentences (step 2 of TA-VQ)."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from tavq.core.registry import Registry

MAX_CHARACTERS = 100_000
"""Longer texts are cut at the last white space before this limit, which is 500 times a long caption."""

MAX_WORD = 64
"""Longer runs of letters are not words of any language and are dropped."""

# Characters that are not text: controls, lone surrogates (which UTF-8 cannot encode) and marks that change the writing
# direction. They become white space, so that offsets stay valid and no two words are joined.
_NOT_TEXT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True)
class Units:
    """The units of one text, in order of first appearance and without repeats."""

    words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()

    def __getitem__(self, granularity: str) -> tuple[str, ...]:
        return getattr(self, granularity)


class Splitter(ABC):
    """Splits a text into units. `version` changes whenever the units of any text change."""

    name: ClassVar[str]
    version: ClassVar[str]

    @abstractmethod
    def split(self, text: str) -> Units:
        """Split a text that went through `clean`."""


splitters: Registry[type[Splitter]] = Registry("splitter", "tavq.text.splitters")


@cache
def load_splitter(name: str) -> Splitter:
    """The splitter of that name; it reads its lexicon at the first text."""
    return splitters[name]()


def split(text: str, splitter: str = "pattern") -> Units:
    """The words, phrases and sentences of a text; any string is accepted, and a text without words gives none.

    Words name what can be seen (nouns, adjectives, participles before a noun, numerals and quantifiers), in lower case.
    Phrases are noun phrases of at least two words without their article, in lower case. A blank line ends a sentence,
    so join several captions of one image with one.

    Source: TA-VQ (arXiv 2503.01261), section 3.2, step 2: TextBlob splits sentences and phrases.
    Differs from the paper: a single noun is a word but not also a phrase, as in TextBlob's own noun phrases; words for
    the image itself ("image", "photo") are dropped, because machine captions open with them whatever the image shows.
    """
    return load_splitter(splitter).split(clean(text))


def clean(text: str) -> str:
    """Replace characters that are not text by white space, and cut at MAX_CHARACTERS between words."""
    if len(text) > MAX_CHARACTERS:
        spaces = re.finditer(r"\s", text[: MAX_CHARACTERS + 1])
        text = text[: max((space.start() for space in spaces), default=0) or MAX_CHARACTERS]
    return _NOT_TEXT.sub(" ", text)


def distinct(units: Iterable[str]) -> tuple[str, ...]:
    """The units without repeats, in order of first appearance."""
    return tuple(dict.fromkeys(units))
