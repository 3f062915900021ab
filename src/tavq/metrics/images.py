"""How near reconstructed images are to their originals, one by one: by pixels and by structure.

All images are in [-1, 1]. A decoder may leave that range; clamp first, as a saved image would be.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Any

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tavq.core.errors import UsageError
from tavq.metrics import intervals
from tavq.metrics.keyed import KeyedMetric

SMALLEST_ERROR = 1e-10
"""Mean squared error below which PSNR stops growing: identical images have 100 dB, not infinity."""

WINDOW = 11
"""Side of SSIM's Gaussian window."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM's five scales, fine to coarse."""

SMALLEST_MS_SSIM = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)

Measure = Callable[[Tensor, Tensor], Tensor]


def psnr(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Peak signal-to-noise ratio of each image in decibels, at most 100.

    The images are mapped to [0, 1], so the peak is 1; the error is the mean over pixels and channels.
    """
    error = (reconstruction.double() - reference.double()).div(2).square().mean(dim=(1, 2, 3))
    return -10 * error.clamp(min=SMALLEST_ERROR).log10()


def l1(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Mean absolute difference of each image over pixels and channels, on the scale [-1, 1] (0 to 2)."""
    return (reconstruction.double() - reference.double()).abs().mean(dim=(1, 2, 3))


def l2(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Mean squared difference of each image over pixels and channels, on the scale [-1, 1] (0 to 4)."""
    return (reconstruction.double() - reference.double()).square().mean(dim=(1, 2, 3))


def ssim(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Structural similarity of each image, averaged over channels, from -1 to 1.

    The images are mapped to [0, 1]. Gaussian window of 11 x 11 with sigma 1.5, K1 = 0.01, K2 = 0.03, population
    variances. Only windows that lie wholly inside the image count, so nothing is padded: the value is that of
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1)`, which pads and then drops the padded border.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment", eq. 13 and section III.B.
    """
    if min(reference.shape[-2:]) < WINDOW:
        raise UsageError(f"SSIM needs images of at least {WINDOW} x {WINDOW}; got {tuple(reference.shape[-2:])}.")
    luminance, structure = _likeness(_unit(reconstruction), _unit(reference))
    return (luminance * structure).mean(dim=(1, 2, 3))


def ms_ssim(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Structural similarity of each image at five scales, averaged over channels, from 0 to 1.

    SSIM's structure term at each scale, and its luminance term at the coarsest, to the power of the scale's weight; a
    term below 0 counts as 0. From scale to scale images are halved by the mean of 2 x 2 pixels; a last odd row or
    column is left out. Only images of 176 x 176 and more hold a window at the coarsest scale.

    Source: Wang, Simoncelli, Bovik 2003, "Multi-scale structural similarity for image quality assessment", eq. 7 and
    the weights of section 3.2.
    Differs from the paper: colours, whose channels' values are averaged as in TensorFlow's `ssim_multiscale`.
    """
    if min(reference.shape[-2:]) < SMALLEST_MS_SSIM:
        raise UsageError(
            f"MS-SSIM needs images of at least {SMALLEST_MS_SSIM} x {SMALLEST_MS_SSIM}; "
            f"got {tuple(reference.shape[-2:])}."
        )
    a, b = _unit(reconstruction), _unit(reference)
    value = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(SCALE_WEIGHTS, 1):
        luminance, structure = _likeness(a, b)
        last = scale == len(SCALE_WEIGHTS)
        term = (luminance * structure if last else structure).mean(dim=(2, 3))
        value = value * term.clamp(min=0) ** weight
        a, b = (a, b) if last else (avg_pool2d(a, 2), avg_pool2d(b, 2))
    return value.mean(dim=1)


def _unit(images: Float[Tensor, "b c y x"]) -> Float64[Tensor, "b c y x"]:
    """Images in [0, 1]; in float32 the variances of flat regions would drown in the rounding of two large terms."""
    return images.double().add(1).div(2)


def _likeness(
    a: Float64[Tensor, "b c y x"], b: Float64[Tensor, "b c y x"]
) -> tuple[Float64[Tensor, "b c u v"], Float64[Tensor, "b c u v"]]:
    """SSIM's luminance term and its structure term in each window."""
    mean_a, mean_b = _blurred(a), _blurred(b)
    variance_a = _blurred(a * a) - mean_a * mean_a
    variance_b = _blurred(b * b) - mean_b * mean_b
    covariance = _blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return luminance, (2 * covariance + c2) / (variance_a + variance_b + c2)


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


MEASURES: dict[str, Measure] = {"psnr": psnr, "ssim": ssim, "ms_ssim": ms_ssim, "l1": l1, "l2": l2}


class ImageScores(KeyedMetric):
    """`psnr`, `ssim`, `ms_ssim`, `l1`, `l2` and what else is asked for of every image, by key.

    Images below 176 x 176 have no `ms_ssim`.

    Args:
        others: measures by name, such as a learned distance.
    """

    def __init__(self, others: Mapping[str, Measure] | None = None) -> None:
        super().__init__()
        self.measures = {**MEASURES, **(others or {})}

    def update(
        self, keys: Sequence[str], reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]
    ) -> None:
        """Counts a batch of images."""
        large = min(reference.shape[-2:]) >= SMALLEST_MS_SSIM
        columns = {
            name: measure(reconstruction, reference).tolist()
            for name, measure in self.measures.items()
            if large or measure is not ms_ssim
        }
        for place, key in enumerate(keys):
            self._add(key, {name: column[place] for name, column in columns.items()})

    def compute(self) -> dict[str, dict[str, Any]]:
        """The mean over images under each measure's name (`value`, None where there is none) and its `interval`."""
        records = [record for _, record in self.ordered()]
        names = [name for name in self.measures if all(name in record for record in records)]
        rows = [[1.0, *(record[name] for name in names)] for record in records]
        statistics = torch.tensor(rows, dtype=torch.float64).view(-1, 1 + len(names))
        found = intervals.with_intervals(names, statistics, intervals.mean)
        return {name: found.get(name, {"value": None, "interval": None}) for name in self.measures}
