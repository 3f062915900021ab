"""What an aligner's codes say of words: recall of masked words, and relations between words kept by codes."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.record import Group, Metric

MASKED = (1, 3)
"""How many words of a text are masked at once, as in LG-VQ's table 3."""

WORDS = Group("words", "Words and codes, by the aligner")

WORD_CODE_MSE = Metric(
    "word_code_mse",
    "Word and code relations",
    WORDS,
    better=-1,
    meaning="Mean squared difference between the cosine of two words and the cosine of the codes that they match.",
    decimals=4,
    main=True,
)


def masked_words(count: int) -> Metric:
    """The recall of masked words where `count` of a text are masked at once, without its value."""
    title, meaning = f"Masked words, {count} per text", f"The same with {count} tokens masked at once."
    if count == 1:
        title = "Masked word, 1 per text"
        meaning = (
            "How often the aligner predicts exactly the token that was masked, from the image's codes and the other "
            "tokens. These were encoded while the masked one was visible, so a part of this is copying."
        )
    return Metric(
        f"masked_words_recall@1_of_{count}",
        title,
        WORDS,
        better=1,
        meaning=meaning,
        percent=True,
        main=True,
    )


def keyed_noise(keys: Sequence[str], words: int) -> Float[Tensor, "b m"]:
    """Uniform noise for the words of each image, from its key alone.

    A longer row begins with the numbers of a shorter one, so that padding and the other images of a batch do not
    matter.
    """
    rows = np.empty((len(keys), words), np.float32)
    for row, key in zip(rows, keys, strict=True):
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        row[:] = np.random.default_rng(int.from_bytes(digest[:8], "little")).random(words)
    return torch.from_numpy(rows)


class MaskedWords(KeyedMetric):
    """How often a masked word of a text is filled in with the very token that was there.

    Source: LG-VQ (arXiv 2405.14206), table 3.
    Differs from the paper: it does not publish which words of which text it masks; here they follow from the image's
    key. Words are tokens, as there.
    """

    def __init__(self, count: int) -> None:
        super().__init__()
        self.count = count

    def update(
        self,
        keys: Sequence[str],
        predicted: Int[Tensor, " p"],
        truth: Int[Tensor, " p"],
        owner: Int[Tensor, " p"],
    ) -> None:
        """Adds the masked words of a batch.

        Args:
            keys: of the images.
            predicted: the tokens filled in.
            truth: the tokens that were masked.
            owner: the image, by its row in the batch, of each masked word.
        """
        for key, row in zip(keys, _sums(predicted == truth, owner, len(keys)), strict=True):
            self._add(key, row)

    def compute(self) -> Metric:
        """`masked_words_recall@1_of_<count>`: the fraction that is right, with its interval over images.

        None without a masked word.
        """
        return _ratio(masked_words(self.count), self)


class WordRelations(KeyedMetric):
    """How far the cosines between the codes of words are from the cosines between the words.

    Source: LG-VQ (arXiv 2405.14206), table 4.
    Differs from the paper: a word is not compared with itself, which would add pairs without error.

    Args:
        metric: what it measures.
    """

    def __init__(self, metric: Metric = WORD_CODE_MSE) -> None:
        super().__init__()
        self.metric = metric

    def update(
        self,
        keys: Sequence[str],
        words: Float[Tensor, " p"],
        codes: Float[Tensor, " p"],
        owner: Int[Tensor, " p"],
    ) -> None:
        """Adds the pairs of words of a batch.

        Args:
            keys: of the images.
            words: cosines between words.
            codes: cosines between the codes that they match.
            owner: the image, by its row in the batch, of each pair.
        """
        squares = (words.double() - codes.double()).square()
        for key, row in zip(keys, _sums(squares, owner, len(keys)), strict=True):
            self._add(key, row)

    def compute(self) -> Metric:
        """`metric`: the mean squared difference over all pairs, from 0 to 4, with its interval over images.

        None without a pair.
        """
        return _ratio(self.metric, self)


def _sums(values: Tensor, owner: Int[Tensor, " p"], images: int) -> list[list[float]]:
    """The sum and the number of each image's values."""
    columns = torch.stack([values.double(), torch.ones_like(values, dtype=torch.float64)], dim=1).cpu()
    return torch.zeros(images, 2, dtype=torch.float64).index_add_(0, owner.cpu(), columns).tolist()


def _ratio(metric: Metric, collected: KeyedMetric) -> Metric:
    """The sum over all items by their number: an image with many words counts for each."""
    statistics = torch.tensor([row for _, row in collected.ordered() if row[1]], dtype=torch.float64).view(-1, 2)
    [measured] = intervals.score_with_intervals([metric], statistics, intervals.ratios)
    return measured
