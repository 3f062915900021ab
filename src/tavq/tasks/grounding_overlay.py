"""The image of a phrase that was found: its box, and beside it where in the image the phrase looks."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from tavq.data.records import Box
from tavq.data.transforms import centre_square

LEAST, MOST = 320, 1024
"""Pixels of the image's longer side as it is shown: small ones are enlarged, large ones brought down."""

GAP = 8
FRAME = (255, 40, 40)
RIM = (255, 255, 255)
PAPER = 255

COLD, WARM, HOT = (20, 20, 80), (230, 60, 40), (255, 240, 110)
"""Of the heat map at nothing, at half of the most and at the most."""

THROUGH = 0.3
"""Share of the grey image that is seen through the heat."""


def draw_grounding(
    image: UInt8[np.ndarray, "y x 3"], box: Box, heat: Float[np.ndarray, "h w"] | None
) -> UInt8[np.ndarray, "v u 3"]:
    """The image with a frame around the box and, where there is a heat map, the image under it at the right.

    Args:
        image: upright.
        box: in its pixels.
        heat: of the patches of its centre square; what lies outside is shown in pale grey.
    """
    scale = _scale(max(image.shape[:2]))
    shown = _resized(image, scale)
    framed = _framed(shown, [edge * scale for edge in box])
    if heat is None:
        return framed
    gap = np.full((len(shown), GAP, 3), PAPER, np.uint8)
    return np.concatenate([framed, gap, _heated(shown, heat)], axis=1)


def _scale(longer: int) -> float:
    """A whole number where the image is enlarged, so that each of its pixels is as large as the others."""
    return MOST / longer if longer > MOST else float(max(1, -(-LEAST // longer)))


def _resized(image: UInt8[np.ndarray, "y x 3"], scale: float) -> UInt8[np.ndarray, "v u 3"]:
    height, width = (max(1, round(side * scale)) for side in image.shape[:2])
    kind = Image.Resampling.NEAREST if scale >= 1 else Image.Resampling.BICUBIC
    return np.asarray(Image.fromarray(image).resize((width, height), kind))


def _framed(image: UInt8[np.ndarray, "y x 3"], box: list[float]) -> UInt8[np.ndarray, "y x 3"]:
    """A coloured frame with a white rim, which is seen on any ground; never thinner than its own lines."""
    framed = image.copy()
    height, width = image.shape[:2]
    left, right = _edges(box[0], box[2], width)
    top, bottom = _edges(box[1], box[3], height)
    for depth, colour in enumerate((RIM, FRAME, FRAME, RIM)):
        rows, columns = (top + depth, bottom - 1 - depth), (left + depth, right - 1 - depth)
        if rows[0] <= rows[1] and columns[0] <= columns[1]:
            framed[rows[0] : rows[1] + 1, columns] = colour
            framed[rows, columns[0] : columns[1] + 1] = colour
    return framed


def _edges(start: float, length: float, side: int) -> tuple[int, int]:
    """The pixels from which and up to which a frame is drawn, inside the image."""
    first = min(max(round(start), 0), side - 1)
    return first, min(max(round(start + length), first + 1), side)


def _heated(image: UInt8[np.ndarray, "y x 3"], heat: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "y x 3"]:
    """The grey image under the heat of its centre square."""
    grey = np.repeat(image.mean(axis=2, keepdims=True), 3, axis=2)
    top, left, side = centre_square(*image.shape[:2])
    rows, columns = (np.arange(side) * cells // side for cells in heat.shape)
    colours = _colours(heat / max(float(heat.max()), 1e-12))[rows[:, None], columns[None]]
    shown = (grey + 255) / 2
    square = (slice(top, top + side), slice(left, left + side))
    shown[square] = THROUGH * grey[square] + (1 - THROUGH) * colours
    return shown.round().astype(np.uint8)


def _colours(shares: Float[np.ndarray, "h w"]) -> Float[np.ndarray, "h w 3"]:
    anchors = np.array([COLD, WARM, HOT], float)
    return np.stack([np.interp(shares, [0, 0.5, 1], anchors[:, channel]) for channel in range(3)], axis=2)
