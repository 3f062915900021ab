"""Crop and resize images of any size to a square, and convert between bytes and the range [-1, 1]."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import Field
from torch import Tensor

from tavq.core.config import Config
from tavq.ops.waiting import constant


class AugmentConfig(Config):
    """Augmentation in training.

    `flip` is the probability of mirroring an image. It doubles the views of a small data set, but captions are not
    mirrored: "a dog left of a ball" becomes false for half of the images. Set it to 0 if text names sides or images
    contain writing.

    `crop_scale` is the smallest fraction of the largest square's area that a crop keeps; 1 keeps the shorter side and
    only moves the crop along the longer one. A tight crop loses what the caption describes.
    """

    flip: float = Field(default=0.5, ge=0, le=1)
    crop_scale: float = Field(default=1.0, gt=0, le=1)


NO_AUGMENTATION = AugmentConfig(flip=0)


PREPROCESSING = {
    "decoder": "Pillow; a JPEG at the least of 1/1, 1/2, 1/4, 1/8 that leaves both sides `size` pixels or more",
    "crop": "centre square of the shorter side",
    "resize": "Pillow bicubic with antialias, on bytes",
    "range": "byte / 127.5 - 1, float32",
}
"""How evaluation preprocesses an image file, as recorded with the results."""


def crop_and_resize(
    image: UInt8[np.ndarray, "y x 3"],
    size: int,
    rng: np.random.Generator | None = None,
    augment: AugmentConfig = NO_AUGMENTATION,
    nearest: bool = False,
) -> UInt8[Tensor, "3 {size} {size}"]:
    """Crop a square, resize it to `size` pixels a side and return its bytes, channels first.

    Args:
        image: the upright image.
        size: the side of the result in pixels.
        rng: None for the centre square (evaluation); else position, size and mirroring of the crop are random
            (training). Always draws four numbers, so that no setting shifts the random numbers of another.
        augment: the settings of the random crop.
        nearest: resize by nearest neighbour, for maps whose colours stand for classes and have no mean. Otherwise by
            Pillow's bicubic filter, which averages over the source pixels when it shrinks (antialias).
    """
    height, width = image.shape[:2]
    side = min(height, width)
    scale, down, across, mirror = (0.0, 0.5, 0.5, 1.0) if rng is None else rng.random(4)
    if rng is not None:
        area = augment.crop_scale + (1 - augment.crop_scale) * scale
        side = max(1, round(side * area**0.5))
    y, x = _offset(height - side, down), _offset(width - side, across)
    square = image[y : y + side, x : x + side]
    if side != size:
        filter = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
        square = np.asarray(Image.fromarray(square).resize((size, size), filter))
    if rng is not None and mirror < augment.flip:
        square = square[:, ::-1]
    return torch.from_numpy(square.transpose(2, 0, 1).copy())


def is_mirrored(rng: np.random.Generator, augment: AugmentConfig) -> bool:
    """Whether `crop_and_resize` would mirror an image with these random numbers."""
    return bool(rng.random(4)[3] < augment.flip)


def centre_square(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the square that `crop_and_resize` crops in evaluation from an image of this size."""
    side = min(height, width)
    return _offset(height - side, 0.5), _offset(width - side, 0.5), side


def _offset(margin: int, fraction: float) -> int:
    """One of the `margin` + 1 offsets of a crop; a uniform `fraction` in [0, 1) makes all equally likely."""
    return int(fraction * (margin + 1))


def to_float(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Convert bytes to floats in [-1, 1]: 0 becomes -1, 255 becomes 1; to the same ones on every device."""
    # by a number, CUDA would multiply by its rounded reciprocal
    half = 127.5 if images.device.type == "cpu" else constant((127.5,), images.device, torch.float32)
    return images.float().div_(half).sub_(1)


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Convert floats in [-1, 1] to the nearest bytes, clipping values outside; the inverse of `to_float`."""
    return images.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
