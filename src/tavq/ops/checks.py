"""Checks of tensors: images and indices that come in, and what networks give.

While torch.export traces, no value can be looked at, so that an exported network checks nothing.
"""

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from tavq.core.errors import TrainingError, UsageError
from tavq.ops.exporting import is_exporting

LARGEST_PIXEL = 8.0
"""Bound of a pixel's absolute value: images in [-1, 1] and noise stay below it, bytes 0 to 255 do not."""


def check_pixels(images: Tensor) -> None:
    """Raise UsageError for NaN, infinity, and numbers that are bytes rather than in [-1, 1]."""
    if is_exporting() or not images.numel():
        return
    low, high = (float(value) for value in torch.aminmax(images.detach()))
    if not (math.isfinite(low) and math.isfinite(high)):
        raise UsageError("Expected images in [-1, 1]; got values that are not finite (NaN or infinity).")
    if max(-low, high) > LARGEST_PIXEL:
        raise UsageError(
            f"Expected images in [-1, 1]; got values from {low:g} to {high:g}. Convert bytes with images / 127.5 - 1."
        )


def is_finite(values: Tensor) -> bool:
    """Whether no value is NaN or infinite."""
    # one pass that NaN goes through; on a CPU `isfinite().all()` takes twenty times as long
    return not values.numel() or bool(torch.stack(torch.aminmax(values.detach())).isfinite().all())


def require_finite(values: Tensor, what: str) -> Tensor:
    """The values as they are; TrainingError if one is NaN or infinite. `what` names them: "The decoder's images"."""
    if not is_exporting() and not is_finite(values):
        overflow = "" if values.dtype == torch.float32 else f", or overflow in {values.dtype} (try float32)"
        raise TrainingError(
            f"{what} are not finite (NaN or infinity): the weights are damaged, or training failed{overflow}. Use an "
            "earlier checkpoint, or train again."
        )
    return values


def check_range(parts: Sequence[Tensor], sizes: Sequence[int]) -> None:
    """Raise UsageError for an index that is no entry of its part of the codebook, which has `sizes` entries."""
    if is_exporting():
        return
    for part, size in zip(parts, sizes, strict=True):
        low, high = (int(part.min()), int(part.max())) if len(part) else (0, 0)
        if low < 0 or high >= size:
            raise UsageError(f"Indices {low} to {high} are out of range: the codebook has entries 0 to {size - 1}.")
