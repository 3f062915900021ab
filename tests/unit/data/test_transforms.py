"""Crops, mirrors and the range of values, on images small enough to see what must come out."""

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from tavq.data.transforms import AugmentConfig, crop_and_resize, to_float, to_uint8


def columns(height: int, width: int) -> np.ndarray:
    """An image in which the red of each pixel is its column and the green its row."""
    rows, across = np.mgrid[:height, :width]
    return np.stack([across, rows, 0 * rows], -1).astype(np.uint8)


def test_evaluation_takes_the_centre() -> None:
    square = crop_and_resize(columns(16, 32), 16)
    assert square.dtype == torch.uint8
    assert square.shape == (3, 16, 16)
    assert square[0, 0].tolist() == list(range(8, 24))
    assert square[1, :, 0].tolist() == list(range(16))


def test_resize_averages_when_it_shrinks() -> None:
    stripes = np.zeros((48, 48, 3), np.uint8)
    stripes[:, ::2] = 200
    middle = crop_and_resize(stripes, 16)[:, 4:12, 4:12].float()
    assert (middle - 100).abs().max() <= 12  # without antialias it would be 0 or 200


def test_resize_is_the_bicubic_filter_widened_by_what_it_shrinks() -> None:
    """Keys' filter with a = -1/2 at every source pixel, once along rows and once along columns, to one byte's step."""
    image = np.random.default_rng(3).integers(0, 256, (50, 50, 3), np.uint8)
    scale = 50 / 16
    places = np.abs((np.arange(50) + 0.5)[None] - (np.arange(16) + 0.5)[:, None] * scale) / scale
    near, far = 1.5 * places**3 - 2.5 * places**2 + 1, -0.5 * places**3 + 2.5 * places**2 - 4 * places + 2
    weights = np.where(places < 1, near, np.where(places < 2, far, 0))
    weights /= weights.sum(axis=1, keepdims=True)
    expected = np.einsum("iy,yxc,jx->cij", weights, image.astype(float), weights).clip(0, 255)
    assert np.abs(crop_and_resize(image, 16).numpy() - expected).max() < 1.5


def test_training_moves_the_crop_over_every_place_and_mirrors_half() -> None:
    image = columns(16, 20)
    rng = np.random.default_rng(0)
    first_columns = [crop_and_resize(image, 16, rng, AugmentConfig(flip=0.5))[0, 0] for _ in range(400)]
    mirrored = sum(int(row[0] > row[-1]) for row in first_columns)
    starts = {int(row.min()) for row in first_columns}
    assert starts == {0, 1, 2, 3, 4}
    assert 160 < mirrored < 240


def test_flip_is_a_chance() -> None:
    image = columns(16, 16)
    rng = np.random.default_rng(0)
    assert all(crop_and_resize(image, 16, rng, AugmentConfig(flip=0))[0, 0, 0] == 0 for _ in range(20))
    assert all(crop_and_resize(image, 16, rng, AugmentConfig(flip=1))[0, 0, 0] == 15 for _ in range(20))


def test_crop_scale_bounds_the_share_of_the_square() -> None:
    image = columns(100, 100)
    rng = np.random.default_rng(0)
    spans = []
    for _ in range(200):
        red = crop_and_resize(image, 16, rng, AugmentConfig(flip=0, crop_scale=0.25))[0, 0].float()
        spans.append(float(red.max() - red.min()) * 16 / 15)  # columns between the outer pixel centres
    assert 45 < min(spans) < 60  # a quarter of the area is half of the side
    assert 90 < max(spans) <= 102


def test_one_generator_state_one_result() -> None:
    image = columns(40, 30)
    first, second = (
        crop_and_resize(image, 16, np.random.default_rng(7), AugmentConfig(crop_scale=0.5)) for _ in range(2)
    )
    assert torch.equal(first, second)


def test_the_smallest_image_fills_the_square() -> None:
    assert crop_and_resize(np.full((1, 1, 3), 9, np.uint8), 16).unique().tolist() == [9]


def test_bytes_and_floats_are_inverse() -> None:
    every = torch.arange(256, dtype=torch.uint8)
    floats = to_float(every)
    assert floats[[0, 255]].tolist() == [-1.0, 1.0]
    assert torch.equal(to_uint8(floats), every)


@given(st.floats(-3, 3, width=32))
def test_to_uint8_rounds_and_cuts(value: float) -> None:
    expected = min(max((value + 1) * 127.5, 0), 255)
    assert abs(int(to_uint8(torch.tensor([value]))) - expected) <= 0.5 + 1e-4
