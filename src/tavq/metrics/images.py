"""Reconstructed images against their originals, one by one: PSNR, SSIM, MS-SSIM, L1 and L2.

All images are in [-1, 1]. A decoder may leave that range; clamp its output first, as saving an image would.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import torch
from jaxtyping import Float, Float64
from torch import Tensor
from torch.nn.functional import avg_pool2d

from tavq.core.errors import UsageError
from tavq.metrics import intervals
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.record import Group, Metric
from tavq.nets.features.extractors import FeatureNetwork

SMALLEST_ERROR = 1e-10
"""Mean squared error below which PSNR stops growing: identical images have 100 dB, not infinity."""

WINDOW = 11
"""Side of SSIM's Gaussian window."""

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Of MS-SSIM's five scales, fine to coarse."""

SMALLEST_MS_SSIM = WINDOW * 2 ** (len(SCALE_WEIGHTS) - 1)

Score = Callable[[Tensor, Tensor], Tensor]
"""From reconstructions and their originals to one number an image."""

RECONSTRUCTION = Group("reconstruction", "Reconstruction", "Each reconstruction against its original.")

PSNR = Metric(
    "psnr",
    "PSNR",
    RECONSTRUCTION,
    better=1,
    meaning="Peak signal-to-noise ratio of the reconstruction: fidelity of single pixels.",
    decimals=2,
    unit="dB",
    main=True,
)
SSIM = Metric(
    "ssim",
    "SSIM",
    RECONSTRUCTION,
    better=1,
    meaning="Structural similarity, 1 for identical images: local contrast and structure, not colour.",
    main=True,
)
MS_SSIM = Metric(
    "ms_ssim",
    "MS-SSIM",
    RECONSTRUCTION,
    better=1,
    meaning="Structural similarity at five scales; for images of at least 176 pixels.",
)
L1 = Metric(
    "l1",
    "L1",
    RECONSTRUCTION,
    better=-1,
    meaning="Mean absolute error of pixel values from -1 to 1.",
    decimals=4,
    main=True,
)
L2 = Metric(
    "l2",
    "L2",
    RECONSTRUCTION,
    better=-1,
    meaning="Mean squared error of pixel values from -1 to 1; PSNR is a logarithm of it, taken per image.",
    decimals=4,
)


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
    variances. Only windows entirely inside the image count, so nothing is padded: the value is that of
    scikit-image's `structural_similarity(gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1)`, which pads and then drops the padded border.

    Source: Wang, Bovik, Sheikh, Simoncelli 2004, "Image quality assessment", eq. 13 and section III.B.
    """
    if min(reference.shape[-2:]) < WINDOW:
        raise UsageError(
            f"SSIM needs images of at least {WINDOW} x {WINDOW}; got {reference.shape[-1]} x {reference.shape[-2]}."
        )
    luminance, structure = ssim_terms(to_unit_range(reconstruction), to_unit_range(reference))
    return (luminance * structure).mean(dim=(1, 2, 3))


def ms_ssim(reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> Float[Tensor, " b"]:
    """Structural similarity of each image at five scales, averaged over channels, from 0 to 1.

    SSIM's structure term at each scale, and its luminance term at the coarsest, to the power of the scale's weight; a
    term below 0 counts as 0. From scale to scale images are halved by the mean of 2 x 2 pixels; an odd last row or
    column is left out. Only images of 176 x 176 and more contain a window at the coarsest scale.

    Source: Wang, Simoncelli, Bovik 2003, "Multi-scale structural similarity for image quality assessment", eq. 7 and
    the weights of section 3.2.
    Differs from the paper: colours, whose channels' values are averaged as in TensorFlow's `ssim_multiscale`.
    """
    if min(reference.shape[-2:]) < SMALLEST_MS_SSIM:
        raise UsageError(
            f"MS-SSIM needs images of at least {SMALLEST_MS_SSIM} x {SMALLEST_MS_SSIM}; "
            f"got {reference.shape[-1]} x {reference.shape[-2]}."
        )
    a, b = to_unit_range(reconstruction), to_unit_range(reference)
    value = torch.ones(a.shape[:2], dtype=a.dtype, device=a.device)
    for scale, weight in enumerate(SCALE_WEIGHTS, 1):
        luminance, structure = ssim_terms(a, b)
        last = scale == len(SCALE_WEIGHTS)
        term = (luminance * structure if last else structure).mean(dim=(2, 3))
        value = value * term.clamp(min=0) ** weight
        a, b = (a, b) if last else (avg_pool2d(a, 2), avg_pool2d(b, 2))
    return value.mean(dim=1)


def to_unit_range(images: Float[Tensor, "b c y x"]) -> Float64[Tensor, "b c y x"]:
    """Images in [0, 1] as float64: in float32, rounding would exceed the variances of flat regions."""
    return images.double().add(1).div(2)


def ssim_terms(
    a: Float64[Tensor, "b c y x"], b: Float64[Tensor, "b c y x"]
) -> tuple[Float64[Tensor, "b c u v"], Float64[Tensor, "b c u v"]]:
    """SSIM's luminance term and its structure term in each window."""
    mean_a, mean_b = gaussian_means(a), gaussian_means(b)
    variance_a = gaussian_means(a * a) - mean_a * mean_a
    variance_b = gaussian_means(b * b) - mean_b * mean_b
    covariance = gaussian_means(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    luminance = (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1)
    return luminance, (2 * covariance + c2) / (variance_a + variance_b + c2)


def gaussian_means(images: Float[Tensor, "b c y x"]) -> Float[Tensor, "b c u v"]:
    """Gaussian means of all windows inside the image; a matrix product, as float64 convolutions are slow."""
    y, x = images.shape[-2:]
    return _gaussian_windows(y).to(images.device) @ images @ _gaussian_windows(x).to(images.device).mT


@lru_cache(maxsize=16)
def _gaussian_windows(extent: int) -> Float[Tensor, "u y"]:
    """Row i is the Gaussian window that starts at position i."""
    offsets = torch.arange(WINDOW, dtype=torch.float64) - WINDOW // 2
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    starts = extent - WINDOW + 1
    rows = torch.zeros(starts, extent, dtype=torch.float64)
    for i in range(starts):
        rows[i, i : i + WINDOW] = window / window.sum()
    return rows


SCORES: dict[Metric, Score] = {PSNR: psnr, SSIM: ssim, MS_SSIM: ms_ssim, L1: l1, L2: l2}


def perceptual_metric(network: FeatureNetwork) -> Metric:
    """The metric of the distance of image pairs in the features of `network`: LPIPS with the published weights only."""
    name = network.metric_name("distance")
    published = name.startswith("lpips_")
    title = f"{'LPIPS' if published else 'Perceptual distance'} ({name.partition('_')[2]})"
    return Metric(
        name,
        title,
        RECONSTRUCTION,
        better=-1,
        meaning="Mean distance of images from their originals in a network's features"
        + (", weighted to match human judgements." if published else "."),
        decimals=4,
        main=published,
    )


class ImageScores(KeyedMetric):
    """PSNR, SSIM, MS-SSIM, L1, L2 and any other scores of every image, by key.

    Images below 176 x 176 have no MS-SSIM.

    Args:
        others: further scores, such as a learned distance.
    """

    def __init__(self, others: Mapping[Metric, Score] | None = None) -> None:
        super().__init__()
        self.scores = {**SCORES, **(others or {})}

    def update(
        self, keys: Sequence[str], reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]
    ) -> None:
        """Adds a batch of images."""
        large = min(reference.shape[-2:]) >= SMALLEST_MS_SSIM
        columns = {
            metric.name: score(reconstruction, reference).tolist()
            for metric, score in self.scores.items()
            if large or metric is not MS_SSIM
        }
        for row, key in enumerate(keys):
            self._add(key, {name: column[row] for name, column in columns.items()})

    def compute(self) -> list[Metric]:
        """The mean of each score over images, with its interval; None where there is none."""
        records = [record for _, record in self.ordered()]
        metrics = [metric for metric in self.scores if all(metric.name in record for record in records)]
        names = [metric.name for metric in metrics]
        rows = [[1.0, *map(record.__getitem__, names)] for record in records]
        statistics = torch.tensor(rows, dtype=torch.float64).view(-1, 1 + len(metrics))
        means = intervals.score_with_intervals(metrics, statistics, intervals.mean)
        found = {metric.name: metric for metric in means}
        return [found.get(metric.name, metric) for metric in self.scores]
