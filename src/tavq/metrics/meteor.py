"""METEOR of captions: by the authors' own tool if it is installed, else NLTK's variant under another name."""

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.captions import CAPTIONS, Captioned
from tavq.metrics.record import Metric
from tavq.metrics.wordnet import open_wordnet

COUNTS = 23
"""Statistics that the tool computes for an image."""

ALPHA, BETA, GAMMA, DELTA = 0.85, 0.2, 0.6, 0.75
STAGES = (1.0, 0.6, 0.8, 0.6)
"""METEOR 1.5's weights for English of exact, stem, synonym and paraphrase matches."""


METEOR = Metric(
    "METEOR", "METEOR", CAPTIONS, better=1, meaning="Matching words, including stems and synonyms, and their order."
)
METEOR_NLTK = Metric(
    "meteor_nltk",
    "METEOR by NLTK",
    CAPTIONS,
    better=1,
    meaning="METEOR as NLTK computes it; not comparable with METEOR.",
)


def meteor(images: Mapping[str, Captioned], nltk_data: Path | None = None) -> dict[str, Any]:
    """`metrics` and `per_image` of `METEOR`, or of `meteor_nltk` if the tool is missing, and the `tool`.

    `METEOR` needs Java and the package `pycocoevalcap`, which contains version 1.5 of the tool. `meteor_nltk` is NLTK's
    implementation of an older METEOR (no paraphrases, no function words, other constants), the mean over images: its
    values are not METEOR's and are never called so. It needs WordNet; `metrics/wordnet` says what is missing.
    """
    official = _official(images) if shutil.which("java") else None
    if official is not None:
        [metric] = intervals.score_with_intervals([METEOR], official, meteor_of_counts)
        each, tool = meteor_of_counts(official)[:, 0].tolist(), "METEOR 1.5 (Java, pycocoevalcap)"
    else:
        each, tool = _nltk(images, nltk_data), "nltk.translate.meteor_score"
        values = torch.tensor([[1.0] * len(each), each], dtype=torch.float64).mT
        [mean] = intervals.score_with_intervals([METEOR_NLTK], values, intervals.mean)
        metric = replace(mean, value=math.fsum(each) / len(each))
    return {
        "metrics": [metric],
        "per_image": {key: {metric.name: value} for key, value in zip(images, each, strict=True)},
        "tool": tool,
    }


def _official(images: Mapping[str, Captioned]) -> Float[Tensor, "n 23"] | None:
    """The tool's statistics of each image; None if the package is not installed."""
    try:
        from pycocoevalcap.meteor.meteor import Meteor
    except ImportError:
        return None
    tool = Meteor()
    try:
        lines = [tool._stat(image.caption, list(image.references)) for image in images.values()]
    finally:
        tool.meteor_p.stdin.close()
        tool.meteor_p.wait()
        tool.meteor_p.stdout.close()
        tool.meteor_p.stderr.close()
    counts = [list(map(float, line.split())) for line in lines]
    return torch.tensor(counts, dtype=torch.float64)


def meteor_of_counts(sums: Float[Tensor, "r 23"]) -> Float[Tensor, "r 1"]:
    """METEOR from sums of the tool's statistics: of a corpus, of resamples of it, or of single images.

    The statistics are: words of the caption and the reference, function words of both; for each kind of match the
    content words of the caption and the reference, then their function words; runs of matched words; matched words of
    both.

    Source: Denkowski and Lavie 2014, "Meteor Universal", section 2 (precision, recall, fragmentation penalty).
    """
    weights = torch.tensor(STAGES, dtype=sums.dtype)
    fractions = []
    for side in (0, 1):  # the caption, then the reference
        content = sums[:, 4 + side : 20 : 4] @ weights
        function = sums[:, 6 + side : 20 : 4] @ weights
        words, functions = sums[:, side], sums[:, 2 + side]
        matched = DELTA * content + (1 - DELTA) * function
        fractions.append(matched / (DELTA * (words - functions) + (1 - DELTA) * functions).clamp(min=1e-300))
    precision, recall = fractions
    mean = precision * recall / (ALPHA * precision + (1 - ALPHA) * recall).clamp(min=1e-300)
    runs, matched = sums[:, 20], (sums[:, 21] + sums[:, 22]) / 2
    whole = (runs == 1) & (sums[:, 21] == sums[:, 0]) & (sums[:, 22] == sums[:, 1])
    scattered = torch.where(whole, 0.0, runs / matched.clamp(min=1e-300))
    return (mean * (1 - GAMMA * scattered**BETA))[:, None]


def _nltk(images: Mapping[str, Captioned], nltk_data: Path | None) -> list[float]:
    from nltk.translate.meteor_score import meteor_score

    wordnet = open_wordnet(nltk_data)
    scores = []
    for image in images.values():
        references = [text.split() for text in image.references]
        scores.append(float(meteor_score(references, image.caption.split(), wordnet=wordnet)))
    return scores
