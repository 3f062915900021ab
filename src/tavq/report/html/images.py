"""Images embedded in a page: elements, sheets of tiles, and colours of entries."""

import math
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tavq.inspection.pixels import data_uri
from tavq.report.html.markup import Markup, tag

GREY = 235
GAP = 1
"""Pixels between the tiles of a sheet."""

Bytes = UInt8[np.ndarray, "y x 3"]


def img(image: UInt8[np.ndarray, "y x 3"], alt: str, class_: str | None = None, exact: bool | None = None) -> Markup:
    """An `<img>` element with the image embedded.

    Args:
        image: the pixels.
        alt: alternative text, also the tooltip.
        class_: of the element.
        exact: store losslessly; by default if the image is small.
    """
    y, x = image.shape[:2]
    return tag("img", src=data_uri(image, exact), alt=alt, title=alt or None, width=x, height=y, class_=class_)


def sheet(tiles: Sequence[UInt8[np.ndarray, "y x 3"]], columns: int) -> UInt8[np.ndarray, "v u 3"]:
    """Arrange tiles of one size in rows of `columns` on light grey."""
    y, x = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full((rows * (y + GAP) + GAP, columns * (x + GAP) + GAP, 3), GREY, np.uint8)
    for index, tile in enumerate(tiles):
        top, left = (index // columns) * (y + GAP) + GAP, (index % columns) * (x + GAP) + GAP
        canvas[top : top + y, left : left + x] = tile
    return canvas


def colours_of(entries: Float[Tensor, "k d"]) -> UInt8[np.ndarray, "k 3"]:
    """A colour for each entry, similar for nearby entries: the first three principal components as RGB.

    The widest component is scaled to 0 to 255 between its 2nd and 98th percentile and the others by the same factor,
    so that a component with little variance does not exaggerate distances. A component's sign is arbitrary; it is
    fixed so that its largest coordinate is positive, which makes the colours the same on every machine.
    """
    centred = (entries - entries.mean(0)).double().cpu()
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:3]
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    projected = centred @ (directions * signs).mT
    low, high = (torch.quantile(projected, fraction, dim=0) for fraction in (0.02, 0.98))
    widest = (high - low).max().clamp(min=1e-12)
    scaled = ((projected - (low + high) / 2) / widest + 0.5).clamp(0, 1)
    colours = torch.full((len(entries), 3), 0.5, dtype=torch.float64)
    colours[:, : scaled.shape[1]] = scaled
    array: np.ndarray = (colours * 255).round().to(torch.uint8).numpy()
    return array
