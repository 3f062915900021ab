"""Gradients through the choice of an entry, which has none of its own."""

from typing import Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor


class StraightThrough(torch.autograd.Function):
    """The values of the entries, with the gradient of the features.

    `features + (entries - features).detach()` has the same gradient but rounds, so that decoding the indices would
    differ from the reconstruction in the last bits.

    Source: Bengio et al., Estimating or propagating gradients through stochastic neurons (2013).
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, entries: Tensor) -> Tensor:
        return entries.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0], None


class RotationTrick(torch.autograd.Function):
    """The values of the entries; the gradient is rotated and scaled as each feature f is to become its entry e.

    The rotation in the plane of f and e is R = I - 2 r rᵀ + 2 ê f̂ᵀ, with r the unit vector along f̂ + ê. Applying
    |e|/|f| Rᵀ to a gradient g takes five dot products a position and no matrix:
    with c = (f̂ + ê)·g / (1 + f̂·ê) it is |e|/|f| (g + (2 ê·g - c) f̂ - c ê).

    Source: the rotation trick (Fifty et al., 2024), §4.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, entries: Tensor) -> Tensor:
        ctx.save_for_backward(features, entries)
        return entries.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        features, entries = ctx.saved_tensors
        (gradient,) = gradients
        feature_norm, entry_norm = (
            torch.linalg.vector_norm(value, dim=1, keepdim=True) for value in (features, entries)
        )
        rotates = feature_norm > 1e-12  # a feature of length 0 has no direction: its gradient goes straight through
        feature_norm, per_entry = feature_norm.clamp(min=1e-12), 1 / entry_norm.clamp(min=1e-12)
        along_feature, along_entry = _dot(features, gradient) / feature_norm, _dot(entries, gradient) * per_entry
        cosine = _dot(features, entries) / feature_norm * per_entry
        common = (along_feature + along_entry) / (1 + cosine).clamp(min=1e-6)  # of opposite vectors r is arbitrary
        scale = torch.where(rotates, entry_norm / feature_norm, 1)
        rotated = gradient * scale
        rotated.addcmul_(features, (rotates * scale * (2 * along_entry - common) / feature_norm))
        return rotated.addcmul_(entries, rotates * -scale * common * per_entry), None


def _dot(a: Tensor, b: Tensor) -> Tensor:
    return torch.linalg.vecdot(a, b, dim=1).unsqueeze(1)


GradientEstimator = Literal["straight-through", "rotation"]
"""How the decoder's gradient reaches the features: unchanged, or by the rotation trick."""

ESTIMATORS = {"straight-through": StraightThrough, "rotation": RotationTrick}

GradientTarget = Literal["encoder", "codebook", "both"]
"""What a loss on a quantized grid trains: the encoder (straight through), the chosen entries, or both."""


def route_gradient(
    quantized: Float[Tensor, "b d h w"], entries: Float[Tensor, "b d h w"], target: GradientTarget
) -> Float[Tensor, "b d h w"]:
    """A quantized grid whose gradient goes to `target`; `quantized` and `entries` are those of `Quantized`."""
    if target == "encoder":
        return quantized
    if target == "codebook":
        return entries
    return entries + (quantized - quantized.detach())  # the difference is 0 and carries the encoder's gradient
