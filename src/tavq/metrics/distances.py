"""Distances between two sets of images in the features of a network: Fréchet and kernel distance."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float, Float64
from torch import Tensor

from tavq.core.errors import DataError
from tavq.metrics.images import RECONSTRUCTION
from tavq.metrics.kernel import kernel_distance
from tavq.metrics.record import Metric
from tavq.metrics.sample import BottomKSample
from tavq.metrics.sums import SumMetric
from tavq.nets.features.extractors import FeatureNetwork


@dataclass(frozen=True)
class Gaussian:
    """Mean and covariance of the features of `count` images."""

    count: int
    mean: Float64[Tensor, " f"]
    covariance: Float64[Tensor, "f f"]


class FeatureMoments(SumMetric):
    """Count, sum and second moment of features.

    Memory: 1 + f + f^2 float64 for f features.
    """

    def __init__(self, width: int) -> None:
        self.width = width
        self.state = torch.zeros(1 + width + width**2, dtype=torch.float64)

    def update(self, features: Float[Tensor, "b f"]) -> None:
        """Adds a batch of images."""
        features = features.double().cpu()
        self.state[0] += len(features)
        self.state[1 : 1 + self.width] += features.sum(dim=0)
        self.state[1 + self.width :] += (features.mT @ features).flatten()

    @property
    def count(self) -> int:
        """Images added so far."""
        return int(self.state[0])

    def gaussian(self) -> Gaussian:
        """Mean and covariance (divided by count - 1) of two images or more."""
        count, mean = self.state[0], self.state[1 : 1 + self.width] / self.state[0]
        second = self.state[1 + self.width :].view(self.width, self.width)
        return Gaussian(self.count, mean, (second - count * torch.outer(mean, mean)) / (count - 1))


class ImageSet:
    """The statistics of a set of images from which its distances to other sets are computed.

    Two processes that saw one half of a set each have together the same as one process (`join`), up to rounding.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        self.network = network
        self.moments = FeatureMoments(network.width)
        self.sample = BottomKSample(network.width)

    @torch.no_grad()
    def update(self, images: Float[Tensor, "b 3 y x"], keys: Sequence[str]) -> None:
        """Adds a batch of images in [-1, 1]; `keys` identify them."""
        features = self.network(images)
        self.moments.update(features)
        self.sample.update(features, keys)

    def merge(self, other: "ImageSet") -> None:
        """Adds the images of another set."""
        self.moments.merge(other.moments)
        self.sample.merge(other.sample)

    def join(self) -> None:
        """Adds the images of all processes, in each of them; without other processes nothing changes."""
        self.moments.join()
        self.sample.join()


COMPARABLE = "Comparable only between equal numbers of images of one size."


def compare_image_sets(images: ImageSet, reference: ImageSet | Gaussian) -> list[Metric]:
    """The distances of two sets in the features of one network, which the names say: `fd_scenes`, `kid_scenes`.

    - `fd_NETWORK`: the Fréchet distance; None for fewer than two images in a set. It carries a warning where it is
      biased.
    - `kid_NETWORK`: the kernel distance (`metrics.kernel`) with its standard error; None for fewer than four images
      in a set, or where only mean and covariance of the reference are known.

    `fid` and `kid` are the distances in FID's own network with its published weights, which makes them the published
    metrics (Heusel et al. 2017; Bińkowski et al. 2018). Values with other names, or of images that differ in size or
    number, are not comparable with them or with each other.
    """
    other = reference if isinstance(reference, Gaussian) else reference.moments
    kernel, error = None, None
    if min(images.moments.count, other.count) >= 4 and isinstance(reference, ImageSet):
        kernel, error = kernel_distance(images.sample.features, reference.sample.features)
    frechet = compare_moments(images.network, images.moments, other)
    return [frechet, kernel_metric(images.network).measured(kernel, standard_error=error)]


def compare_moments(network: FeatureNetwork, images: FeatureMoments, reference: FeatureMoments | Gaussian) -> Metric:
    """The Fréchet distance alone, of sets whose moments in the features of `network` are known.

    None for fewer than two images in a set; with a warning where it is biased.
    """
    counts, value = [images.count, reference.count], None
    if min(counts) >= 2:
        other = reference if isinstance(reference, Gaussian) else reference.gaussian()
        value = frechet_distance(images.gaussian(), other)
    return frechet_metric(network).measured(value, warning=_warning(counts, network.width))


def frechet_metric(network: FeatureNetwork) -> Metric:
    """What the Fréchet distance in the features of `network` is called: FID with FID's own weights only."""
    name = network.metric_name("fd")
    published = name == "fid"
    meaning = f"Distance between two sets of images, as Gaussians of the features of the network {network.name!r}. "
    meaning += f"{'' if published else 'Not FID, which needs its own network. '}{COMPARABLE}"
    title = "FID" if published else f"Fréchet distance ({network.name})"
    return Metric(name, title, RECONSTRUCTION, better=-1, meaning=meaning, main=True)


def kernel_metric(network: FeatureNetwork) -> Metric:
    """What the kernel distance in the features of `network` is called: KID with FID's own weights only."""
    name = network.metric_name("kid")
    title = "KID" if name == "kid" else f"Kernel distance ({network.name})"
    meaning = "Squared maximum mean discrepancy of the same features; unbiased, so it may be below 0."
    return Metric(name, title, RECONSTRUCTION, better=-1, meaning=meaning)


def _warning(counts: Sequence[int], width: int) -> str:
    count = min(counts)
    if count > width:
        return ""
    return (
        f"{count} images for {width} features: the covariances do not have full rank, so the distance is biased; use "
        f"more than {width} images, or compare only equal numbers of images."
    )


def frechet_distance(a: Gaussian, b: Gaussian) -> float:
    """The squared Fréchet (2-Wasserstein) distance between two Gaussians; covariances may be singular.

    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6 (|m - n|^2 + tr(C + D -
    2 (CD)^1/2)), covariances divided by count - 1.
    Differs from the paper: with C = R R^T and D = S S^T the trace of the root is the sum of the singular values of
    R^T S, which is the same number and never turns complex or negative.

    Time O(f^3): about 15 s for 2,048 features on one core, a third of it where images are few.
    """
    if not all(bool(part.isfinite().all()) for one in (a, b) for part in (one.mean, one.covariance)):
        raise DataError("The features of some images are not finite, so the distance is undefined.")
    cross = torch.linalg.svdvals(_factor(a.covariance).mT @ _factor(b.covariance)).sum()
    covariances = a.covariance.trace() + b.covariance.trace() - 2 * cross
    distance = float((a.mean - b.mean).square().sum() + covariances)
    return max(distance, 0.0)


def _factor(matrix: Float64[Tensor, "f f"]) -> Float64[Tensor, "f r"]:
    """A factor of a positive semi-definite matrix, as wide as its rank: eigenvalues near 0 are dropped."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    present = values > values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return vectors[:, present] * values[present].sqrt()
