"""How near reconstructed pictures are to their originals, one by one: by pixels and by structure.

All pictures are in [-1, 1]. A decoder may leave that range; clamp first, as a saved picture would be.
"""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.metrics import intervals
from tavq.metrics.collected import Collected

SMALLEST_ERROR = 1e-10
"""Mean squared error below which PSNR stops growing: identical pictures have 100 dB, not infinity."""

WINDOW = 11
"""Side of SSIM's Gaussian window."""


def psnr(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each picture in decibels, at most 100.

    The pictures are mapped to [0, 1], so the peak is 1; the error is the mean over pixels and channels.
    """
    error = (reconstruction.double() - reference.double()).div(2).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=SMALLEST_ERROR).log10()


def l1(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Mean absolute difference of each picture over pixels and channels, on the scale [-1, 1] (0 to 2)."""
    return (reconstruction.double() - reference.double()).abs().mean(dim=(1, 2, 3))


def l2(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Mean squared difference of each picture over pixels and channels, on the scale [-1, 1] (0 to 4)."""
    return (reconstruction.double() - reference.double()).square().mean(dim=(1, 2, 3))


def ssim(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Structural similarity of each picture, averaged over channels, from -1 to 1.

    The pictures are mapped to [0, 1]. Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population
    variances. Only windows that lie wholly inside the picture count, so nothing is padded: the value is that of
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1)`, which pads and then drops the padded border.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment", eq. 13 and section III.B.
    """
    if min(reference.shape[-2:]) < WINDOW:
        raise UsageError(f"SSIM needs pictures of at least {WINDOW} x {WINDOW}; got {tuple(reference.shape[-2:])}.")
    # In float32 the variances of flat regions would drown in the rounding of their two large terms.
    a, b = (images.double().add(1).div(2) for images in (reconstruction, reference))
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance_a = _blurred(a * a) - mean_a * mean_a
    variance_b = _blurred(b * b) - mean_b * mean_b
    covariance = _blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    structure = (2 * covariance + c2) / (variance_a + variance_b + c2)
    return (luminance * structure).mean(dim=(1, 2, 3))


def _blurred(images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c u v"]:
    """Gaussian means of all windows that lie inside; a matrix product, as float64 convolutions are slow."""
    y, x = images.shape[-2:]
    return _windows(y).to(images.device) @ images @ _windows(x).to(images.device).mT


@lru_cache(maxsize=16)
def _windows(extent: int) -> Float[Tensor, "u y"]:
    """Row i holds the Gaussian window that starts at position i."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    starts = extent - WINDOW + 1
    rows = torch.zeros(starts, extent, dtype=torch.float64)
    for i in range(starts):
        rows[i, i : i + WINDOW] = window / window.sum()
    return rows


MEASURES = (psnr, ssim, l1, l2)


class PictureScores(Collected):
    """`psnr`, `ssim`, `l1` and `l2` of every picture, by key."""

    def update(
        self, keys: Sequence[str], reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]
    ) -> None:
        """Counts a batch of pictures."""
        values = torch.stack([measure(reconstruction, reference) for measure in MEASURES], dim=1)
        for key, row in zip(keys, values.tolist(), strict=True):
            self._add(key, row)

    def compute(self) -> dict[str, dict[str, Any]]:
        """The mean over pictures under each measure's name (`value`, None without a picture) and its `interval`."""
        names = [measure.__name__ for measure in MEASURES]
        rows = [[1.0, *row] for _, row in self.ordered()]
        statistics = torch.tensor(rows, dtype=torch.float64).view(-1, 1 + len(names))
        return intervals.with_intervals(names, statistics, intervals.mean)
