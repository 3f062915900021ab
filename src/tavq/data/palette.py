"""Segmentation maps as images: one colour for each class number, the same in every data set, or a data set's own.

Source: the colour map of the PASCAL VOC development kit. Bits 0, 1 and 2 of the class number are the highest bits of
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

CLASSES = 1 << 24
"""As many as there are colours."""


def _apart(colours: "Colours") -> "Colours":
    classes: dict[tuple[int, int, int], int] = {}
    for number, colour in colours.items():
        if classes.setdefault(colour, number) != number:
            raise ValueError(f"classes {classes[colour]} and {number} share the colour {list(colour)}")
    return colours


Byte = Annotated[int, Field(ge=0, le=255)]
Class = Annotated[int, Field(ge=0, lt=CLASSES)]
Colours = Annotated[dict[Class, tuple[Byte, Byte, Byte]], Field(min_length=1, max_length=1024), AfterValidator(_apart)]
"""A data set's own: red, green and blue of each class that its maps hold, no two alike."""


class _Stored(Config):
    colours: Colours | None


def load_colours(facts: Mapping[str, Any], source: str) -> "Colours | None":
    """Those that a tokenizer of maps was trained on, by what its model folder says of it; None for the palette's.

    Only what is coloured so may be given to it. UsageError where they are damaged.
    """
    return build(_Stored, {"colours": facts.get("colours")}, source).colours


def palette_colours(classes: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k 3"]:
    """The colour of each class number; DataError where one is negative or above 16,777,215."""
    least, greatest = int(classes.min(initial=0)), int(classes.max(initial=0))
    if least < 0 or greatest >= CLASSES:
        raise DataError(f"a segmentation's classes are 0 to {CLASSES - 1:,}; it has {least} to {greatest}")
    found = np.zeros((len(classes), 3), np.uint8)
    for bit in range(24):
        found[:, bit % 3] |= ((classes >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return found


def colourize(
    classes: Int[np.ndarray, "y x"], own: Mapping[int, tuple[int, int, int]] | None = None
) -> UInt8[np.ndarray, "y x 3"]:
    """A map of class numbers as an image, in the palette's colours or a data set's own.

    DataError as `palette_colours`, and where a class has no colour of its own.
    """
    present, places = np.unique(classes, return_inverse=True)
    if own is None:
        return palette_colours(present)[places.reshape(classes.shape)]
    lacking = [int(number) for number in present if number not in own]
    if lacking:
        raise DataError(f"data.colours names no colour for class {lacking[0]}; it must name every class of the maps")
    return np.array([own[int(number)] for number in present], np.uint8)[places.reshape(classes.shape)]
