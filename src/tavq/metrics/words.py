"""What the codes say of single words: masked words filled in, and relations between words kept by codes."""

import hashlib
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.metrics.sums import Sums

MASKED = (1, 3)
"""How many words of a text are masked at once, as in LG-VQ's table 3."""


def keyed_noise(keys: Sequence[str], words: int) -> Float[Tensor, "b m"]:
    """Numbers from 0 to 1 for the words of each picture, drawn from its key alone.

    Longer rows start with the shorter ones' numbers, so that padding and the company in a batch change nothing.
    """
    rows = np.empty((len(keys), words), np.float32)
    for row, key in zip(rows, keys, strict=True):
        digest = hashlib.sha256(key.encode("utf-8", "surrogatepass")).digest()
        row[:] = np.random.default_rng(int.from_bytes(digest[:8], "little")).random(words)
    return torch.from_numpy(rows)


class MaskedWords(Sums):
    """How often a masked word of a text is filled in with the very token that stood there.

    Source: LG-VQ (arXiv 2405.14206), table 3.
    Differs from the paper: its words are tokens here too, but which ones it masks and in what text is not published;
    here they follow from the picture's key.
    """

    def __init__(self, count: int) -> None:
        self.count = count
        self.state = torch.zeros(2, dtype=torch.int64)  # right, all

    def update(self, predicted: Int[Tensor, " p"], truth: Int[Tensor, " p"]) -> None:
        """Counts the masked words of a batch."""
        self.state += torch.stack([(predicted == truth).sum().cpu(), torch.tensor(len(truth))])

    def compute(self) -> dict[str, float | None]:
        """`masked_words_recall@1_of_<count>`: the share that is right, None without a masked word."""
        right, total = self.state.tolist()
        return {f"masked_words_recall@1_of_{self.count}": right / total if total else None}


class WordRelations(Sums):
    """How far the cosines between the codes of words are from the cosines between the words.

    Source: LG-VQ (arXiv 2405.14206), table 4.
    Differs from the paper: a word is not compared with itself, which would add pairs without error.
    """

    def __init__(self) -> None:
        self.state = torch.zeros(2, dtype=torch.float64)  # squared differences, pairs

    def update(self, words: Float[Tensor, " p"], codes: Float[Tensor, " p"]) -> None:
        """Counts the pairs of words of a batch."""
        self.state[0] += (words.double() - codes.double()).square().sum().cpu()
        self.state[1] += len(words)

    def compute(self) -> dict[str, float | None]:
        """`word_code_mse`: the mean squared difference over all pairs, from 0 to 4; None without a pair."""
        squares, pairs = self.state.tolist()
        return {"word_code_mse": squares / pairs if pairs else None}
