"""Boxes in pixels of an image, and in fractions of the centre square that networks see."""

from tavq.data.records import Box
from tavq.data.transforms import centre_square

MIN_VISIBLE = 0.5
"""The fraction of a box's area that the square must keep; less no longer shows what the box names."""


def box_to_square(box: Box, height: int, width: int) -> Box | None:
    """Convert a box of an image to fractions of the side of its centre square, clipped to the square.

    Returns None if less than half of its area is left.

    Args:
        box: in pixels of the upright image.
        height: of the upright image.
        width: of the upright image.
    """
    top, left, side = centre_square(height, width)
    x, y, w, h = box
    x1, x2 = (_clip((edge - left) / side) for edge in (x, x + w))
    y1, y2 = (_clip((edge - top) / side) for edge in (y, y + h))
    clipped = (x1, y1, x2 - x1, y2 - y1)
    visible = clipped[2] * clipped[3] * side**2
    return clipped if visible >= MIN_VISIBLE * w * h > 0 and min(clipped[2:]) > 0 else None


def box_to_image(box: Box, height: int, width: int) -> Box:
    """Convert a box in fractions of the centre square to pixels of the image; the inverse of `box_to_square`."""
    top, left, side = centre_square(height, width)
    x, y, w, h = box
    return (x * side + left, y * side + top, w * side, h * side)


def _clip(fraction: float) -> float:
    return min(max(fraction, 0.0), 1.0)
