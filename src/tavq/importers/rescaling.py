"""Rescaling annotations to the image file that exists, which may be smaller than the one that was annotated."""

import numpy as np
from jaxtyping import Int

from tavq.data.records import Box

Size = tuple[int, int]
"""Width and height in pixels."""


def scale_box(box: Box, size: Size, into: Size) -> Box:
    """Scale a box from one size of its image to another, to a hundredth of a pixel."""
    if size == into:
        return box
    x_scale, y_scale = into[0] / size[0], into[1] / size[1]
    x, y, w, h = box
    return round(x * x_scale, 2), round(y * y_scale, 2), round(w * x_scale, 2), round(h * y_scale, 2)


def clip_box(box: Box, size: Size) -> Box | None:
    """Clip a box to its image; None if nothing of it is inside."""
    x, y, w, h = box
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(size[0])), min(y + h, float(size[1]))
    return None if left >= right or top >= bottom else (left, top, right - left, bottom - top)


def has_same_aspect_ratio(size: Size, other: Size) -> bool:
    """Whether one size can be a rescaled version of the other, each side rounded by up to a pixel."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= sum(size)


def resize_classes(classes: Int[np.ndarray, "y x"], into: Size) -> Int[np.ndarray, "yy xx"]:
    """Resize a label map by nearest neighbour."""
    height, width = classes.shape
    rows, columns = (_nearest(new, old) for new, old in ((into[1], height), (into[0], width)))
    return classes[rows[:, None], columns]


def _nearest(new: int, old: int) -> Int[np.ndarray, "n"]:
    """For each of `new` pixels in a row, the one of `old` pixels that contains its centre."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
