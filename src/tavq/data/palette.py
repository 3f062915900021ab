"""Segmentation maps as images: a fixed colour for each class index, or the data set's own colours.

Source: the colour map of the PASCAL VOC development kit. Bits 0, 1 and 2 of the class index are the highest bits of
red, green and blue, bits 3, 4 and 5 the next, and so on: classes 0 to 5 are (0, 0, 0), (128, 0, 0), (0, 128, 0),
(128, 128, 0), (0, 0, 128), (128, 0, 128), and class 8 is (64, 0, 0). No two classes share a colour, and the first 8^i
differ by at least 256 / 2^i in red, green or blue.
"""

from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
from jaxtyping import Int, UInt8
from pydantic import AfterValidator, Field

from tavq.core.config import Config, build
from tavq.core.errors import DataError

CLASSES = 1 << 24  # the number of RGB colours


def _check_distinct(colours: "Colours") -> "Colours":
    classes: dict[tuple[int, int, int], int] = {}
    for index, colour in colours.items():
        if classes.setdefault(colour, index) != index:
            raise ValueError(f"classes {classes[colour]} and {index} share the colour {list(colour)}")
    return colours


Byte = Annotated[int, Field(ge=0, le=255)]
Class = Annotated[int, Field(ge=0, lt=CLASSES)]
RGB = tuple[Byte, Byte, Byte]
Colours = Annotated[dict[Class, RGB], Field(min_length=1, max_length=1024), AfterValidator(_check_distinct)]
"""A data set's own colours: distinct red, green and blue values for every class in its maps."""


class _StoredColours(Config):
    colours: Colours | None


def load_colours(metadata: Mapping[str, Any], source: str) -> "Colours | None":
    """The colours that a segmentation tokenizer was trained on; None for the palette's.

    Its input must be coloured in the same way.

    Args:
        metadata: the metadata in the tokenizer's model folder.
        source: where they came from, for the UsageError if they cannot be read.
    """
    return build(_StoredColours, {"colours": metadata.get("colours")}, source).colours


def palette_colours(classes: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k 3"]:
    """The palette's colour of each class index; DataError if one is negative or above 16,777,215."""
    least, greatest = int(classes.min(initial=0)), int(classes.max(initial=0))
    if least < 0 or greatest >= CLASSES:
        raise DataError(f"class indices must be 0 to {CLASSES - 1:,}; the segmentation has {least} to {greatest}")
    colours = np.zeros((len(classes), 3), np.uint8)
    for bit in range(24):
        colours[:, bit % 3] |= ((classes >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return colours


def colourize(
    classes: Int[np.ndarray, "y x"], own: Mapping[int, tuple[int, int, int]] | None = None
) -> UInt8[np.ndarray, "y x 3"]:
    """Turn a map of class indices into an image, in the palette's colours or in the data set's `own`.

    Raises DataError if an index is out of range, or if a class has no colour of its own.
    """
    present, inverse = np.unique(classes, return_inverse=True)
    if own is None:
        table = palette_colours(present)
    else:
        missing = [int(index) for index in present if index not in own]
        if missing:
            raise DataError(f"data.colours has no colour for class {missing[0]}; it must name every class of the maps")
        table = np.array([own[int(index)] for index in present], np.uint8)
    return table[inverse.reshape(classes.shape)]
