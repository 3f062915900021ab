"""Images embedded in a page: data URIs, sheets of tiles, and crops of original files."""

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

MAX_EXACT = 160
"""Longer side in pixels up to which an image is stored losslessly (PNG); larger ones are JPEG of quality 92."""

GREY = 235
GAP = 1
"""Pixels between the tiles of a sheet."""

Bytes = UInt8[np.ndarray, "y x 3"]


def as_bytes(image: Float[Tensor, "3 y x"]) -> UInt8[np.ndarray, "y x 3"]:
    """An image in [-1, 1] as bytes, channels last."""
    array: np.ndarray = to_uint8(image).permute(1, 2, 0).cpu().numpy()
    return array


def data_uri(image: UInt8[np.ndarray, "y x 3"], exact: bool | None = None) -> str:
    """An image as a data URI: PNG if `exact` (by default up to a side of `MAX_EXACT` pixels), else JPEG."""
    if exact is None:
        exact = max(image.shape[:2]) <= MAX_EXACT
    buffer = io.BytesIO()
    if exact:
        Image.fromarray(image).save(buffer, "PNG", optimize=True)
    else:
        Image.fromarray(image).save(buffer, "JPEG", quality=92, subsampling=0)
    subtype = "png" if exact else "jpeg"
    return f"data:image/{subtype};base64,{base64.b64encode(buffer.getvalue()).decode()}"


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


def crop(path: Path, size: int, box: tuple[int, int, int, int]) -> UInt8[np.ndarray, "v u 3"]:
    """Crop a region of an original file at the resolution of the file.

    Args:
        path: the image file.
        size: side of the square image that the tokenizer encoded.
        box: left, top, right and bottom in pixels of that square; parts outside are cut off.
    """
    image = load_image(path)
    side = max(size, min(min(image.shape[:2]), 4 * size))
    square = crop_and_resize(image, side).permute(1, 2, 0).numpy()
    left, top, right, bottom = (min(max(round(edge * side / size), 0), side) for edge in box)
    return np.ascontiguousarray(square[top:bottom, left:right])


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
