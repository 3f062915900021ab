"""How near two sets of pictures are to each other, by a network's features of them."""

import math
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.metrics.sums import Sums
from tavq.nets.features import FeatureNetwork


class FrechetDistance(Sums):
    """The Fréchet distance between Gaussians fitted to a network's features of reconstructions and of originals.

    This is FID's formula. It is FID only with FID's own Inception network, which no network here is, so the result
    is named after its network: `fd_scenes`, `fd_squeezenet`. Values under different names, or from different sizes
    of picture or numbers of pictures, are not comparable.

    Source: Heusel et al. 2017, "GANs trained by a two time-scale update rule", eq. 6 (|m - n|^2 + tr(C + D -
    2 (CD)^1/2)), covariances divided by count - 1.
    Differs from the paper: the trace of the root is taken as the sum of the singular values of C^1/2 D^1/2, which
    is the same number and never turns complex or negative.

    Memory: 2 (1 + f + f^2) float64 for f features, however many pictures.
    """

    def __init__(self, network: FeatureNetwork) -> None:
        self.network = network
        self.name = f"fd_{network.name}"
        self.width = network.width
        self.state = torch.zeros(2 * (1 + self.width + self.width**2), dtype=torch.float64)

    @torch.no_grad()
    def update(self, reconstruction: Float[Tensor, "b c y x"], reference: Float[Tensor, "b c y x"]) -> None:
        """Counts a batch of pictures with their originals."""
        for half, images in zip(self.state.chunk(2), (reconstruction, reference), strict=True):
            features = self.network(images).double().cpu()
            half[0] += len(features)
            half[1 : 1 + self.width] += features.sum(dim=0)
            half[1 + self.width :] += (features.mT @ features).flatten()

    def compute(self) -> dict[str, Any]:
        """`fd_<network>` (None for fewer than two pictures) and `fd_<network>_warning` (None when all is well)."""
        count = int(self.state[0])
        warning = None
        if count <= self.width:
            warning = (
                f"{count} pictures for {self.width} features: the covariances are not of full rank and the distance "
                f"is biased; use more than {self.width} pictures, or compare only equal numbers of pictures."
            )
        if count < 2:
            return {self.name: None, f"{self.name}_warning": warning}
        moments = [self._moments(half) for half in self.state.chunk(2)]
        return {self.name: frechet_distance(*moments[0], *moments[1]), f"{self.name}_warning": warning}

    def _moments(self, half: Float[Tensor, " n"]) -> tuple[Float[Tensor, " f"], Float[Tensor, "f f"]]:
        count, mean = half[0], half[1 : 1 + self.width] / half[0]
        second = half[1 + self.width :].view(self.width, self.width)
        return mean, (second - count * torch.outer(mean, mean)) / (count - 1)


def frechet_distance(
    mean_a: Float[Tensor, " f"],
    covariance_a: Float[Tensor, "f f"],
    mean_b: Float[Tensor, " f"],
    covariance_b: Float[Tensor, "f f"],
) -> float:
    """The squared Fréchet (2-Wasserstein) distance between two Gaussians; covariances may be singular."""
    root_a, root_b = _root(covariance_a), _root(covariance_b)
    cross = torch.linalg.svdvals(root_a @ root_b).sum()
    spread = covariance_a.trace() + covariance_b.trace() - 2 * cross
    distance = float((mean_a - mean_b).square().sum() + spread)
    assert math.isfinite(distance), "features were not finite"
    return max(distance, 0.0)


def _root(matrix: Float[Tensor, "f f"]) -> Float[Tensor, "f f"]:
    """The symmetric root of a positive semi-definite matrix; eigenvalues within rounding of zero count as zero."""
    values, vectors = torch.linalg.eigh((matrix + matrix.mT) / 2)
    floor = values.abs().max() * len(values) * torch.finfo(values.dtype).eps
    return (vectors * torch.where(values > floor, values, 0.0).sqrt()) @ vectors.mT
