"""Decides what becomes of a model's answer: it is kept, requested again in another way, or reported as a fault."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tavq.data.characters import UNPRINTABLE
from tavq.data.records import MAX_TEXT
from tavq.text.splitters.pattern import sentence_spans

RETRIES = 3
TEMPERATURE = 0.7  # of repeated requests: greedy decoding would give the same answer
LOOP_WORDS = 24  # shorter texts repeat themselves by chance
LOOP_FRACTION = 0.5  # of four-word runs that occurred before; 612 human descriptions of 200 words have 0.15 at most
LOOP_LENGTH = 40  # characters of a stretch that consists of one repeated piece

_STUTTER = re.compile(r"(.{1,20}?)\1{4,}", re.DOTALL)
_REFUSAL = re.compile(
    r"(?:unfortunately,? )?(?:"
    r"(?:i['’]?m|i am) (?:\w+ )?(?:sorry|unable|not able)\b"
    r"|sorry\b|my apologies|i apologi[sz]e\b"
    r"|i (?:can['’]?t|cannot|can not|won['’]?t|will not) (?:\w+ )?"
    r"(?:see|view|assist|help with|describe|analy|provide|do)"
    r"|as an ai\b)",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SamplingParams:
    """How a model generates: greedily, or with a seed by sampling."""

    max_tokens: int
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """A model's answer; not `complete` if it ran out of tokens, `filtered` if the server's content filter hides it."""

    text: str
    complete: bool = True
    filtered: bool = False


@dataclass(frozen=True)
class DescriptionResult:
    """The result for one image: a text, perhaps `truncated` to its last complete sentence, or the reason for none."""

    file_name: str
    text: str | None = None
    fault: str | None = None
    truncated: bool = False


OnResults = Callable[[Sequence[DescriptionResult]], None]


class Describer(ABC):
    """Writes descriptions of images: a model in this process or a server; `note` says what it is waiting for."""

    note: str = ""

    @abstractmethod
    def run(self, pending: Iterator[str], on_results: OnResults, should_stop: Callable[[], bool]) -> None:
        """Pass the result of each pending image to `on_results`, in any order; end soon after `should_stop()`."""


class RetryState:
    """The answers for one image so far; `params` are those of the next request.

    Empty, refused and repetitive answers are requested again by sampling, `RETRIES` times. An answer that ran out of
    tokens is requested once more with twice as many, and then truncated to its last complete sentence.
    """

    def __init__(self, file_name: str, max_tokens: int) -> None:
        self.file_name = file_name
        self.params = SamplingParams(max_tokens)
        self._max_tokens = max_tokens
        self._partial = ""
        self._retries = 0

    def judge(self, answer: Answer) -> DescriptionResult | None:
        """The result, or None if the model should be asked again with `params`."""
        text = UNPRINTABLE.sub(lambda found: found[0] if found[0] in "\n\t" else "", answer.text).strip()
        problem = "the answer was withheld" if answer.filtered else find_problem(text)
        if problem is not None:
            return self._retry(problem)
        if answer.complete:
            return DescriptionResult(self.file_name, text)
        is_second = bool(self._partial)
        self._partial = text
        if is_second:
            return self.give_up(f"the answer has no complete sentence within {self.params.max_tokens} tokens")
        self.params = SamplingParams(2 * self._max_tokens, self.params.seed)
        return None

    def _retry(self, problem: str) -> DescriptionResult | None:
        self._retries += 1
        if self._retries > RETRIES:
            return self.give_up(f"{problem}, {self._retries} times")
        self.params = SamplingParams(self._max_tokens, seed=self._retries)
        return None

    def give_up(self, reason: str) -> DescriptionResult:
        """The result without further answers: the complete sentences of an incomplete answer, or else the reason."""
        text = keep_complete_sentences(self._partial)
        if not text:
            return DescriptionResult(self.file_name, fault=reason)
        return DescriptionResult(self.file_name, text, truncated=True)


def find_problem(text: str) -> str | None:
    """Why a text cannot be used as a description, or None."""
    if not any(letter.isalpha() for letter in text):
        return "the answer was empty"
    if _REFUSAL.match(text):
        return f"the model refused ({text[:80]!r})"
    if is_repetitive(text[:MAX_TEXT]):
        return "the answer repeated itself"
    if len(text) > MAX_TEXT:
        return f"the answer is too long ({len(text):,} characters; at most {MAX_TEXT:,} are kept)"
    return None


def is_repetitive(text: str) -> bool:
    """Whether a text is stuck in a loop: most four-word runs repeat earlier ones, or one piece fills a stretch."""
    words = text.lower().split()
    runs = Counter(tuple(words[start : start + 4]) for start in range(len(words) - 3))
    repeated = sum(runs.values()) - len(runs)
    if len(words) >= LOOP_WORDS and repeated > LOOP_FRACTION * sum(runs.values()):
        return True
    return any(len(found[0]) >= LOOP_LENGTH for found in _STUTTER.finditer(text[: MAX_TEXT // 10]))


def keep_complete_sentences(text: str) -> str:
    """The text without the incomplete sentence at its end; "" if there is no other."""
    if re.search(r"[.!?。！？][\"'”’)\]]*$", text):
        return text
    *_, last = [[(0, 0)], *sentence_spans(text)]
    return text[: last[0][0]].rstrip()
