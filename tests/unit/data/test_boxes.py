"""Boxes in the centre square: by hand for wide and tall images, and against the square that `crop_and_resize` cuts."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavq.data.boxes import box_to_image, box_to_square
from tavq.data.transforms import crop_and_resize


@pytest.mark.parametrize(
    ("box", "height", "width", "expected"),
    [
        # wide: the square is columns 30 to 70
        ((40, 10, 20, 20), 40, 100, (0.25, 0.25, 0.5, 0.5)),
        ((30, 0, 40, 40), 40, 100, (0, 0, 1, 1)),
        ((20, 0, 20, 40), 40, 100, (0, 0, 0.25, 1)),  # half of it is left
        ((19, 0, 20, 40), 40, 100, None),  # and here less
        ((60, 4, 20, 20), 40, 100, (0.75, 0.1, 0.25, 0.5)),
        ((61, 4, 20, 20), 40, 100, None),
        ((0, 0, 10, 10), 40, 100, None),
        ((0, 0, 100, 40), 40, 100, None),  # the whole image
        # tall: rows 30 to 70
        ((10, 40, 20, 20), 100, 40, (0.25, 0.25, 0.5, 0.5)),
        ((0, 20, 40, 20), 100, 40, (0, 0, 1, 0.25)),
        ((0, 19, 40, 20), 100, 40, None),
        # what stands out of the image itself is cut off too
        ((-10, -10, 30, 30), 40, 40, None),
        ((-2, 8, 20, 16), 40, 40, (0, 0.2, 0.45, 0.4)),
        ((8, 8, 8, 8), 64, 64, (0.125, 0.125, 0.125, 0.125)),
        ((0, 0, 1e308, 1e308), 64, 64, None),
        ((5, 5, 1e-200, 1e-200), 64, 64, None),
    ],
)
def test_a_box_is_cut_as_the_image_is(
    box: tuple[float, ...], height: int, width: int, expected: tuple[float, ...] | None
) -> None:
    found = box_to_square(box, height, width)
    assert found == (None if expected is None else pytest.approx(expected))


@pytest.mark.parametrize(("height", "width"), [(40, 101), (101, 40), (41, 100), (100, 41), (50, 50)])
def test_the_lit_pixels_of_the_square_fill_the_box(height: int, width: int) -> None:
    side = min(height, width)
    top, left = (height - side + 1) // 2, (width - side + 1) // 2
    box = (left + 3, top + 5, 12, 9)
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[1] + box[3], box[0] : box[0] + box[2]] = 255
    lit = crop_and_resize(image, side)[0].numpy() > 0
    found = box_to_square(box, height, width)
    assert found is not None
    x, y, w, h = (round(edge * side) for edge in found)
    expected = np.zeros((side, side), bool)
    expected[y : y + h, x : x + w] = True
    assert np.array_equal(lit, expected)


SIDES, STARTS, LENGTHS = st.integers(8, 300), st.floats(0, 0.5), st.floats(0.01, 0.5)


@given(SIDES, SIDES, STARTS, STARTS, LENGTHS, LENGTHS)
def test_there_and_back(height: int, width: int, x: float, y: float, w: float, h: float) -> None:
    assert box_to_square(box_to_image((x, y, w, h), height, width), height, width) == pytest.approx(
        (x, y, w, h), abs=1e-6
    )
