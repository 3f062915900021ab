"""Regions of an image as COCO writes them, polygons and run lengths, as one yes or no for each pixel."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int, Shaped

from tavq.core.errors import DataError
from tavq.data.images import MAX_PIXELS


def region_mask(segmentation: Any, height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """The pixels of a region: a list of polygons, or a mapping with `size` and `counts` (numbers or COCO's text).

    Raises DataError when it is none of these, or of another size.
    """
    if isinstance(segmentation, list):
        mask = np.zeros((height, width), bool)
        for flat in segmentation:
            mask |= polygon_mask(_points(flat), height, width)
        return mask
    if not isinstance(segmentation, dict):
        raise DataError("a region must be a list of polygons or a mapping with size and counts")
    if segmentation.get("size") != [height, width]:
        raise DataError(f"a region's size is {segmentation.get('size')!r:.60}, its image's [{height}, {width}]")
    counts = segmentation.get("counts")
    return run_length_mask(read_counts(counts) if isinstance(counts, str) else _numbers(counts), height, width)


def polygon_mask(points: Float[np.ndarray, "n 2"], height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """The pixels whose centres lie inside a polygon of points (x, y); the part outside of the image is cut off.

    Each edge switches inside and outside from where it crosses the middle of a row, so that of a polygon that crosses
    itself the part that is covered twice is outside.
    """
    (x, y), (end_x, end_y) = points.T, np.roll(points, -1, axis=0).T
    first, last = _first_centre(np.minimum(y, end_y), height), _first_centre(np.maximum(y, end_y), height)
    rows_of = last - first
    edge = np.repeat(np.arange(len(points)), rows_of)
    row = np.arange(len(edge)) - np.repeat(np.cumsum(rows_of) - rows_of, rows_of) + first[edge]
    crossing = x[edge] + (row + 0.5 - y[edge]) * (end_x - x)[edge] / (end_y - y)[edge]
    mask = np.zeros((height, width), bool)
    if len(edge):  # the rest only where the polygon is: most are far smaller than their image
        column = _first_centre(crossing, width)
        top, left, bottom, right = row.min(), column.min(), row.max() + 1, column.max()
        switches = np.zeros((bottom - top, right - left + 1), np.int32)
        np.add.at(switches, (row - top, column - left), 1)
        mask[top:bottom, left:right] = np.cumsum(switches, axis=1)[:, :-1] % 2 == 1
    return mask


def _first_centre(place: Shaped[np.ndarray, "n"], size: int) -> Int[np.ndarray, "n"]:
    """The first pixel whose centre lies at or after each place, within 0 and `size`."""
    return np.clip(np.ceil(place - 0.5), 0, size).astype(np.int64)


def run_length_mask(counts: Int[np.ndarray, "n"], height: int, width: int) -> Bool[np.ndarray, "y x"]:
    """The pixels of run lengths: so many outside, so many inside, and so on, down each column from the left one."""
    if height * width > MAX_PIXELS:
        raise DataError(f"a region has {width} x {height} pixels; at most {MAX_PIXELS:,} are read")
    if (len(counts) and (counts.min() < 0 or counts.max() > height * width)) or counts.sum() != height * width:
        raise DataError(f"a region's counts do not add up to its {height * width} pixels")
    inside = np.arange(len(counts)) % 2 == 1
    return np.ascontiguousarray(np.repeat(inside, counts).reshape(width, height).T)


def read_counts(text: str) -> Int[np.ndarray, "n"]:
    """The run lengths in COCO's compressed text.

    Each letter less 48 holds five bits, lowest first, and a sixth that says that more follow; the last one's highest
    bit is the sign. From the fourth number on each is written as its difference to the one two before.
    """
    letters = np.frombuffer(text.encode("ascii", "replace"), np.uint8).astype(np.int64) - 48
    if len(letters) == 0 or letters.min() < 0 or letters.max() > 63 or letters[-1] & 32:
        raise DataError("a region's compressed counts hold letters that cannot be, or are cut short")
    ends = np.flatnonzero(letters & 32 == 0)
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts + 1
    if lengths.max() > 8:
        raise DataError("a region's compressed counts hold a number beyond all images")
    shift = 5 * (np.arange(len(letters)) - np.repeat(starts, lengths))
    values = np.add.reduceat((letters & 31) << shift, starts)
    values -= np.where(letters[ends] & 16, np.int64(1) << (5 * lengths), 0)
    values[1::2] = np.cumsum(values[1::2])
    values[2::2] = np.cumsum(values[2::2])
    return values


def _numbers(counts: Any) -> Int[np.ndarray, "n"]:
    if not isinstance(counts, list) or not all(type(count) is int and 0 <= count <= MAX_PIXELS for count in counts):
        raise DataError("a region's counts must be a list of whole numbers or COCO's compressed text")
    return np.array(counts, np.int64)


def _points(flat: Any) -> Float[np.ndarray, "n 2"]:
    good = isinstance(flat, list) and len(flat) >= 6 and len(flat) % 2 == 0
    if not good or not all(isinstance(number, int | float) and abs(number) < 1e6 for number in flat):
        raise DataError("a polygon must be a list of x, y, x, y, ... with three points or more")
    return np.array(flat, np.float64).reshape(-1, 2)
