"""Random masks for masked prediction: how many tokens of a text are masked, and which."""

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

RATIO_MEAN, RATIO_STD, RATIO_LOW, RATIO_HIGH = 0.5, 0.1, 0.1, 0.3
"""The truncated Gaussian of LG-VQ's public code; its mean lies above its range, so almost all samples are near 0.3."""


IGNORED = -100
"""A target that cross-entropy leaves out."""


def sample_mask_ratios(count: int, device: torch.device) -> Float[Tensor, " b"]:
    """Sample the fraction of masked tokens for each text, from a truncated Gaussian by its inverse distribution."""
    bounds = torch.tensor([RATIO_LOW, RATIO_HIGH], dtype=torch.float64)  # on the CPU, which needs no copy of them
    low, high = torch.special.ndtr((bounds - RATIO_MEAN) / RATIO_STD)
    quantile = low + (high - low) * torch.rand(count, device=device)
    return (RATIO_MEAN + RATIO_STD * torch.special.ndtri(quantile)).float()


def mask_least_noise(
    noise: Float[Tensor, "b n"], present: Bool[Tensor, "b n"], count: Int[Tensor, " b"]
) -> Bool[Tensor, "b n"]:
    """Mask the `count` tokens of each text with the least noise (in [0, 1)); all tokens of a shorter text.

    `present` is False at padding, which is never masked.
    """
    rank = noise.masked_fill(~present, 2).argsort(dim=1, stable=True).argsort(dim=1)
    return present & (rank < count[:, None])
