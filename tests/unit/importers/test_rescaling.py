"""Boxes and classes follow their image to another size."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st
from PIL import Image

from tavq.data.folder import exceeds_image
from tavq.data.records import Box
from tavq.importers.rescaling import clip_box, has_same_aspect_ratio, resize_classes, scale_box

sides = st.integers(1, 5000)
sizes = st.tuples(sides, sides)
places = st.floats(-10, 6000)


def test_boxes_follow_their_image() -> None:
    assert scale_box((1.234, 2, 3, 4), (100, 100), (100, 100)) == (1.234, 2, 3, 4)
    assert scale_box((10, 20, 30, 40), (100, 200), (50, 50)) == (5, 5, 15, 10)
    assert scale_box((1, 1, 1, 1), (3, 3), (1, 1)) == (0.33, 0.33, 0.33, 0.33)


def test_boxes_are_clipped() -> None:
    assert clip_box((-5, 2, 10, 20), (16, 12)) == (0, 2, 5, 10)
    assert clip_box((4, 5, 30, 4), (16, 12)) == (4, 5, 12, 4)
    assert clip_box((1, 2, 3, 4), (16, 12)) == (1, 2, 3, 4)
    assert clip_box((16, 0, 3, 3), (16, 12)) is None
    assert clip_box((0, -3, 3, 3), (16, 12)) is None


@given(st.tuples(places, places, places, places), sizes, sizes)
def test_a_clipped_box_is_inside(box: Box, size: tuple[int, int], into: tuple[int, int]) -> None:
    assume(min(box[2:]) > 0)
    cut = clip_box(scale_box(box, size, into), into)
    if cut is not None:
        assert min(cut[2:]) > 0
        assert not exceeds_image(cut, into[1], into[0])
        assert min(cut[:2]) >= 0


def test_same_aspect_ratio() -> None:
    assert has_same_aspect_ratio((640, 427), (320, 213))
    assert has_same_aspect_ratio((512, 512), (1024, 1024))
    assert has_same_aspect_ratio((8, 6), (4, 3))
    assert not has_same_aspect_ratio((640, 427), (427, 640))
    assert not has_same_aspect_ratio((1, 1), (16, 12))
    assert not has_same_aspect_ratio((640, 480), (320, 213))


@given(sizes, st.floats(0.2, 1))
def test_a_smaller_copy_has_the_same_aspect_ratio(size: tuple[int, int], scale: float) -> None:
    smaller = int(size[0] * scale), int(size[1] * scale)
    assume(min(smaller) > 0)
    assert has_same_aspect_ratio(size, smaller)


small = st.tuples(st.integers(1, 40), st.integers(1, 40))


@given(small, small)
def test_resized_classes_equal_those_of_pillow(size: tuple[int, int], into: tuple[int, int]) -> None:
    """But where the middle of a pixel lies on an edge: there Pillow's rounding takes either side."""
    classes = np.arange(size[0] * size[1]).reshape(size[::-1])
    found = resize_classes(classes, into)
    assert found.shape == into[::-1]
    oracle = np.asarray(Image.fromarray(classes.astype(np.int32)).resize(into, Image.Resampling.NEAREST))
    columns, rows = ((2 * np.arange(new) + 1) * old % (2 * new) > 0 for new, old in zip(into, size, strict=True))
    clear = rows[:, None] & columns
    assert (found[clear] == oracle[clear]).all()


def test_the_pixel_that_contains_the_centre() -> None:
    assert resize_classes(np.arange(6)[None], (3, 1)).tolist() == [[1, 3, 5]]
    assert resize_classes(np.arange(2)[None], (5, 1)).tolist() == [[0, 0, 1, 1, 1]]
