"""Image files in memory, and differences of images."""

import base64
import io

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

Pixels = UInt8[np.ndarray, "y x 3"]


def encode(image: Pixels, kind: str = "PNG") -> bytes:
    """A PNG or WebP file of an image; WebP is lossy at quality 85."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, kind, **({"quality": 85} if kind == "WEBP" else {"compress_level": 3}))
    return buffer.getvalue()


def as_uri(data: bytes, kind: str = "png") -> str:
    """A file as a data URI."""
    return f"data:image/{kind};base64,{base64.b64encode(data).decode()}"


def difference(first: Pixels, second: Pixels) -> Pixels:
    """The mean absolute difference over channels, in grey."""
    grey = np.abs(first.astype(np.int16) - second).mean(axis=2).round().astype(np.uint8)
    return np.repeat(grey[:, :, None], 3, axis=2)


def difference_map(first: Pixels, second: Pixels, height: int, width: int) -> Float[np.ndarray, "h w"]:
    """The mean absolute difference in each cell of a grid, in steps of 255."""
    absolute = np.abs(first.astype(np.float32) - second).mean(axis=2)
    return absolute.reshape(height, absolute.shape[0] // height, width, -1).mean(axis=(1, 3))


def window(image: Pixels, box: tuple[int, int, int, int]) -> UInt8[np.ndarray, "v u 3"]:
    """A region (top, left, bottom, right) of an image, cut off at its borders."""
    top, left, bottom, right = box
    return np.ascontiguousarray(image[max(top, 0) : bottom, max(left, 0) : right])
