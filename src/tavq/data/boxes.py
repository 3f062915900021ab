"""Boxes in the square that is seen of an image, and back."""

from tavq.data.records import Box
from tavq.data.transforms import centre_square

LEAST_LEFT = 0.5
"""A box that the square cuts down to less of its area stands for its thing no longer."""


def box_to_square(box: Box, height: int, width: int) -> Box | None:
    """A box of an image in shares of the side of its centre square, cut off at the square's edges.

    None where less than half of its area is left.

    Args:
        box: in pixels of the upright image.
        height: of the upright image; `width` likewise.
    """
    top, left, side = centre_square(height, width)
    x, y, w, h = box
    start_x, end_x = (min(max((edge - left) / side, 0.0), 1.0) for edge in (x, x + w))
    start_y, end_y = (min(max((edge - top) / side, 0.0), 1.0) for edge in (y, y + h))
    kept = (start_x, start_y, end_x - start_x, end_y - start_y)
    return kept if kept[2] * kept[3] * side**2 >= LEAST_LEFT * w * h > 0 and min(kept[2:]) > 0 else None


def box_to_image(box: Box, height: int, width: int) -> Box:
    """A box in shares of the side of the centre square, in pixels of the image; the inverse of `box_to_square`."""
    top, left, side = centre_square(height, width)
    x, y, w, h = box
    return (x * side + left, y * side + top, w * side, h * side)
