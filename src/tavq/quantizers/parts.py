"""Shared by quantizers of several parts: one index a part, and losses averaged or added over the parts."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.interfaces import Codebook, Loss, Losses


class PartSettings(NamedTuple):
    """The codebook settings that a quantizer of one part reads."""

    width: int
    parts: int = 1


def join_parts(indices: Sequence[Int[Tensor, "b h w"]]) -> Int[Tensor, "b h w *c"]:
    """Stack the indices of the parts along a last axis, which a codebook of one part does not have."""
    return torch.stack(list(indices), 3) if len(indices) > 1 else indices[0]


def separate_parts(indices: Int[Tensor, "b h w *c"], parts: int) -> list[Int[Tensor, "b h w"]]:
    """Split indices into those of each part, the inverse of `join_parts`."""
    return list(indices.unbind(3)) if parts > 1 else [indices]


def average_losses(losses: Sequence[Losses]) -> Losses:
    """Average losses over the parts, by key; a part without a key counts as 0, so that all parts weigh the same."""
    return {key: Loss(loss.value / len(losses), loss.weight) for key, loss in add_losses(losses).items()}


def add_losses(losses: Sequence[Losses]) -> Losses:
    """Add losses over the parts, by key."""
    values: dict[str, list[Tensor]] = {}
    weights: dict[str, float | Tensor] = {}
    for part in losses:
        for key, loss in part.items():
            values.setdefault(key, []).append(loss.value)
            weights[key] = loss.weight
    return {key: Loss(torch.stack(values[key]).sum(), weight) for key, weight in weights.items()}


def mean_entries(codebook: Codebook) -> list[Float[Tensor, " d"]]:
    """The mean entry of each part."""
    return [part.mean(0) for part in codebook().split(codebook.sizes)]
