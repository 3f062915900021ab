"""Images for a page: bytes, data URIs, and crops of original files."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from tavq.data.images import load_image
from tavq.data.storage import DataFile
from tavq.data.transforms import crop_and_resize, to_uint8

MAX_EXACT = 160
"""Longer side in pixels up to which an image is stored losslessly (PNG); larger ones are JPEG of quality 92."""


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


def crop(path: DataFile, size: int, box: tuple[int, int, int, int]) -> UInt8[np.ndarray, "v u 3"]:
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
