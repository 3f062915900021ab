"""Picture metrics against scikit-image, scipy and values by hand."""

import numpy as np
import pytest
import scipy.linalg
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.metrics.images import FrechetDistance, PictureMean, frechet_distance, l1, l2, psnr, ssim
from tavq.nets.features import FeatureNetwork


def pictures(count: int = 3, y: int = 37, x: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth originals and noisy copies in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 2 - 1
    original = torch.nn.functional.interpolate(coarse, (y, x), mode="bilinear")
    noise = torch.randn(original.shape, generator=generator) * torch.tensor([0.02, 0.1, 0.5])[:count, None, None, None]
    return (original + noise).clamp(-1, 1), original


def unit(image: Tensor) -> np.ndarray:
    return ((image.double() + 1) / 2).permute(1, 2, 0).numpy()


def test_psnr_equals_scikit_image() -> None:
    noisy, original = pictures()
    expected = [peak_signal_noise_ratio(unit(b), unit(a), data_range=1) for a, b in zip(noisy, original, strict=True)]
    assert psnr(noisy, original).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("y", "x"), [(37, 50), (11, 11), (64, 12)])
def test_ssim_equals_scikit_image(y: int, x: int) -> None:
    noisy, original = pictures(y=y, x=x)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        structural_similarity(unit(a), unit(b), channel_axis=-1, **options)
        for a, b in zip(noisy, original, strict=True)
    ]
    assert ssim(noisy, original).tolist() == pytest.approx(expected, abs=1e-9)


def test_ssim_of_flat_float32_pictures_is_exact() -> None:
    flat = torch.full((1, 3, 16, 16), 0.7)
    assert ssim(flat, flat.clone()).item() == pytest.approx(1, abs=1e-12)


def test_ssim_refuses_pictures_below_its_window() -> None:
    with pytest.raises(UsageError, match=r"at least 11 x 11; got \(10, 40\)"):
        ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))


def test_identical_pictures_have_a_finite_psnr() -> None:
    assert psnr(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).item() == pytest.approx(100)


def test_a_mean_counts_pictures_and_not_batches() -> None:
    noisy, original = pictures()
    mean = PictureMean(l1)
    mean.update(noisy[:1], original[:1])
    mean.update(noisy[1:], original[1:])
    assert mean.compute() == pytest.approx(l1(noisy, original).mean().item())
    assert PictureMean(l2).compute() is None


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
    noisy, original = pictures(y=40, x=40)
    for make in (lambda: PictureMean(psnr), lambda: FrechetDistance(Averages(2))):
        whole, left, right = make(), make(), make()
        whole.update(noisy, original)
        left.update(noisy[:2], original[:2])
        right.update(noisy[2:], original[2:])
        left.merge(right)
        assert left.compute() == pytest.approx(whole.compute())
