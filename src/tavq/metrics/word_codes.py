"""Whether the codes that a word finds in the aligned space occur in images whose text has the word."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tavq.metrics import intervals
from tavq.metrics.alignment import ALIGNED
from tavq.metrics.association import PRIOR
from tavq.metrics.record import Baseline, Metric

FOUND = 5
"""Codes that a word finds: the nearest ones."""

MAX_WORDS = 200
"""Words that are measured: the most frequent ones."""

WORD_CODE_LIFT = Metric(
    "word_code_lift",
    "Lift of the codes that a word finds",
    ALIGNED,
    better=1,
    meaning=f"How many times likelier the {FOUND} codes nearest to a word in the aligned space are prominent in images "
    "whose text has the word, than in all images; 1 is chance. A mean over words; codes of the level that words are "
    "aligned with.",
    decimals=2,
    main=True,
)
OTHER_WORD = Baseline("other_word", "another word's", "The codes that another word finds: what common codes gain.")
BASELINE = WORD_CODE_LIFT.measured(None, baseline=OTHER_WORD)


def find_codes(
    entries: Float[Tensor, "k t"], used: Bool[Tensor, " k"], words: Float[Tensor, "u t"], count: int = FOUND
) -> Int[Tensor, "u n"]:
    """The used codes nearest to each word, nearest first; fewer than `count` if fewer are used.

    The cosine is computed after centring: the mean of the used entries is subtracted from the entries, that of all
    words from the words, because each side has a large direction in common.

    Args:
        entries: entries in the text's space, of `Aligner.embed_entries`.
        used: whether an entry was chosen; others keep their initial values.
        words: vectors of all words that compete.
        count: codes to find for a word.
    """
    cosines = measure_cosines(entries, used, words).masked_fill(~used, -torch.inf)
    return cosines.topk(min(count, int(used.sum())), dim=1).indices


def measure_cosines(
    entries: Float[Tensor, "k t"], used: Bool[Tensor, " k"], words: Float[Tensor, "u t"]
) -> Float[Tensor, "u k"]:
    """The cosine of each word and each entry after centring, as `find_codes` ranks them."""
    units = normalize(words.float(), dim=1)
    centered = normalize(units - units.mean(0), dim=1)
    codes = normalize(entries.float() - entries[used].float().mean(0), dim=1)
    return centered @ codes.T


def word_code_lift(
    prominent: Bool[Tensor, "n k"], words: Bool[Tensor, "n u"], found: Int[Tensor, "u c"]
) -> list[Metric]:
    """`word_code_lift` with its chance level, which finds the codes of another word.

    Args:
        prominent: whether an image uses a code more often than the average image.
        words: whether an image's text has a word.
        found: the codes of each word, of `find_codes`.
    """
    if not found.numel() or len(prominent) < 2:
        return [WORD_CODE_LIFT, BASELINE]
    other = found.roll(max(1, len(found) // 2), 0)
    lifts = (WordLifts(prominent, words, found), WordLifts(prominent, words, other))
    pairs = zip((WORD_CODE_LIFT, BASELINE), lifts, strict=True)
    return [metric.measured(each.mean, each.interval) for metric, each in pairs]


class WordLifts:
    """The lift of the codes that each word finds, with 95 % intervals over images.

    The lift of a code by a word is P(code | word) / P(code), shrunk towards 1 by PRIOR pseudo-images that behave like
    the average; see `association.compute_lift_and_evidence`.

    Args:
        prominent: whether an image uses a code more often than the average image; two images or more.
        words: whether an image's text has a word.
        found: the codes of each word; one or more.
    """

    def __init__(self, prominent: Bool[Tensor, "n k"], words: Bool[Tensor, "n u"], found: Int[Tensor, "u c"]) -> None:
        self._shape = found.shape
        codes = prominent[:, found.flatten()].double()
        both = codes * words.double().repeat_interleave(found.shape[1], dim=1)
        self._statistics = torch.cat([torch.ones(len(codes), 1), both, codes, words.double()], dim=1)
        self.of_codes = self._lift(self._statistics.sum(0, keepdim=True))[0]
        """The lift of each code that a word finds [u c]."""

    def _lift(self, sums: Float[Tensor, "r d"]) -> Float[Tensor, "r u c"]:
        """The lift of each word's codes, from sums over images."""
        u, c = self._shape
        both, codes, words = sums[:, 1:].split([u * c, u * c, u], dim=1)
        fraction = codes.view(-1, u, c) / sums[:, :1, None]
        lift = (both.view(-1, u, c) + PRIOR * fraction) / ((words[:, :, None] + PRIOR) * fraction)
        return lift.nan_to_num(1.0)  # a code that no image of a resample uses

    @property
    def mean(self) -> float:
        """The mean over words and their codes."""
        return float(self.of_codes.mean())

    @property
    def interval(self) -> list[float]:
        """The interval of the mean."""
        ends = intervals.bootstrap(self._statistics, lambda sums: self._lift(sums).flatten(1).mean(1, keepdim=True))
        return [float(end) for end in ends[0]]

    def intervals_of_words(self) -> Float[Tensor, "u 2"]:
        """The interval of the mean over each word's codes."""
        return intervals.bootstrap(self._statistics, lambda sums: self._lift(sums).mean(2))
