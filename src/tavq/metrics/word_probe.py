"""Whether codes keep the relations between words, for any tokenizer: a linear probe matches words and positions.

LG-VQ's table 4 has a row for VQ-GAN, whose codes nothing matches with words, and does not say how it was measured. This
is our own definition, and its numbers cannot be compared with theirs, nor with `word_code_mse` of an `lg` aligner.
"""

from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.functional import normalize

from tavq.metrics.alignment import SMALLEST_PROBE
from tavq.metrics.record import Baseline, Group, Metric
from tavq.metrics.ridge import Ridge, choose_penalty, directions
from tavq.metrics.words import WordRelations, keyed_noise

PROBE_WORDS = Group("probe_words", "Words and codes, by a linear probe")

PROBE_WORD_CODE_MSE = Metric(
    "probe_word_code_mse",
    "Word and code relations (probe)",
    PROBE_WORDS,
    better=-1,
    meaning="Mean squared difference between the cosine of two words of an image and the cosine of the entries that a "
    "linear regression, trained on other images, matches them with. For every tokenizer, aligned or not; not "
    "comparable with the aligner's own value.",
    decimals=4,
    main=True,
)
RANDOM_POSITION = Baseline(
    "random_position", "random position", "Each word with the entry at a random position of its image."
)

Codes = Float[Tensor, "_p d"]
"""The entries at the positions of one image."""

Words = Float[Tensor, "_m t"]
"""The distinct words of one image."""


def probe_word_relations(
    keys: Sequence[str], codes: Callable[[int], Codes], words: Sequence[Words]
) -> tuple[Metric, Metric]:
    """`probe_word_code_mse`, and the same with entries at random positions, with intervals over images.

    Even and odd images form two halves (put them in an order that says nothing of the image). On one half a ridge
    regression (`metrics.ridge`) maps the mean of an image's entries to the mean of its words minus the mean of all
    images. It is linear, so it maps the entry of a single position too. On the other half each word, minus the same
    mean, is matched with the position whose mapped entry has the highest cosine with it. For each pair of different
    words of an image, the cosine of the two words is compared with that of the two *entries*, which the regression does
    not change. Both halves take both parts; every pair counts the same.

    Read it against `random_position/`, where the match says nothing. A codebook whose entries all point the same way
    has a cosine of 1 for every pair, and so a high value with either.

    None below 8 images with words, or without a pair of words.

    Source: the comparison is LG-VQ's (arXiv 2405.14206), eq. 8 and table 4; the match by a probe is ours.

    Args:
        keys: of the images; those decide the random positions.
        codes: gives the entries of an image, by its number.
        words: the words of each image, at least one, each once.
    """
    ours = WordRelations(PROBE_WORD_CODE_MSE)
    random = WordRelations(replace(PROBE_WORD_CODE_MSE, baseline=RANDOM_POSITION))
    numbers = range(len(keys))
    if len(keys) >= SMALLEST_PROBE:
        means = torch.stack([codes(number).double().mean(dim=0) for number in numbers])
        targets = torch.stack([own.double().mean(dim=0) for own in words])
        for part in (0, 1):
            match = PositionMatch(means[part::2], targets[part::2])
            for number in numbers[1 - part :: 2]:
                entries, own, key = codes(number).double(), words[number].double(), keys[number]
                drawn = (keyed_noise([key], len(own))[0] * len(entries)).long()
                _add_pairs(ours, key, own, entries[match(own, entries)])
                _add_pairs(random, key, own, entries[drawn])
    return ours.compute(), random.compute()


class PositionMatch:
    """Matches words with positions by a regression from the mean code of an image to the mean of its words."""

    def __init__(self, means: Float[Tensor, "n d"], targets: Float[Tensor, "n t"]) -> None:
        self.ridge = Ridge.fit(means, targets)
        self.weights = self.ridge.weights(choose_penalty(means, targets))
        self.gram = self.weights @ self.weights.mT

    def __call__(self, words: Words, entries: Codes) -> Int[Tensor, " _m"]:
        """The position whose mapped entry is most similar to each word.

        Costs O(p d^2 + m d (t + p)): entries are compared in their own width, and never mapped to the words'.
        """
        rotated = self.ridge.rotate(entries)
        lengths = ((rotated @ self.gram) * rotated).sum(dim=1).clamp(min=0).sqrt()
        wanted = directions(words - self.ridge.target_mean) @ self.weights.mT
        return (wanted @ rotated.mT / lengths.clamp(min=1e-9)).argmax(dim=1)


def _add_pairs(relations: WordRelations, key: str, words: Words, entries: Codes) -> None:
    first, second = torch.triu_indices(len(words), len(words), 1)
    words, entries = normalize(words, dim=1), normalize(entries, dim=1)
    of_words, of_entries = ((vectors @ vectors.mT)[first, second] for vectors in (words, entries))
    relations.update([key], of_words, of_entries, torch.zeros_like(first))
