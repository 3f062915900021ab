"""How near a completed picture is to the original, over its hidden part alone: the known part is the original.

Pictures are in [-1, 1], masks are True where hidden. Each picture counts by its own hidden pixels, however many.
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.metrics.images import SMALLEST_ERROR, WINDOW, _blurred


def hidden_psnr(
    completed: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"], masks: Bool[Tensor, "b y x"]
) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each picture in decibels, at most 100; the error is the mean over hidden pixels."""
    errors = (completed.double() - reference.double()).div(2).square().mean(dim=1)
    return -10 * _mean(errors, masks).clamp(min=SMALLEST_ERROR).log10()


def hidden_ssim(
    completed: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"], masks: Bool[Tensor, "b y x"]
) -> Float[Tensor, " b"]:
    """Structural similarity of each picture, the mean over the windows whose middle pixel is hidden.

    Windows, constants and edges as in `images.ssim`: what lies within half a window of the picture's edge is the
    middle of none. A window at the rim of the hidden part holds known pixels too.
    """
    if min(reference.shape[-2:]) < WINDOW:
        raise UsageError(f"SSIM needs pictures of at least {WINDOW} x {WINDOW}; got {tuple(reference.shape[-2:])}.")
    edge = WINDOW // 2
    inner = masks[:, edge:-edge, edge:-edge]
    return _mean(_similarity(completed, reference).mean(dim=1), inner)


def _similarity(a: Float[Tensor, "b c y x"], b: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c u v"]:
    """Wang et al. 2004, eq. 13, at each window."""
    a, b = (images.double().add(1).div(2) for images in (a, b))
    mean_a, mean_b = _blurred(a), _blurred(b)
    variances = _blurred(a * a) + _blurred(b * b) - mean_a.square() - mean_b.square()
    covariance = _blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a.square() + mean_b.square() + c1)
    return luminance * (2 * covariance + c2) / (variances + c2)


def _mean(values: Float[Tensor, "b y x"], masks: Bool[Tensor, "b y x"]) -> Float[Tensor, " b"]:
    """Over what is hidden of each picture."""
    counts = masks.sum(dim=(1, 2))
    if not bool((counts > 0).all()):
        raise UsageError("A picture has no hidden pixel to be measured; leave it out, or hide something of it.")
    return torch.where(masks, values, 0).sum(dim=(1, 2)) / counts
