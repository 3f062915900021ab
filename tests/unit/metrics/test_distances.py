"""Distances between sets of images, against scipy, torchmetrics and values by hand."""

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor
from torchmetrics.image.fid import FrechetInceptionDistance

from tavq.metrics.distances import FeatureMoments, Gaussian, ImageSet, compare_image_sets, frechet_distance
from tavq.metrics.record import by_key
from tavq.nets.features.extractors import FeatureNetwork


class Averages(FeatureNetwork):
    """Channel means, and their products with a fixed matrix: a network whose features are known."""

    name = "averages"
    sha256 = "0" * 64

    def __init__(self, width: int) -> None:
        super().__init__()
        self.width = width
        self.num_features = width  # for torchmetrics
        self.register_buffer("matrix", torch.randn(3 * 16, width, generator=torch.Generator().manual_seed(0)))

    def stages(self, images: Tensor) -> list[Tensor]:
        return [
            (torch.nn.functional.adaptive_avg_pool2d(images.float(), 4).flatten(1) @ self.matrix + 3)[:, :, None, None]
        ]


def by_sqrtm(a: np.ndarray, b: np.ndarray) -> float:
    """The textbook form."""
    c, d = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    root = scipy.linalg.sqrtm(c @ d)
    return float(((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d - 2 * np.real(root)))


def images(count: int, seed: int) -> Tensor:
    return torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def changed(original: Tensor) -> Tensor:
    noise = torch.randn(original.shape, generator=torch.Generator().manual_seed(9))
    return (original * 0.8 + 0.1 * noise).clamp(-1, 1)


def seen(network: FeatureNetwork, image_set: Tensor, batch: int = 25) -> ImageSet:
    found = ImageSet(network)
    for start in range(0, len(image_set), batch):
        part = image_set[start : start + batch]
        found.update(part, [f"{start + place}.png" for place in range(len(part))])
    return found


def gaussian(rows: Tensor) -> Gaussian:
    moments = FeatureMoments(rows.shape[1])
    moments.update(rows)
    return moments.gaussian()


def test_frechet_distance_equals_the_matrix_square_root_form() -> None:
    network, original = Averages(10), images(60, 1)
    found = by_key(compare_image_sets(seen(network, changed(original)), seen(network, original)))
    expected = by_sqrtm(network(changed(original)).double().numpy(), network(original).double().numpy())
    assert expected > 0.05
    assert found["fd_averages"].value == pytest.approx(expected, rel=1e-6)
    assert found["fd_averages"].warning == ""


def test_frechet_distance_equals_torchmetrics() -> None:
    network, original = Averages(40), images(90, 1)
    other = FrechetInceptionDistance(feature=network, normalize=True, input_img_size=(3, 32, 32))
    small = changed(original[:70])
    other.update(original, real=True)
    other.update(small, real=False)
    found = by_key(compare_image_sets(seen(network, small), seen(network, original)))["fd_averages"].value
    assert found == pytest.approx(float(other.compute()), rel=1e-4)


@pytest.mark.parametrize(("rows", "offset", "scale"), [(200, 0, 1), (40, 0, 1), (64, 0, 1e-3), (200, 1000, 1)])
def test_frechet_distance_of_ill_conditioned_covariances(rows: int, offset: float, scale: float) -> None:
    """Fewer images than features, small features, a mean far from 0: within 1e-6 of scipy in float64."""
    random = np.random.default_rng(0)
    mixing = random.standard_normal((64, 64)) * np.logspace(0, -3, 64)
    a, b = (random.standard_normal((rows, 64)) @ mixing * scale * (1 + i / 5) + offset + i * scale for i in range(2))
    found = frechet_distance(*(gaussian(torch.from_numpy(x)) for x in (a, b)))
    # scipy's root of a product that is not of full rank is not to be trusted; of C^1/2 D C^1/2 it is
    c, d = np.cov(a, rowvar=False), np.cov(b, rowvar=False)
    values, vectors = np.linalg.eigh(c)
    root = vectors * np.sqrt(values.clip(0)) @ vectors.T
    inner = np.linalg.eigvalsh(root @ d @ root).clip(0)
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(c + d) - 2 * np.sqrt(inner).sum()
    assert found == pytest.approx(expected, rel=1e-6)
    if rows > 64:
        assert found == pytest.approx(by_sqrtm(a, b), rel=1e-6)


def test_distances_of_equal_sets() -> None:
    image_set = seen(Averages(10), images(40, 2))
    found = by_key(compare_image_sets(image_set, image_set))
    assert found["fd_averages"].value == pytest.approx(0, abs=1e-8)
    assert by_key(compare_image_sets(image_set, image_set.moments.gaussian()))["fd_averages"].value == pytest.approx(
        0, abs=1e-8
    )


def test_few_images_give_a_finite_distance_with_a_warning() -> None:
    network = Averages(10)
    one, two = seen(network, images(1, 3)), seen(network, images(2, 4))
    found = by_key(compare_image_sets(one, two))
    assert found["fd_averages"].value is None
    assert found["kid_averages"].value is None
    assert found["fd_averages"].warning.startswith("1 images for 10 features")
    found = by_key(compare_image_sets(two, seen(network, images(50, 5))))
    assert np.isfinite(found["fd_averages"].value)
    assert found["fd_averages"].warning.startswith("2 images for 10 features")
    assert found["kid_averages"].value is None


def test_a_gaussian_has_no_kernel_distance() -> None:
    network = Averages(3)
    found = by_key(compare_image_sets(seen(network, images(9, 3)), seen(network, images(9, 4)).moments.gaussian()))
    assert found["fd_averages"].value > 0
    assert found["kid_averages"].value is None
    assert found["kid_averages"].standard_error is None


def test_frechet_distance_of_commuting_gaussians_by_hand() -> None:
    # One shared axis: (3 - 0)^2 + (sqrt 4 - sqrt 1)^2; one flat axis of each: 0 + (sqrt 9 - 0)^2.
    a = Gaussian(9, torch.tensor([3.0, 0.0]).double(), torch.diag(torch.tensor([4.0, 9.0])).double())
    b = Gaussian(9, torch.tensor([0.0, 0.0]).double(), torch.diag(torch.tensor([1.0, 0.0])).double())
    assert frechet_distance(a, b) == pytest.approx(9 + 1 + 9)


def test_covariances_are_divided_by_n_minus_1() -> None:
    found = gaussian(torch.tensor([[1.0, 0.0], [3.0, 4.0]]))
    assert found.mean.tolist() == [2, 2]
    assert found.covariance.tolist() == [[2, 4], [4, 8]]


def test_merged_halves_equal_the_full_set() -> None:
    network, image_set, reference = Averages(2), images(12, 4), images(9, 5)
    whole = seen(network, image_set)
    left, right = ImageSet(network), ImageSet(network)
    left.update(image_set[7:], [f"{place}.png" for place in range(7, 12)])
    right.update(image_set[:7], [f"{place}.png" for place in range(7)])
    left.merge(right)
    left.join()  # alone it changes nothing
    assert torch.equal(left.sample.features, whole.sample.features)
    expected = by_key(compare_image_sets(whole, seen(network, reference)))
    found = by_key(compare_image_sets(left, seen(network, reference)))
    assert found["fd_averages"].value == pytest.approx(expected["fd_averages"].value)
    assert found["kid_averages"].value == expected["kid_averages"].value
