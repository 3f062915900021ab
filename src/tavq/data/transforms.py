"""From an image of any size to a square of bytes, and between bytes and the range [-1, 1]."""

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from pydantic import Field
from torch import Tensor

from tavq.core.config import Config


class AugmentConfig(Config):
    """What training changes in an image.

    `flip` is the chance that an image is mirrored. It doubles the views of small data sets, but the caption stays as
    it is: "a dog left of a ball" becomes false for half of the images. Set it to 0 where text names sides or where
    images hold writing.

    `crop_scale` is the smallest share of the largest square that a crop keeps; 1 keeps the whole shorter side and
    moves the crop along the longer one only. A tight crop loses what the caption speaks of.
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
"""How evaluation brings an image file to a square of numbers, as a result tells it."""


def crop_and_resize(
    image: UInt8[np.ndarray, "y x 3"],
    size: int,
    rng: np.random.Generator | None = None,
    augment: AugmentConfig = NO_AUGMENTATION,
    nearest: bool = False,
) -> UInt8[Tensor, "3 {size} {size}"]:
    """A square of `size` pixels a side as bytes, channels first.

    Without `rng`, for evaluation: the centre square, resized. With it, for training: a square whose place, size and
    mirroring come from `rng` and `augment`; always four draws, so that one setting never shifts another's draws.
    Resized by Pillow's bicubic filter, which averages over the source pixels when it shrinks (antialias); with
    `nearest` each pixel is one of the image's, since colours that stand for classes have no mean.
    """
    height, width = image.shape[:2]
    side = min(height, width)
    share, up, across, mirror = (0.0, 0.5, 0.5, 1.0) if rng is None else rng.random(4)
    if rng is not None:
        area = augment.crop_scale + (1 - augment.crop_scale) * share
        side = max(1, round(side * area**0.5))
    y, x = _place(height - side, up), _place(width - side, across)
    square = image[y : y + side, x : x + side]
    if side != size:
        filter = Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
        square = np.asarray(Image.fromarray(square).resize((size, size), filter))
    if rng is not None and mirror < augment.flip:
        square = square[:, ::-1]
    return torch.from_numpy(square.transpose(2, 0, 1).copy())


def centre_square(height: int, width: int) -> tuple[int, int, int]:
    """Top, left and side of the square that `crop_and_resize` takes for evaluation of an image of this size."""
    side = min(height, width)
    return _place(height - side, 0.5), _place(width - side, 0.5), side


def _place(room: int, share: float) -> int:
    """One of the room + 1 positions, each for an equal range of `share` in [0, 1)."""
    return int(share * (room + 1))


def to_float(images: UInt8[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """Bytes as numbers in [-1, 1]: 0 is -1, 255 is 1."""
    return images.float().div_(127.5).sub_(1)


def to_uint8(images: Float[Tensor, "*shape"]) -> UInt8[Tensor, "*shape"]:
    """Numbers in [-1, 1] as the nearest bytes; what lies outside is cut off. The inverse of `to_float`."""
    return images.detach().float().add(1).mul_(127.5).round_().clamp_(0, 255).to(torch.uint8)
