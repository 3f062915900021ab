"""The metrics' equations on images and codes small enough to work out by hand."""

import math

import pytest
import torch

from tavq.metrics.alignment import code_text_cosine, retrieval
from tavq.metrics.codes import CodeUsage
from tavq.metrics.images import ImageScores, l1, l2, psnr, ssim
from tavq.metrics.record import by_key


def test_a_shift_of_a_tenth_of_the_range_is_twenty_decibels() -> None:
    reference = torch.zeros(1, 3, 16, 16)
    shifted = reference + 0.2
    assert psnr(shifted, reference).item() == pytest.approx(20, abs=1e-5)
    assert l1(shifted, reference).item() == pytest.approx(0.2)
    assert l2(shifted, reference).item() == pytest.approx(0.04)


def test_psnr_is_averaged_over_images_in_decibels() -> None:
    reference = torch.zeros(2, 3, 16, 16)
    shifted = reference + torch.tensor([0.2, 0.02]).view(2, 1, 1, 1)
    scores = ImageScores()
    scores.update(["a", "b"], shifted, reference)
    assert by_key(scores.compute())["psnr"].value == pytest.approx((20 + 40) / 2, abs=1e-5)


def test_ssim_of_flat_images_is_its_luminance_term() -> None:
    a, b = torch.full((1, 1, 12, 12), 0.0), torch.full((1, 1, 12, 12), 0.5)  # 0.5 and 0.75 on [0, 1]
    assert ssim(a, b).item() == pytest.approx((2 * 0.5 * 0.75 + 1e-4) / (0.25 + 0.5625 + 1e-4), abs=1e-9)


def test_ssim_of_a_image_and_its_negative() -> None:
    # One Gaussian window; equal means where the weighted mean of the board is 0, so only the structure term is left.
    board = torch.ones(11, 11)
    board[::2, 1::2] = board[1::2, ::2] = -1
    weights = torch.exp(-((torch.arange(11.0).double() - 5) ** 2) / 4.5)
    weights = torch.outer(weights, weights) / weights.sum() ** 2
    mean = float((weights * board).sum()) / 2
    variance = 0.25 - mean**2
    means = (2 * (0.25 - mean**2) + 1e-4) / (2 * (0.25 + mean**2) + 1e-4)
    expected = means * (-2 * variance + 9e-4) / (2 * variance + 9e-4)
    assert ssim(board[None, None], -board[None, None]).item() == pytest.approx(expected, abs=1e-9)


def test_perplexity_of_a_half_and_two_quarters() -> None:
    usage = CodeUsage((1024,))
    usage.update(torch.tensor([[[0, 0], [8, 9]]]))
    assert usage.perplexity == pytest.approx(2**1.5)
    assert usage.usage == 3 / 1024


def test_cosine_and_recall_of_two_images() -> None:
    images = torch.tensor([[1.0, 0.0], [0.8, 0.6]])
    texts = torch.tensor([[0.6, 0.8], [0.0, 1.0]])
    found = by_key(code_text_cosine(images, texts))
    assert found["code_text_cosine"].value == pytest.approx((0.6 + 0.6) / 2)
    assert found["shuffled/code_text_cosine"].value == pytest.approx((0.0 + 0.96) / 2)
    result = by_key(retrieval(images, texts))
    assert result["retrieval/image_to_text/recall@1"].value == 0.5  # image 1 is nearer to text 0
    assert result["retrieval/text_to_image/recall@1"].value == 0.5  # text 0 is nearer to image 1
    assert math.isclose(result["retrieval/image_to_text/median_rank"].value, 1.5)
