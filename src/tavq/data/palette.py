"""Segmentation maps as pictures: one colour for each class number, the same in every data set.

Source: the colour map of the PASCAL VOC development kit. Bits 0, 1 and 2 of the class number are the highest bits of
red, green and blue, bits 3, 4 and 5 the next, and so on: classes 0 to 5 are (0, 0, 0), (128, 0, 0), (0, 128, 0),
(128, 128, 0), (0, 0, 128), (128, 0, 128), and class 8 is (64, 0, 0). No two classes share a colour, and the first 8^i
differ by at least 256 / 2^i in red, green or blue.
"""

import numpy as np
from jaxtyping import Int, UInt8

from tavq.core.errors import DataError

CLASSES = 1 << 24
"""As many as there are colours."""


def colours(classes: Int[np.ndarray, " k"]) -> UInt8[np.ndarray, "k 3"]:
    """The colour of each class number; DataError where one is negative or above 16,777,215."""
    least, greatest = int(classes.min(initial=0)), int(classes.max(initial=0))
    if least < 0 or greatest >= CLASSES:
        raise DataError(f"a segmentation's classes are 0 to {CLASSES - 1:,}; it has {least} to {greatest}")
    found = np.zeros((len(classes), 3), np.uint8)
    for bit in range(24):
        found[:, bit % 3] |= ((classes >> bit & 1) << (7 - bit // 3)).astype(np.uint8)
    return found


def coloured(classes: Int[np.ndarray, "y x"]) -> UInt8[np.ndarray, "y x 3"]:
    """A map of class numbers as a picture; DataError as `colours`."""
    present, places = np.unique(classes, return_inverse=True)
    return colours(present)[places.reshape(classes.shape)]
