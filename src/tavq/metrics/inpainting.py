"""Completed images against the originals over the hidden part alone: the known part is the original itself.

Images are in [-1, 1], masks are True where hidden. Each image counts the same, however many of its pixels are hidden.
"""

from collections.abc import Sequence

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.nn.functional import interpolate

from tavq.core.errors import UsageError
from tavq.metrics.images import SMALLEST_ERROR, WINDOW, ssim_terms, to_unit_range
from tavq.nets.features.extractors import FeatureNetwork, unit_stages


def hidden_psnr(
    completed: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"], masks: Bool[Tensor, "b y x"]
) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in decibels, at most 100; the error is the mean over hidden pixels."""
    errors = (completed.double() - reference.double()).div(2).square().mean(dim=1)
    return -10 * _mean(errors, masks).clamp(min=SMALLEST_ERROR).log10()


def hidden_ssim(
    completed: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"], masks: Bool[Tensor, "b y x"]
) -> Float[Tensor, " b"]:
    """Structural similarity of each image, the mean over the windows whose middle pixel is hidden.

    Windows, constants and edges as in `images.ssim`: a pixel within half a window of the image's edge is the middle of
    no window. A window at the rim of the hidden part contains known pixels too.
    """
    if min(reference.shape[-2:]) < WINDOW:
        raise UsageError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW}; got {reference.shape[-1]} x {reference.shape[-2]}."
        )
    edge = WINDOW // 2
    inner = masks[:, edge:-edge, edge:-edge]
    luminance, structure = ssim_terms(to_unit_range(completed), to_unit_range(reference))
    return _mean((luminance * structure).mean(dim=1), inner)


@torch.no_grad()
def hidden_distance(
    network: FeatureNetwork,
    completed: Float[Tensor, "b 3 y x"],
    reference: Float[Tensor, "b 3 y x"] | Sequence[Tensor],
    masks: Bool[Tensor, "b y x"],
) -> Float[Tensor, " b"]:
    """How different the hidden part of each image looks to `network`: 0 for equal ones.

    As `nets.features.perceptual_distances`, but each stage's map of differences is resized to the images (bilinear)
    before hidden pixels are averaged, so that the known part does not lower the value. A feature near the rim of the
    hidden part sees known pixels too.

    Source: the maps are those of LPIPS' public code with `spatial=True`.

    Args:
        network: the feature network.
        completed: the completed images.
        reference: the originals, or their `unit_stages`.
        masks: True where hidden.
    """
    originals = unit_stages(network, reference) if isinstance(reference, Tensor) else reference
    total = torch.zeros(masks.shape, device=masks.device)
    for stage, (one, other) in enumerate(zip(unit_stages(network, completed), originals, strict=True)):
        squares = (one - other).square()
        if network.heads:
            squares = squares * network.heads[stage].view(1, -1, 1, 1)
        by_position = squares.sum(dim=1, keepdim=True)
        total += interpolate(by_position, masks.shape[1:], mode="bilinear", align_corners=False)[:, 0]
    return _mean(total.double() if network.heads else total.double() / len(originals), masks)


def _mean(values: Float[Tensor, "b y x"], masks: Bool[Tensor, "b y x"]) -> Float[Tensor, " b"]:
    """The mean over the hidden pixels of each image."""
    counts = masks.sum(dim=(1, 2))
    if not bool((counts > 0).all()):
        raise UsageError("An image has no hidden pixel to measure; leave the image out, or hide a part of it.")
    return torch.where(masks, values, 0).sum(dim=(1, 2)) / counts
