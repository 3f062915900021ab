"""Captions against people's captions: BLEU, ROUGE-L and CIDEr-D as coco-caption computes them."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import DataError
from tavq.metrics import intervals, ptb
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.record import Group, Metric

ORDER = 4
"""Length of the longest n-gram, in words."""

BETA = 1.2
"""Weight of recall against precision in ROUGE-L."""

SIGMA = 6.0
"""Standard deviation, in words, of CIDEr-D's penalty on captions whose length differs."""

CAPTIONS = Group("captions", "Captions", "Compared with all human captions of an image.")

BLEUS = tuple(
    Metric(
        f"BLEU-{order}",
        f"BLEU-{order}",
        CAPTIONS,
        better=1,
        meaning=f"N-grams of up to {order} words that human captions contain too.",
        main=order == ORDER,
    )
    for order in range(1, ORDER + 1)
)
ROUGE_L = Metric(
    "ROUGE-L", "ROUGE-L", CAPTIONS, better=1, meaning="Longest common subsequence of words, relative to the lengths."
)
CIDER_D = Metric(
    "CIDEr-D",
    "CIDEr-D",
    CAPTIONS,
    better=1,
    meaning="Agreement with human captions, with more weight on rare words; from 0 to 10.",
    main=True,
)

Ngrams = Mapping[tuple[str, ...], float]


@dataclass(frozen=True)
class Captioned:
    """An image's caption and its references, as tokenized texts."""

    caption: str
    references: tuple[str, ...]


class CaptionScores(KeyedMetric):
    """BLEU-1 to BLEU-4, ROUGE-L and CIDEr-D of one caption per image.

    Equal to coco-caption's (`pycocoevalcap`) on the same tokens, for the corpus and for each image. METEOR needs an
    external tool: see `metrics/meteor`, which takes `tokenized()`.
    """

    def add(self, key: str, caption: str, references: Sequence[str]) -> None:
        """Adds an image."""
        if not references:
            raise DataError(f"{key!r} has no reference caption; a caption is scored against one or more.")
        self._add(key, [caption, list(references)])

    def tokenized(self) -> dict[str, Captioned]:
        """The tokenized captions and references, ordered by key."""
        tokenized = {}
        for key, (caption, references) in self.ordered():
            tokenized[key] = Captioned(ptb.tokenize(caption), tuple(map(ptb.tokenize, references)))
        return tokenized

    def compute(self) -> dict[str, Any]:
        """`metrics`, `per_image`, and the counts of what was scored.

        The intervals are over images. Those of BLEU come from each image's matches and lengths, so that a resample
        is scored as a corpus of its own; CIDEr-D's document frequencies stay those of all images.
        """
        images = self.tokenized()
        if not images:
            raise DataError("No captions were given to score.")
        counts = torch.tensor([bleu_counts(image) for image in images.values()], dtype=torch.float64)
        others = {ROUGE_L: [rouge_l(image) for image in images.values()], CIDER_D: cider_d(images)}
        values = torch.tensor([[1.0] * len(images), *others.values()], dtype=torch.float64).mT
        means = intervals.score_with_intervals(list(others), values, intervals.mean)
        exact = []
        for own, mean in zip(others, means, strict=True):
            exact.append(replace(mean, value=math.fsum(others[own]) / len(images)))
        columns = {**dict(zip(BLEUS, bleu(counts).mT.tolist(), strict=True)), **others}
        per_image: dict[str, dict[str, float]] = {key: {} for key in images}
        for metric, scores in columns.items():
            for key, score in zip(images, scores, strict=True):
                per_image[key][metric.name] = score
        return {
            "metrics": [*intervals.score_with_intervals(BLEUS, counts, bleu), *exact],
            "per_image": per_image,
            "images": len(images),
            "references": sum(len(image.references) for image in images.values()),
            "captions_without_words": sum(not image.caption for image in images.values()),
            "empty_captions": sum(not caption.strip() for caption, _ in self.records.values()),
            "tokenizer": ptb.NAME,
            "intervals": {**intervals.ABOUT, "over": "images", "document_frequencies": "of all images, kept fixed"},
        }


def ngrams(text: str) -> Counter[tuple[str, ...]]:
    """Counts of the n-grams of one to four words of a tokenized text."""
    words = text.split()
    return Counter(tuple(words[i : i + n]) for n in range(1, ORDER + 1) for i in range(len(words) - n + 1))


# --- BLEU -------------------------------------------------------------------------------------------------------


def bleu_counts(image: Captioned) -> list[int]:
    """What an image adds to BLEU's sums: words, words of the closest reference, matches and n-grams of each order.

    A match counts at most as often as it occurs in one reference. Of two references equally close in length the shorter
    is the closest.
    """
    own = ngrams(image.caption)
    most: Counter[tuple[str, ...]] = Counter()
    for reference in image.references:
        most |= ngrams(reference)
    length = len(image.caption.split())
    closest = min((abs(len(r.split()) - length), len(r.split())) for r in image.references)[1]
    matches = [0] * ORDER
    for ngram, count in own.items():
        matches[len(ngram) - 1] += min(count, most[ngram])
    return [length, closest, *matches, *(max(0, length - n) for n in range(ORDER))]


def bleu(sums: Float[Tensor, "r 10"]) -> Float[Tensor, "r 4"]:
    """BLEU-1 to BLEU-4 from sums of `bleu_counts`: of a corpus, of resamples of it, or of single images.

    Source: Papineni et al. 2002, "BLEU: a method for automatic evaluation of machine translation", section 2.3, with
    coco-caption's small constants, which give an image without a match a tiny score instead of 0.
    """
    length, closest, matches, possible = sums[:, :1], sums[:, 1:2], sums[:, 2:6], sums[:, 6:]
    precisions = ((matches + 1e-15) / (possible + 1e-9)).cumprod(dim=1)
    means = precisions ** (1 / torch.arange(1, ORDER + 1, dtype=sums.dtype))
    ratio = (length + 1e-15) / (closest + 1e-9)
    return means * torch.exp((1 - 1 / ratio).clamp(max=0))


# --- ROUGE-L ----------------------------------------------------------------------------------------------------


def rouge_l(image: Captioned) -> float:
    """F-measure of the longest common subsequence: best precision and best recall over the references.

    Source: Lin and Och 2004, "Automatic evaluation of machine translation quality using longest common subsequence",
    section 3.1; the maxima over references as in coco-caption.
    Differs from coco-caption: a caption without a word scores 0 next to a reference without one, too.
    """
    if not image.caption:
        return 0.0
    own = image.caption.split(" ")
    references = [reference.split(" ") for reference in image.references]
    common = [_common(own, reference) for reference in references]
    precision = max(common) / len(own)
    recall = max(count / len(reference) for count, reference in zip(common, references, strict=True))
    if precision == 0 or recall == 0:
        return 0.0
    return (1 + BETA**2) * precision * recall / (recall + BETA**2 * precision)


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """The length of the longest common subsequence."""
    row = [0] * (len(b) + 1)
    for word in a:
        before = 0  # the row above, one to the left
        for i, other in enumerate(b, 1):
            above = row[i]
            row[i] = before + 1 if word == other else max(above, row[i - 1])
            before = above
    return row[-1]


# --- CIDEr-D ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Weighted:
    """A text's tf-idf vector of each n-gram order, the norm of each vector, and the text's length."""

    vectors: tuple[Ngrams, ...]
    norms: tuple[float, ...]
    length: int


def cider_d(images: Mapping[str, Captioned]) -> list[float]:
    """CIDEr-D of each image, from 0 to 10; the score of the corpus is their mean.

    An n-gram's weight falls with the number of images whose references contain it, so a score depends on the entire
    corpus: with a single image every weight, and the score, is 0.

    Source: Vedantam, Zitnick, Parikh 2015, "CIDEr", eqs 2 to 4 and section 7 (CIDEr-D).
    Differs from the paper: the length of a text counts its pairs of words, as in coco-caption, which only tells
    texts of no word from texts of one.
    """
    weights, never = _weights([image.references for image in images.values()])
    scores = []
    for image in images.values():
        references = [_weighted(text, weights, never) for text in image.references]
        scores.append(_cider_d(_weighted(image.caption, weights, never), references))
    return scores


def cider_d_of_constants(captions: Sequence[str], images: Sequence[Sequence[str]]) -> list[float]:
    """The CIDEr-D that each caption would have as the caption of every image; all texts are tokenized.

    Time O(captions x references).
    """
    weights, never = _weights(images)
    weigh = partial(_weighted, weights=weights, never=never)
    known = [list(map(weigh, references)) for references in images]
    totals = [math.fsum(map(partial(_cider_d, own), known)) for own in map(weigh, captions)]
    return [total / len(known) for total in totals]


def _weights(images: Sequence[Sequence[str]]) -> tuple[Ngrams, float]:
    """The weight of each n-gram of the references, and the weight of all other n-grams."""
    seen: Counter[tuple[str, ...]] = Counter()
    for references in images:
        seen.update(set().union(*map(ngrams, references)))
    weights = {ngram: math.log(len(images) / count) for ngram, count in seen.items()}
    return weights, math.log(len(images)) if images else 0.0


def _cider_d(own: _Weighted, references: Sequence[_Weighted]) -> float:
    return 10 * sum(_similarity(own, reference) for reference in references) / len(references)


def _weighted(text: str, weights: Ngrams, never: float) -> _Weighted:
    vectors: tuple[dict[tuple[str, ...], float], ...] = tuple({} for _ in range(ORDER))
    for ngram, count in ngrams(text).items():
        vectors[len(ngram) - 1][ngram] = count * weights.get(ngram, never)
    norms = tuple(map(_norm, vectors))
    return _Weighted(vectors, norms, max(0, len(text.split()) - 1))


def _norm(vector: Ngrams) -> float:
    return math.sqrt(sum(weight * weight for weight in vector.values()))


def _similarity(own: _Weighted, reference: _Weighted) -> float:
    """The mean over orders of the clipped cosine, times the penalty on the difference in length."""
    total = 0.0
    for a, b, norm_a, norm_b in zip(own.vectors, reference.vectors, own.norms, reference.norms, strict=True):
        product = sum(min(weight, b[ngram]) * b[ngram] for ngram, weight in a.items() if ngram in b)
        total += product / (norm_a * norm_b) if norm_a and norm_b else 0.0
    return total / ORDER * math.exp(-((own.length - reference.length) ** 2) / (2 * SIGMA**2))
