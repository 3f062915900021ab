"""Whether drawn images show what their texts say: how well an image finds its own text among all."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.metrics import intervals
from tavq.metrics.alignment import RECALLS, ranks

AMONG = 100
"""Texts of an R-precision, an image's own one among them."""


def text_retrieval(images: Float[Tensor, "n e"], texts: Float[Tensor, "n e"]) -> dict[str, dict[str, Any]]:
    """`value` and `interval` over images of how well each image finds its text; row i of both belongs together.

    - `text_recall@1`, `@5`, `@10`: how often its own is among the first of all n texts by dot product; chance is k / n.
    - `text_r_precision`: how often its own is the first among 100, the 99 others drawn from the n; chance is 0.01. None
      where there are fewer texts.

    Ties count against the image (`alignment.ranks`).

    Source: R-precision as in Xu et al. 2018, "AttnGAN", section 4, with R = 1.
    Differs from the paper: its mean over all draws of the 99 others, in closed form, instead of one draw.
    """
    before = ranks(images.double(), texts.double()).double() - 1
    count = len(before)
    columns = {f"text_recall@{k}": (before < k).double() for k in RECALLS}
    if count >= AMONG:
        columns["text_r_precision"] = _none_drawn(before, count - 1)
    statistics = torch.stack([torch.ones_like(before), *columns.values()], dim=1)
    found = intervals.with_intervals(list(columns), statistics, intervals.mean)
    return {"text_r_precision": {"value": None, "interval": None}, **found}


def _none_drawn(before: Float[Tensor, " n"], others: int) -> Float[Tensor, " n"]:
    """The chance that 99 of the others hold none of those that stand before the own text."""
    drawn = torch.arange(AMONG - 1, dtype=before.dtype, device=before.device)
    left = (others - before[:, None] - drawn).clamp(min=0)
    return (left / (others - drawn)).prod(dim=1)
