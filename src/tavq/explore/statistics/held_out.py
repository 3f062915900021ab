"""Guessing words from codes on images that were kept apart: a naive Bayes formula, its AUC and the level of chance."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tavq.explore.statistics.rows import Rows
from tavq.explore.statistics.tables import Z

MAX_WORDS = 200
"""Words that are guessed: the most frequent ones."""

MIN_HELD_OUT = 5
"""Images kept apart that must have a word, and that must lack it, before it is guessed."""

IMAGES = 512
"""Images that are scored at a time."""


@dataclass(frozen=True)
class Guessing:
    """The mean AUC over words with its 95 % interval over images."""

    words: int
    auc: float
    interval: tuple[float, float]


def score_words(prominent: Rows, images: Int[np.ndarray, " i"], weights: Float[np.ndarray, "k u"]) -> np.ndarray:
    """Sum of the weights of each image's prominent codes [i, u]; 0 for an image without any.

    Source: naive Bayes with the logarithm of the shrunk lift as weight, presence only.

    Args:
        prominent: the codes of each image.
        images: the images to score.
        weights: log lift of each code by each word.
    """
    scores = np.zeros((len(images), weights.shape[1]), np.float32)
    for start in range(0, len(images), IMAGES):
        part = images[start : start + IMAGES]
        lengths = prominent.offsets[part + 1] - prominent.offsets[part]
        rows = weights[prominent.gather(part)]
        filled = np.flatnonzero(lengths)
        if len(filled):
            begins = np.cumsum(lengths[filled]) - lengths[filled]
            scores[start + filled] = np.add.reduceat(rows, begins, axis=0)
    return scores


def mean_auc(scores: Float[np.ndarray, "i u"], present: Bool[np.ndarray, "i u"]) -> Guessing:
    """The mean over words of the area under the ROC curve, ties counted as half.

    The interval adds up what each image contributes to all words, so that words of one image are not taken for
    independent.

    Source: DeLong et al. 1988, "Comparing the areas under two or more correlated ROC curves", structural components.
    """
    count, words = scores.shape
    total, influence = 0.0, np.zeros(count)
    for word in range(words):
        has = present[:, word]
        positive, negative = scores[has, word], scores[~has, word]
        above = _fraction_below(np.sort(negative), positive)
        below = 1 - _fraction_below(np.sort(positive), negative)
        auc = float(above.mean())
        total += auc
        influence[has] += (above - auc) * count / len(positive)
        influence[~has] += (below - auc) * count / len(negative)
    mean = total / words
    error = float(np.sqrt((influence / words).var() / count))
    return Guessing(words, mean, (max(mean - Z * error, 0.0), min(mean + Z * error, 1.0)))


def _fraction_below(others: Float[np.ndarray, " o"], values: Float[np.ndarray, " v"]) -> Float[np.ndarray, " v"]:
    """For each value the fraction of the sorted others that are smaller, ties counted as half."""
    left, right = others.searchsorted(values, "left"), others.searchsorted(values, "right")
    return (left + right) / (2 * len(others))


def choose_words(present: Bool[np.ndarray, "i u"]) -> Int[np.ndarray, " w"]:
    """The words that enough of the images kept apart have and lack, the first `MAX_WORDS` of them."""
    having = present.sum(axis=0)
    enough = (having >= MIN_HELD_OUT) & (len(present) - having >= MIN_HELD_OUT)
    return np.flatnonzero(enough)[:MAX_WORDS]
