"""Picture metrics against scikit-image and values by hand."""

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.metrics.images import PictureScores, l1, l2, psnr, ssim


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


def scores_of(noisy: Tensor, original: Tensor, sizes: Sequence[int]) -> PictureScores:
    """The pictures in batches of some sizes, with their numbers as keys."""
    scores, start = PictureScores(), 0
    for size in sizes:
        part = slice(start, start + size)
        scores.update([f"{i:03}" for i in range(start, start + size)], noisy[part], original[part])
        start += size
    return scores


def test_a_mean_counts_pictures_and_not_batches() -> None:
    noisy, original = pictures()
    found = scores_of(noisy, original, [1, 2]).compute()
    for measure in (psnr, ssim, l1, l2):
        assert found[measure.__name__]["value"] == pytest.approx(measure(noisy, original).mean().item()), measure
    assert PictureScores().compute()["l2"] == {"value": None, "interval": None}


def test_the_interval_is_that_of_pictures_however_they_are_batched() -> None:
    generator = torch.Generator().manual_seed(8)
    original = torch.zeros(64, 3, 11, 11)
    noisy = original + torch.linspace(0.05, 0.8, 64)[torch.randperm(64, generator=generator), None, None, None]
    low, high = scores_of(noisy, original, [64]).compute()["l1"]["interval"]
    values = l1(noisy, original)
    middle, error = values.mean().item(), (values.std() / 64**0.5).item()
    assert low == pytest.approx(middle - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(middle + 1.96 * error, abs=0.25 * error)
    for sizes in ([40, 24], [1] * 64):
        assert scores_of(noisy, original, sizes).compute()["l1"]["interval"] == [low, high]


def test_halves_merge_to_the_bits_of_the_whole_in_any_order() -> None:
    noisy, original = (images.repeat(9, 1, 1, 1) for images in pictures(y=40, x=40))
    keys = [str(i) for i in range(27)]
    whole, left, right = (PictureScores() for _ in range(3))
    whole.update(keys, noisy, original)
    for metric, part in ((left, slice(20, 27)), (right, slice(0, 20))):
        metric.update(keys[part], noisy[part], original[part])
    left.merge(right)
    assert left.compute() == whole.compute()
