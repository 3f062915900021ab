"""Picture metrics against scikit-image and values by hand."""

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.metrics.images import PictureMean, l1, l2, psnr, ssim


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


def test_halves_merge_to_the_whole() -> None:
    noisy, original = pictures(y=40, x=40)
    whole, left, right = (PictureMean(psnr) for _ in range(3))
    whole.update(noisy, original)
    left.update(noisy[:2], original[:2])
    right.update(noisy[2:], original[2:])
    left.merge(right)
    assert left.compute() == pytest.approx(whole.compute())
