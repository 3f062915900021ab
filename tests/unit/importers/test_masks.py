"""Polygons and run lengths, by hand, against each other and against COCO's own code."""

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavq.core.errors import DataError
from tavq.importers.masks import decode_region, decode_run_lengths, fill_polygon, parse_counts

# of the mask `golden_mask`, by pycocotools 2.0.11 mask.encode
GOLDEN = (
    "01`000020N020N020N020N020N020N020N020N020E4ML>0D8KHa00C<<DD>:BF`08@I`06@Jb02^OI06b00^OJ06d0N\\O5d0J\\O6f0HZO9f0"
    "FZO;g01O02O000000000O1OWOHf08ZOIf06ZOKf02ZOK04f00ZOL06d0N\\O5d0J\\O8b0H^O9b0F^O<`0D@=`0B@`0>@B`00_O<1D`00B8OH?0"
    "E4ML>0N020N020N020N020N020N000A0?000A0?00020N0C"
)


def golden_mask() -> np.ndarray:
    y, x = np.mgrid[:37, :53]
    return ((x - 26) ** 2 + (y - 18) ** 2 * 2 < 300) | ((x + y) % 17 == 0)


def test_compressed_counts_are_those_of_coco() -> None:
    assert (decode_region({"size": [37, 53], "counts": GOLDEN}, 37, 53) == golden_mask()).all()


def test_run_lengths_go_down_the_columns() -> None:
    by_hand = np.array([[0, 1, 0], [1, 0, 0], [1, 0, 0], [0, 0, 1]], bool)
    assert parse_counts("121O50").tolist() == [1, 2, 1, 1, 6, 1]  # the same by pycocotools; 121 then 1-2, 6-1, 1-1
    assert (decode_region({"size": [4, 3], "counts": "121O50"}, 4, 3) == by_hand).all()
    assert (decode_region({"size": [4, 3], "counts": [1, 2, 1, 1, 6, 1]}, 4, 3) == by_hand).all()
    assert decode_region({"size": [4, 3], "counts": [0, 12]}, 4, 3).all()


def compress(counts: list[int]) -> str:
    """COCO's text by its definition, written slowly."""
    text = ""
    for place, count in enumerate(counts):
        value = count - counts[place - 2] if place > 2 else count
        while True:
            bits, value = value & 31, value >> 5
            more = not ((value == 0 and not bits & 16) or (value == -1 and bits & 16))
            text += chr(48 + bits + 32 * more)
            if not more:
                break
    return text


@given(st.lists(st.integers(0, 10**7), min_size=1, max_size=30))
def test_compressed_counts_come_back(counts: list[int]) -> None:
    assert parse_counts(compress(counts)).tolist() == counts


@given(st.one_of(st.text(max_size=40), st.text("".join(map(chr, range(48, 112))), max_size=40)))
def test_any_text_is_counts_or_an_error(text: str) -> None:
    try:
        mask = decode_run_lengths(parse_counts(text), 3, 4)
    except DataError:
        return
    assert mask.shape == (3, 4)


def test_a_polygon_contains_the_pixels_whose_centres_are_inside() -> None:
    square = decode_region([[1, 1, 4, 1, 4, 3, 1, 3]], 5, 6)
    assert np.argwhere(square).tolist() == [[y, x] for y in (1, 2) for x in (1, 2, 3)]
    triangle = decode_region([[0, 0, 4, 0, 0, 4]], 4, 4)  # centres with x + y < 4, none on the long side's left
    assert triangle.tolist() == [[(x + 0.5) + (y + 0.5) < 4 for x in range(4)] for y in range(4)]
    assert not decode_region([[0.6, 0.6, 1.4, 0.6, 1.4, 1.4, 0.6, 1.4]], 3, 3).any()  # between the centres


def test_polygons_of_one_region_are_joined_and_cut_off() -> None:
    both = decode_region([[0, 0, 2, 0, 2, 2, 0, 2], [1, 1, 3, 1, 3, 3, 1, 3]], 4, 4)
    assert both.sum() == 4 + 4 - 1
    assert decode_region([[-5, -5, 50, -5, 50, 50, -5, 50]], 4, 3).all()
    assert not decode_region([[10, 0, 20, 0, 20, 4, 10, 4]], 4, 3).any()


@given(
    st.lists(st.tuples(st.floats(-3, 12), st.floats(-3, 12)), min_size=3, max_size=7),
    st.integers(1, 9),
    st.integers(1, 9),
)
def test_polygons_against_counting_crossings(points: list[tuple[float, float]], height: int, width: int) -> None:
    """Each pixel on its own: a ray from its centre to the left crosses an odd number of edges."""
    corners = np.array(points)
    expected = np.zeros((height, width), bool)
    for row in range(height):
        for column in range(width):
            crossings = 0
            for (ax, ay), (bx, by) in zip(corners, np.roll(corners, -1, axis=0), strict=True):
                if (ay <= row + 0.5) != (by <= row + 0.5):
                    crossings += ax + (row + 0.5 - ay) * (bx - ax) / (by - ay) <= column + 0.5
            expected[row, column] = crossings % 2 == 1
    assert (fill_polygon(corners, height, width) == expected).all()


@pytest.mark.parametrize(
    "segmentation",
    [
        None,
        "121O50",
        [[0, 0, 1, 1]],
        [[0, 0, 1, 1, 2]],
        [[0, 0, 1, 1, 2, "3"]],
        [[0, 0, 1, 1, 2, float("nan")]],
        [7],
        {"size": [4, 3]},
        {"size": [3, 4], "counts": "121O50"},
        {"size": [4, 3], "counts": "121O5"},
        {"size": [4, 3], "counts": "121O5`"},
        {"size": [4, 3], "counts": "ooooooooooo0"},
        {"size": [4, 3], "counts": ""},
        {"size": [4, 3], "counts": [1, 2]},
        {"size": [4, 3], "counts": [-1, 13]},
        {"size": [4, 3], "counts": [1.0, 11.0]},
        {"size": [4, 3], "counts": [10**30]},
    ],
)
def test_invalid_regions_are_errors(segmentation: Any) -> None:
    with pytest.raises(DataError):
        decode_region(segmentation, 4, 3)
