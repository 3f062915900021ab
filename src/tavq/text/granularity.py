"""Step 2 of TA-VQ: a long text as words, phrases and sentences."""

import re
from abc import ABC, abstractmethod
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import ClassVar

from tavq.core.registry import Registry

MAX_CHARACTERS = 100_000
"""Longer texts are cut at the last white space before this many characters; 500 times a long caption."""

MAX_WORD = 64
"""A longer run of letters is no word of a language and is dropped."""

# Characters that are not text: controls, lone surrogates (no UTF-8 exists for them) and the marks that turn the
# writing direction. White space takes their place, so that offsets stay and no two words are glued together.
_NOT_TEXT = re.compile(
    "[\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f\u200b\u200e\u200f\u202a-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)


@dataclass(frozen=True)
class Units:
    """The units of one text, each in order of its first appearance and without repeats."""

    words: tuple[str, ...] = ()
    phrases: tuple[str, ...] = ()
    sentences: tuple[str, ...] = ()

    def __getitem__(self, granularity: str) -> tuple[str, ...]:
        return getattr(self, granularity)


class Splitter(ABC):
    """Splits a text into its units. `version` changes whenever the units of some text do."""

    name: ClassVar[str]
    version: ClassVar[str]

    @abstractmethod
    def split(self, text: str) -> Units:
        """The units of a text that went through `clean`."""


splitters: Registry[type[Splitter]] = Registry("splitter", "tavq.text.splitters")


@cache
def load_splitter(name: str) -> Splitter:
    """The splitter of that name; its lexicon is read at the first text."""
    return splitters[name]()


def split(text: str, splitter: str = "pattern") -> Units:
    """The words, phrases and sentences of a text; empty where it has none, whatever it holds.

    Words are those that can be seen (nouns, adjectives, participles before a noun, numerals and quantifiers), in
    lower case. Phrases are noun phrases of at least two words without their article, in lower case. A blank line
    ends a sentence: join several captions of one image with one.

    Source: TA-VQ (arXiv 2503.01261), section 3.2, step 2: TextBlob splits sentences and phrases.
    Differs from the paper: a noun that stands alone is a word and not also a phrase, as in TextBlob's own noun
    phrases; words that speak of the image as an object ("image", "photo") are dropped, because machine captions
    open with them whatever they show.
    """
    return load_splitter(splitter).split(clean(text))


def clean(text: str) -> str:
    """The text with white space for what is not text, cut at MAX_CHARACTERS between words."""
    if len(text) > MAX_CHARACTERS:
        head = text[: MAX_CHARACTERS + 1]
        text = text[: max((match.start() for match in re.finditer(r"\s", head)), default=0) or MAX_CHARACTERS]
    return _NOT_TEXT.sub(" ", text)


def distinct(units: Iterable[str]) -> tuple[str, ...]:
    """The units without repeats, in order of first appearance."""
    return tuple(dict.fromkeys(units))
