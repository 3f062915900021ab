"""From a JPEG file to the bytes of 256 px, on one core."""

import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tavq.bench.case import Alternative, Case, Scale
from tavq.data.images import load_image
from tavq.data.transforms import crop_and_resize

SIZE = 256
PHOTOGRAPHS = {"480": (480, 640), "1024": (1024, 1024)}
TOY = {"480": (96, 128)}
COUNT = 8


def cases(scale: Scale) -> Iterator[Case]:
    """Photographs of 640 x 480 and 1024 x 1024."""
    for key, (height, width) in (TOY if scale.toy else PHOTOGRAPHS).items():
        size = 32 if scale.toy else SIZE
        with tempfile.TemporaryDirectory() as folder:
            paths = [write_photograph(Path(folder) / f"{i}.jpg", height, width, i) for i in range(COUNT)]
            case = Case(f"jpeg/{key}", f"JPEG of {width} x {height} to {size} px", rounds=10)
            case.alternatives += [
                Alternative("Pillow", partial(each, paths, partial(pillow, size=size)), items=COUNT),
                Alternative("taming", partial(each, paths, partial(taming_images, size=size)), items=COUNT),
                Alternative("tavq", partial(each, paths, partial(ours, size=size)), items=COUNT),
            ]
            case.add_peer("simplejpeg", "simplejpeg", partial(simplejpeg_images, paths, size))
            yield case


def write_photograph(path: Path, height: int, width: int, seed: int) -> Path:
    """An image with the spectrum of a photograph: noise that fades towards fine detail."""
    random = np.random.default_rng(seed)
    image = np.zeros((height, width, 3))
    for side in (4, 16, 64, 256):
        coarse = random.uniform(-1, 1, (side, side, 3)).astype(np.float32)
        layers = [Image.fromarray(coarse[:, :, c]).resize((width, height), Image.Resampling.BICUBIC) for c in range(3)]
        image += np.stack([np.asarray(layer) for layer in layers], 2) * 2 / side**0.5
    pixels = (127.5 + 90 * image / np.abs(image).max()).clip(0, 255).astype(np.uint8)
    Image.fromarray(pixels).save(path, quality=90)
    return path


def each(paths: list[Path], load: object) -> None:
    """Load all files."""
    for path in paths:
        load(path)  # type: ignore[operator]


def pillow(path: Path, size: int) -> Tensor:
    """Decode all of it, crop the centre square, resize."""
    with Image.open(path) as image:
        rgb = image.convert("RGB")
    side = min(rgb.size)
    left, top = (rgb.width - side) // 2, (rgb.height - side) // 2
    resized = rgb.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BICUBIC)
    return torch.from_numpy(np.asarray(resized).transpose(2, 0, 1).copy())


def taming_images(path: Path, size: int) -> Tensor:
    """The same, and then floats in [-1, 1] with the channels last, as its data sets give them."""
    pixels = pillow(path, size).permute(1, 2, 0).numpy()
    return torch.from_numpy((pixels / 127.5 - 1.0).astype(np.float32))


def ours(path: Path, size: int) -> Tensor:
    """A JPEG decoded at the least scale that is large enough."""
    return crop_and_resize(load_image(path, at_least=size), size)


def simplejpeg_images(paths: list[Path], size: int) -> Iterator[Alternative]:
    """libjpeg-turbo's scaled decoding, and our crop."""
    import simplejpeg

    def load(path: Path) -> Tensor:
        return crop_and_resize(simplejpeg.decode_jpeg(path.read_bytes(), min_height=size, min_width=size), size)

    yield Alternative("simplejpeg", partial(each, paths, load), items=len(paths))
