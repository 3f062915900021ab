"""Zero-shot recognition: whether the words of an image's text are nearer to it than other words."""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.alignment import ALIGNED, OTHERS
from tavq.metrics.record import Metric, for_baseline

ZERO_SHOT_WORDS = Metric(
    "zero_shot_words",
    "Zero-shot words (area under the ROC curve)",
    ALIGNED,
    better=1,
    meaning="The probability that a word of an image's text scores higher than a word that its text does not have; 0.5 "
    "is chance. A word is a prompt by itself, and its scores are standardized over images, so that frequent words gain "
    "nothing.",
    main=True,
)


def zero_shot_words(
    images: Float[Tensor, "n e"], words: Float[Tensor, "u e"], present: Bool[Tensor, "n u"]
) -> list[Metric]:
    """`zero_shot_words` and its chance level, which judges each image by the words of another.

    The mean over images of the area under each image's ROC curve; images with no word, or with every word, are left
    out. None where no image is left.

    Args:
        images: unit vectors of images, of `Aligner.embed_images`.
        words: unit vectors of the words alone, of `Aligner.embed_text`.
        present: whether an image's text has a word.
    """
    scores = images.double() @ words.double().T
    spread = scores.std(0, unbiased=False)
    scores = (scores - scores.mean(0)) / torch.where(spread > 0, spread, 1)
    own = _measured(scores, present)
    others = _measured(scores, present.roll(1, 0))
    return [own, *for_baseline(OTHERS, [others])]


def _measured(scores: Float[Tensor, "n u"], present: Bool[Tensor, "n u"]) -> Metric:
    areas = [_area(row, has) for row, has in zip(scores, present, strict=True) if has.any() and not has.all()]
    if not areas:
        return ZERO_SHOT_WORDS
    rows = torch.tensor([[1.0, area] for area in areas], dtype=torch.float64)
    ends = intervals.as_pairs(intervals.bootstrap(rows, intervals.mean))[0]
    return ZERO_SHOT_WORDS.measured(float(rows[:, 1].mean()), ends)


def _area(scores: Float[Tensor, " u"], present: Bool[Tensor, " u"]) -> float:
    """The share of pairs of a present and an absent word that are in the right order; ties count a half."""
    difference = scores[present][:, None] - scores[~present][None]
    return float(((difference > 0).double() + 0.5 * (difference == 0).double()).mean())
