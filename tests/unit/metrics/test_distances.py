"""Distances between sets of pictures, against scipy and values by hand."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor

from tavq.metrics.distances import FrechetDistance, frechet_distance
from tavq.nets.features import FeatureNetwork


class Averages(FeatureNetwork):
    """Channel means, and their products with a fixed matrix: a network whose features are known."""

    name = "averages"
    sha256 = "0" * 64

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.register_buffer("matrix", torch.randn(3 * 16, width, generator=torch.Generator().manual_seed(0)))

    def forward(self, images: Tensor) -> Tensor:
        return torch.nn.functional.adaptive_avg_pool2d(images, 4).flatten(1) @ self.matrix + 3


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook form."""
    c, d = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c @ d)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * np.real(root)))


def test_frechet_distance_equals_the_matrix_square_root_form() -> None:
    network = Averages(10)
    generator = torch.Generator().manual_seed(1)
    original = torch.rand(60, 3, 32, 32, generator=generator) * 2 - 1
    changed = (original * 0.8 + 0.1 * torch.randn(original.shape, generator=generator)).clamp(-1, 1)
    distance = FrechetDistance(network)
    for start in range(0, 60, 25):
        distance.update(changed[start : start + 25], original[start : start + 25])
    expected = by_sqrtm(network(changed).double().numpy(), network(original).double().numpy())
    assert expected > 0.05
    assert distance.compute() == {"fd_averages": pytest.approx(expected, rel=1e-4), "fd_averages_warning": None}


def test_frechet_distance_of_equal_sets_is_zero() -> None:
    distance = FrechetDistance(Averages(10))
    images = torch.rand(40, 3, 32, 32, generator=torch.Generator().manual_seed(2)) * 2 - 1
    distance.update(images, images)
    assert distance.compute()["fd_averages"] == pytest.approx(0, abs=1e-8)


def test_frechet_distance_of_few_pictures_is_finite_and_says_so() -> None:
    distance = FrechetDistance(Averages(10))
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(3)) * 2 - 1
    distance.update(images[:1], images[1:2])
    assert distance.compute()["fd_averages"] is None
    distance.update(images[2:3], images[3:])
    result = distance.compute()
    assert np.isfinite(result["fd_averages"])
    assert result["fd_averages_warning"].startswith("2 pictures for 10 features")


def test_frechet_distance_of_commuting_gaussians_by_hand() -> None:
    # One shared axis: (3 - 0)^2 + (sqrt 4 - sqrt 1)^2; one flat axis of each: 0 + (sqrt 9 - 0)^2.
    distance = frechet_distance(
        torch.tensor([3.0, 0.0]).double(),
        torch.diag(torch.tensor([4.0, 9.0])).double(),
        torch.tensor([0.0, 0.0]).double(),
        torch.diag(torch.tensor([1.0, 0.0])).double(),
    )
    assert distance == pytest.approx(9 + 1 + 9)


def test_halves_merge_to_the_whole() -> None:
    changed, original = torch.rand(2, 6, 3, 40, 40, generator=torch.Generator().manual_seed(4)) * 2 - 1
    whole, left, right = (FrechetDistance(Averages(2)) for _ in range(3))
    whole.update(changed, original)
    left.update(changed[:2], original[:2])
    right.update(changed[2:], original[2:])
    left.merge(right)
    assert left.compute() == pytest.approx(whole.compute())
