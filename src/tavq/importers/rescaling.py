"""Annotations brought to the image that is really there, which may be smaller than the one that was annotated."""

import numpy as np
from jaxtyping import Int

from tavq.data.records import Box

Size = tuple[int, int]
"""Width and height in pixels."""


def scale_box(box: Box, size: Size, into: Size) -> Box:
    """The box of an image of one size in the same image of another; to a hundredth of a pixel."""
    if size == into:
        return box
    across, down = into[0] / size[0], into[1] / size[1]
    x, y, w, h = box
    return round(x * across, 2), round(y * down, 2), round(w * across, 2), round(h * down, 2)


def cut_box(box: Box, size: Size) -> Box | None:
    """The part of the box that is inside of its image; None where there is none."""
    x, y, w, h = box
    left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(size[0])), min(y + h, float(size[1]))
    return None if left >= right or top >= bottom else (left, top, right - left, bottom - top)


def in_proportion(size: Size, other: Size) -> bool:
    """Whether images of these sizes can be the same one, each side of the other rounded by up to a pixel."""
    return abs(size[0] * other[1] - size[1] * other[0]) <= sum(size)


def scale_classes(classes: Int[np.ndarray, "y x"], into: Size) -> Int[np.ndarray, "yy xx"]:
    """The classes of the pixels of the same image at another size: of each the nearest one's."""
    height, width = classes.shape
    rows, columns = (_nearest(new, old) for new, old in ((into[1], height), (into[0], width)))
    return classes[rows[:, None], columns]


def _nearest(new: int, old: int) -> Int[np.ndarray, "n"]:
    """For each of `new` places in a row that of the `old` ones in which its middle lies."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
