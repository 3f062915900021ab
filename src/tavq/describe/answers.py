"""What a model's answer is worth: kept, asked for again in another way, or a fault."""

import re
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from tavq.data.records import MAX_TEXT, UNPRINTABLE
from tavq.text.splitters.pattern import sentence_spans

RETRIES = 3
TEMPERATURE = 0.7  # of the answers asked for again: greedy decoding would give the same one
LOOP_WORDS = 24  # shorter texts repeat themselves by chance
LOOP_SHARE = 0.5  # of four-word runs that stood before; 612 human descriptions of 200 words have 0.15 at most
LOOP_LENGTH = 40  # characters of one stretch that nothing but a repeated piece fills

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
class Ask:
    """How a model is asked: for at most so many tokens, greedily, or sampling with a seed."""

    tokens: int
    seed: int | None = None


@dataclass(frozen=True)
class Answer:
    """What it gave; not `whole` where the tokens ran out, `withheld` where the server says that it keeps it back."""

    text: str
    whole: bool = True
    withheld: bool = False


@dataclass(frozen=True)
class Outcome:
    """What came of one image: a text, `cut` back to its last whole sentence or not, or the reason for none."""

    file_name: str
    text: str | None = None
    fault: str | None = None
    cut: bool = False


class Describer(ABC):
    """What writes about images: a model in this process or a server; `note` says what it waits for."""

    note: str = ""

    @abstractmethod
    def run(self, pending: Iterator[str], done: Callable[[Sequence[Outcome]], None], stop: Callable[[], bool]) -> None:
        """Hands the outcome of each pending image to `done`, in any order; ends soon after `stop` says so."""


class Attempts:
    """The answers to one image; `ask` is how to ask next.

    Empty, refused and looping answers are asked for again, sampled, `RETRIES` times. One that is cut off is asked for
    once more with twice the tokens, and then cut back to its last whole sentence.
    """

    def __init__(self, file_name: str, tokens: int) -> None:
        self.file_name = file_name
        self.ask = Ask(tokens)
        self._tokens = tokens
        self._partial = ""
        self._retries = 0

    def judge(self, answer: Answer) -> Outcome | None:
        """The outcome, or None where `ask` is to be tried."""
        text = UNPRINTABLE.sub(lambda found: found[0] if found[0] in "\n\t" else "", answer.text).strip()
        reason = "the answer was withheld" if answer.withheld else unusable(text)
        if reason is not None:
            return self._again(reason)
        if answer.whole:
            return Outcome(self.file_name, text)
        if self._partial:
            self._partial = text
            return self.end(f"the answer has no whole sentence within {self.ask.tokens} tokens")
        self._partial = text
        self.ask = Ask(2 * self._tokens, self.ask.seed)
        return None

    def _again(self, reason: str) -> Outcome | None:
        self._retries += 1
        if self._retries > RETRIES:
            return self.end(f"{reason}, {self._retries} times")
        self.ask = Ask(self._tokens, seed=self._retries)
        return None

    def end(self, reason: str) -> Outcome:
        """The outcome where no more answers come: what whole sentences there are, or else the reason."""
        text = whole_sentences(self._partial)
        return Outcome(self.file_name, text, cut=True) if text else Outcome(self.file_name, fault=reason)


def unusable(text: str) -> str | None:
    """Why a text cannot stand as a description, or None."""
    if not any(letter.isalpha() for letter in text):
        return "the answer was empty"
    if _REFUSAL.match(text):
        return f"the model refused ({text[:80]!r})"
    if loops(text[:MAX_TEXT]):
        return "the answer repeated itself"
    if len(text) > MAX_TEXT:
        return f"the answer is too long ({len(text):,} characters; at most {MAX_TEXT:,} are kept)"
    return None


def loops(text: str) -> bool:
    """Whether a text repeats itself: most of its four-word runs stood before, or one piece fills a stretch of it."""
    words = text.lower().split()
    runs = Counter(tuple(words[start : start + 4]) for start in range(len(words) - 3))
    repeated = sum(runs.values()) - len(runs)
    if len(words) >= LOOP_WORDS and repeated > LOOP_SHARE * sum(runs.values()):
        return True
    return any(len(found[0]) >= LOOP_LENGTH for found in _STUTTER.finditer(text[: MAX_TEXT // 10]))


def whole_sentences(text: str) -> str:
    """The text without the sentence that was cut off at its end; "" where there was no other."""
    if re.search(r"[.!?。！？][\"'”’)\]]*$", text):
        return text
    *_, last = [[(0, 0)], *sentence_spans(text)]
    return text[: last[0][0]].rstrip()
