"""What the quantizers of several parts share: one index a part, and one value for the parts' losses."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from tavq.interfaces import Codebook, Loss, Losses


class PartSettings(NamedTuple):
    """What a quantizer of one part reads of its codebook's settings."""

    width: int
    parts: int = 1


def joined(indices: Sequence[Int[Tensor, "b h w"]]) -> Int[Tensor, "b h w *c"]:
    """The parts' indices along a last axis, which a codebook of one part does without."""
    return torch.stack(list(indices), 3) if len(indices) > 1 else indices[0]


def separated(indices: Int[Tensor, "b h w *c"], parts: int) -> list[Int[Tensor, "b h w"]]:
    """The indices of each part: the inverse of `joined`."""
    return list(indices.unbind(3)) if parts > 1 else [indices]


def mean_losses(losses: Sequence[Losses]) -> Losses:
    """Under each key the mean over all parts; a part that lacks it counts as 0, so that no part weighs more."""
    keys = {key: loss.weight for part in losses for key, loss in part.items()}
    return {
        key: Loss(torch.stack([part[key].value for part in losses if key in part]).sum() / len(losses), weight)
        for key, weight in keys.items()
    }


def means(codebook: Codebook) -> list[Float[Tensor, " d"]]:
    """The mean entry of each part."""
    return [part.mean(0) for part in codebook().split(codebook.sizes)]
