"""Image metrics against scikit-image and values by hand."""

from collections.abc import Sequence

import formula_weights
import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torch import Tensor
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from tavq.core.errors import UsageError
from tavq.metrics.images import ImageScores, l1, l2, ms_ssim, psnr, ssim
from tavq.metrics.record import by_key


def random_images(count: int = 3, y: int = 37, x: int = 50, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Smooth originals and noisy copies in [-1, 1]."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator) * 2 - 1
    original = torch.nn.functional.interpolate(coarse, (y, x), mode="bilinear")
    noise = torch.randn(original.shape, generator=generator) * torch.tensor([0.02, 0.1, 0.5])[:count, None, None, None]
    return (original + noise).clamp(-1, 1), original


def unit(image: Tensor) -> np.ndarray:
    return ((image.double() + 1) / 2).permute(1, 2, 0).numpy()


def test_psnr_equals_scikit_image() -> None:
    noisy, original = random_images()
    expected = [peak_signal_noise_ratio(unit(b), unit(a), data_range=1) for a, b in zip(noisy, original, strict=True)]
    assert psnr(noisy, original).tolist() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("y", "x"), [(37, 50), (11, 11), (64, 12)])
def test_ssim_equals_scikit_image(y: int, x: int) -> None:
    noisy, original = random_images(y=y, x=x)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1.0}
    expected = [
        structural_similarity(unit(a), unit(b), channel_axis=-1, **options)
        for a, b in zip(noisy, original, strict=True)
    ]
    assert ssim(noisy, original).tolist() == pytest.approx(expected, abs=1e-9)


def test_ssim_of_flat_float32_images_is_exact() -> None:
    """Variances are 0; float32 misses that by an error that shows next to K2's constant of 0.0009."""
    bright, dark = torch.full((1, 3, 16, 16), 0.7), torch.full((1, 3, 16, 16), 0.1)
    a, b = ((float(image[0, 0, 0, 0]) + 1) / 2 for image in (bright, dark))
    luminance = (2 * a * b + 0.01**2) / (a * a + b * b + 0.01**2)
    assert ssim(bright, dark).item() == pytest.approx(luminance, abs=1e-12)


def test_ssim_refuses_images_below_its_window() -> None:
    with pytest.raises(UsageError, match=r"at least 11 x 11; got 40 x 10"):
        ssim(torch.zeros(1, 3, 10, 40), torch.zeros(1, 3, 10, 40))


def test_identical_images_have_a_finite_psnr() -> None:
    assert psnr(torch.ones(1, 3, 4, 4), torch.ones(1, 3, 4, 4)).item() == pytest.approx(100)


def scores_of(noisy: Tensor, original: Tensor, sizes: Sequence[int]) -> ImageScores:
    """The images in batches of these sizes, with their indices as keys."""
    scores, start = ImageScores(), 0
    for size in sizes:
        part = slice(start, start + size)
        scores.update([f"{i:03}" for i in range(start, start + size)], noisy[part], original[part])
        start += size
    return scores


def test_means_are_over_images_not_batches() -> None:
    noisy, original = random_images()
    found = by_key(scores_of(noisy, original, [1, 2]).compute())
    for measure in (psnr, ssim, l1, l2):
        assert found[measure.__name__].value == pytest.approx(measure(noisy, original).mean().item()), measure
    nothing = by_key(ImageScores().compute())["l2"]
    assert (nothing.value, nothing.interval) == (None, None)


def test_intervals_do_not_depend_on_batches() -> None:
    generator = torch.Generator().manual_seed(8)
    original = torch.zeros(64, 3, 11, 11)
    noisy = original + torch.linspace(0.05, 0.8, 64)[torch.randperm(64, generator=generator), None, None, None]
    low, high = by_key(scores_of(noisy, original, [64]).compute())["l1"].interval
    values = l1(noisy, original)
    middle, error = values.mean().item(), (values.std() / 64**0.5).item()
    assert low == pytest.approx(middle - 1.96 * error, abs=0.25 * error)
    assert high == pytest.approx(middle + 1.96 * error, abs=0.25 * error)
    for sizes in ([40, 24], [1] * 64):
        assert by_key(scores_of(noisy, original, sizes).compute())["l1"].interval == (low, high)


def test_merged_halves_equal_the_full_set_to_the_bit_in_any_order() -> None:
    noisy, original = (images.repeat(9, 1, 1, 1) for images in random_images(y=40, x=40))
    keys = [str(i) for i in range(27)]
    whole, left, right = (ImageScores() for _ in range(3))
    whole.update(keys, noisy, original)
    for metric, part in ((left, slice(20, 27)), (right, slice(0, 20))):
        metric.update(keys[part], noisy[part], original[part])
    left.merge(right)
    assert left.compute() == whole.compute()


def waves(y: int, x: int) -> tuple[Tensor, Tensor]:
    """Two smooth images and noisy copies, by formula."""
    i, j = torch.arange(y).double()[:, None], torch.arange(x).double()[None]
    original = [[torch.sin(i / (7 + c) + j / (11 + b)) * 0.4 + 0.5 for c in range(3)] for b in range(2)]
    smooth = torch.stack([torch.stack(channels) for channels in original])
    noisy = (smooth + formula_weights.random_images(y, x).double() * 0.08).clamp(0, 1)
    return noisy * 2 - 1, smooth * 2 - 1


@pytest.mark.parametrize(
    ("y", "x", "expected"),
    [  # pytorch-msssim 1.0.0, ms_ssim(noisy, smooth, data_range=1, size_average=False) on [0, 1] in float64
        (192, 176, [0.9823709272883588, 0.9807232005592724]),
        (256, 256, [0.9827714072543547, 0.9816236471296338]),
    ],
)
def test_ms_ssim_equals_pytorch_msssim(y: int, x: int, expected: list[float]) -> None:
    noisy, original = waves(y, x)
    assert ms_ssim(noisy, original).tolist() == pytest.approx(expected, abs=1e-6)
    assert ms_ssim(original, original).tolist() == pytest.approx([1, 1])
    assert ms_ssim(-original, original).tolist() == [0, 0]  # a structure below 0 counts as 0


def test_ms_ssim_of_one_channel_equals_torchmetrics() -> None:
    noisy, original = (images[:, :1].add(1).div(2) for images in waves(181, 190))  # odd sides at the first scale
    expected = multiscale_structural_similarity_index_measure(
        noisy, original, data_range=1.0, normalize="relu", reduction="none", sigma=1.5, kernel_size=11
    )
    found = ms_ssim(noisy * 2 - 1, original * 2 - 1)
    assert found.tolist() == pytest.approx(expected.tolist(), abs=2e-3)  # it pads each image's borders


def test_ms_ssim_refuses_images_without_a_window_at_the_coarsest_scale() -> None:
    with pytest.raises(UsageError, match=r"at least 176 x 176; got 200 x 175"):
        ms_ssim(torch.zeros(1, 3, 175, 200), torch.zeros(1, 3, 175, 200))
