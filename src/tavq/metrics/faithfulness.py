"""Whether generated images show what their texts say: how well an image finds its own text among all."""

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.alignment import RECALLS, ranks
from tavq.metrics.record import Group, Metric

AMONG = 100
"""Texts among which R-precision looks for an image's own."""


FAITHFULNESS = Group(
    "faithfulness",
    "Do images show what their texts say?",
    "Each image retrieves its own text among all texts of the split, in the space of an aligned tokenizer.",
)
R_PRECISION = Metric(
    "text_r_precision",
    "R-precision among 100 texts",
    FAITHFULNESS,
    better=1,
    meaning="How often an image's own text ranks first among 100; chance is 1 %.",
    percent=True,
    main=True,
)


def score_text_retrieval(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> list[Metric]:
    """How well each image finds its text, with intervals over images; row i of both belongs together.

    - `text_recall@1`, `@5`, `@10`: how often its own is among the first of all n texts by dot product; chance is k / n.
    - `text_r_precision`: how often its own is the first among 100, the 99 others drawn from the n; chance is 0.01. None
      where there are fewer texts.

    Ties count against the image (`alignment.ranks`).

    Source: R-precision as in Xu et al. 2018, "AttnGAN", section 4, with R = 1.
    Differs from the paper: its mean over all draws of the 99 others, in closed form, instead of one draw.
    """
    before = ranks(images.double(), texts.double()).double() - 1
    count = len(before)
    columns = {_recall(k): (before < k).double() for k in RECALLS}
    if count >= AMONG:
        columns[R_PRECISION] = _probability_first(before, count - 1)
    statistics = torch.stack([torch.ones_like(before), *columns.values()], dim=1)
    found = intervals.score_with_intervals(list(columns), statistics, intervals.mean)
    return found if R_PRECISION in columns else [*found, R_PRECISION]


def _recall(k: int) -> Metric:
    return Metric(
        f"text_recall@{k}",
        "Own text ranks first" if k == 1 else f"Own text among the first {k}",
        FAITHFULNESS,
        better=1,
        meaning="Fraction of the images whose own text ranks that high.",
        percent=True,
        main=k == 1,
    )


def _probability_first(before: Float[Tensor, " n"], others: int) -> Float[Tensor, " n"]:
    """The probability that 99 of the other texts, drawn at random, include none that rank before the image's own."""
    drawn = torch.arange(AMONG - 1, dtype=before.dtype, device=before.device)
    left = (others - before[:, None] - drawn).clamp(min=0)
    return (left / (others - drawn)).prod(dim=1)
