"""Images inside a page: data URIs, sheets of tiles, and crops of original files."""

import base64
import io
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from tavq.data.images import load_image
from tavq.data.transforms import crop_and_resize, to_uint8
from tavq.report.html.markup import Markup, tag

EXACT = 160
"""Pixels of the longer side up to which an image is kept exactly (PNG); larger ones are JPEG of quality 92."""

GREY = 235
GAP = 1
"""Pixels between the tiles of a sheet."""

Bytes = UInt8[np.ndarray, "y x 3"]


def as_bytes(image: Float[Tensor, "3 y x"]) -> UInt8[np.ndarray, "y x 3"]:
    """An image in [-1, 1] as bytes, channels last."""
    array: np.ndarray = to_uint8(image).permute(1, 2, 0).cpu().numpy()
    return array


def data_uri(image: UInt8[np.ndarray, "y x 3"], exact: bool | None = None) -> str:
    """An image as a data URI; `exact` (PNG) by default where it is small."""
    if exact is None:
        exact = max(image.shape[:2]) <= EXACT
    buffer = io.BytesIO()
    if exact:
        Image.fromarray(image).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=92, subsampling=0)
    kind = "png" if exact else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(buffer.getvalue()).decode()}"


def img(image: UInt8[np.ndarray, "y x 3"], alt: str, class_: str | None = None, exact: bool | None = None) -> Markup:
    """An `<img>` that holds its image."""
    y, x = image.shape[:2]
    return tag("img", src=data_uri(image, exact), alt=alt, title=alt or None, width=x, height=y, class_=class_)


def sheet(tiles: Sequence[UInt8[np.ndarray, "y x 3"]], columns: int) -> UInt8[np.ndarray, "v u 3"]:
    """Tiles of one size in rows of `columns`, on light grey."""
    y, x = tiles[0].shape[:2]
    rows = math.ceil(len(tiles) / columns)
    canvas = np.full((rows * (y + GAP) + GAP, columns * (x + GAP) + GAP, 3), GREY, np.uint8)
    for number, tile in enumerate(tiles):
        top, left = (number // columns) * (y + GAP) + GAP, (number % columns) * (x + GAP) + GAP
        canvas[top : top + y, left : left + x] = tile
    return canvas


def crop(path: Path, size: int, box: tuple[int, int, int, int]) -> UInt8[np.ndarray, "v u 3"]:
    """A part of an original file, at its own resolution.

    Args:
        path: the image.
        size: side of the square that the tokenizer saw of it.
        box: left, top, right and bottom in pixels of that square; parts outside are left out.
    """
    image = load_image(path)
    side = max(size, min(min(image.shape[:2]), 4 * size))
    square = crop_and_resize(image, side).permute(1, 2, 0).numpy()
    left, top, right, bottom = (min(max(round(edge * side / size), 0), side) for edge in box)
    return np.ascontiguousarray(square[top:bottom, left:right])


def colours_of(entries: Float[Tensor, "k d"]) -> UInt8[np.ndarray, "k 3"]:
    """A colour for each entry so that near entries have near colours: the first three principal components as RGB.

    The widest component is spread over 0 to 255 between its 2nd and 98th percentile and the others by the same scale,
    so that one that hardly varies does not tell near entries apart. A component's sign has no meaning; it is fixed so
    that its largest coordinate is positive, which makes the colours the same on every machine.
    """
    centred = (entries - entries.mean(0)).double().cpu()
    _, _, directions = torch.linalg.svd(centred, full_matrices=False)
    directions = directions[:3]
    signs = directions.gather(1, directions.abs().argmax(1, keepdim=True)).sign()
    places = centred @ (directions * signs).mT
    low, high = (torch.quantile(places, share, dim=0) for share in (0.02, 0.98))
    widest = (high - low).max().clamp(min=1e-12)
    scaled = ((places - (low + high) / 2) / widest + 0.5).clamp(0, 1)
    colours = torch.full((len(entries), 3), 0.5, dtype=torch.float64)
    colours[:, : scaled.shape[1]] = scaled
    array: np.ndarray = (colours * 255).round().to(torch.uint8).numpy()
    return array
