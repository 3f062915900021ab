"""Binary masks from regions in COCO's formats: polygons and run-length encoding (RLE)."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from tavq.core.errors import DataError
from tavq.data.images import MAX_PIXELS


def decode_region(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """Decode a region: a list of polygons, or an object with `size` and `counts` (numbers or COCO's compressed text).

    Raises DataError if it is neither, or if its size is not that of the image.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), bool)
        for flat in segmentation:
            mask |= fill_polygon(_parse_points(flat), height, width)
        return mask
    if not isinstance(segmentation, dict):
        raise DataError("a region must be a list of polygons or an object with size and counts")
    if segmentation.get("size") != [height, width]:
        raise DataError(f"a region's size is {segmentation.get('size')!r:.60}, but its image's is [{height}, {width}]")
    counts = segmentation.get("counts")
    lengths = parse_counts(counts) if isinstance(counts, str) else _parse_numbers(counts)
    return decode_run_lengths(lengths, height, width)


def fill_polygon(points: Float[np.ndarray, "n 2"], height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """The pixels whose centres are inside a polygon of points (x, y), clipped to the image.

    Even-odd rule: each edge toggles inside and outside at the point where it crosses the middle of a pixel row, so the
    part that a self-intersecting polygon covers twice is outside.
    """
    (x, y), (end_x, end_y) = points.T, np.roll(points, -1, axis=0).T
    first, last = _first_centre(np.minimum(y, end_y), height), _first_centre(np.maximum(y, end_y), height)
    row_counts = last - first
    edge = np.repeat(np.arange(len(points)), row_counts)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(row_counts) - row_counts, row_counts) + first[edge]
    crossing = x[edge] + (row + 0.5 - y[edge]) * (end_x - x)[edge] / (end_y - y)[edge]
    mask = np.zeros((height, width), bool)
    if len(edge):  # work only inside the polygon's bounding box: most polygons are far smaller than their image
        column = _first_centre(crossing, width)
        top, left, bottom, right = row.min(), column.min(), row.max() + 1, column.max()
        toggles = np.zeros((bottom - top, right - left + 1), np.int32)
        np.add.at(toggles, (row - top, column - left), 1)
        mask[top:bottom, left:right] = np.cumsum(toggles, axis=1)[:, :-1] % 2 == 1
    return mask


def _first_centre(coordinates: Shaped[np.ndarray, "n"], size: int) -> Int[np.ndarray, "n"]:
    """The first pixel whose centre is at or after each coordinate, clipped to 0 ... `size`."""
    return np.clip(np.ceil(coordinates - 0.5), 0, size).astype(np.int64)


def decode_run_lengths(counts: Int[np.ndarray, "n"], height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """Decode run lengths, alternately outside and inside, down the columns from left to right."""
    if height * width > MAX_PIXELS:
        raise DataError(f"a region has {width} x {height} pixels; at most {MAX_PIXELS:,} are allowed")
    if (len(counts) and (counts.min() < 0 or counts.max() > height * width)) or counts.sum() != height * width:
        raise DataError(f"a region's counts do not add up to its {height * width} pixels")
    inside = np.arange(len(counts)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, counts).reshape(width, height).T)


def parse_counts(text: str) -> Int[np.ndarray, "n"]:
    """Parse the run lengths in COCO's compressed text.

    Each character minus 48 holds five bits of a number, lowest first, and a sixth bit that says whether more follow;
    the highest bit of the last one is the sign. From the fourth number on, each is stored as the difference to the
    number two before it.
    """
    letters = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if len(letters) == 0 or letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        raise DataError("a region's compressed counts contain invalid characters or are truncated")
    ends = np.flatnonzero(letters & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise DataError("a region's compressed counts contain a number larger than any image")
    shift = 5 * (np.arange(len(letters)) - np.repeat(starts, lengths))
    values = np.add.reduceat((letters & 31) << shift, starts)
    values -= np.where(letters[ends] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _parse_numbers(counts: Any) -> Int[np.ndarray, "n"]:
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count <= MAX_PIXELS for count in counts):
        raise DataError("a region's counts must be a list of whole numbers or COCO's compressed text")
    return np.array(counts, np.int64)


def _parse_points(flat: Any) -> Float[np.ndarray, "n 2"]:
    has_pairs = isinstance(flat, list) and len(flat) >= 6 and len(flat) % 2 == 0
    if not has_pairs or not all(isinstance(number, int | float) and abs(number) < 1e6 for number in flat):
        raise DataError("a polygon must be a list x, y, x, y, ... of at least three points")
    return np.array(flat, np.float64).reshape(-1, 2)
