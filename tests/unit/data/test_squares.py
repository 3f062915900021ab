"""An image gives one square, whether it is named alone, lies in a data set or is an image of Pillow."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import Tensor

from tavq.api.images import read_size, read_square
from tavq.core.errors import DataError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.images import load_image, read_shape
from tavq.data.loader import EvaluationLoader, load_image_batch

SIZE = 64


def photograph(height: int, width: int, seed: int = 0) -> Image.Image:
    """Smooth colours and some noise, so that each way to shrink it gives other bytes."""
    rng = np.random.default_rng(seed)
    coarse = Image.fromarray(rng.integers(0, 256, (7, 9, 3), dtype=np.uint8)).resize((width, height))
    noise = rng.integers(-40, 40, (height, width, 3))
    return Image.fromarray(np.clip(np.asarray(coarse).astype(int) + noise, 0, 255).astype(np.uint8))


def exif(orientation: int) -> Image.Exif:
    found = Image.Exif()
    found[0x0112] = orientation
    return found


KINDS: dict[str, tuple[str, Callable[[Image.Image, Path], None]]] = {
    "jpeg": (".jpg", lambda image, path: image.save(path)),
    "progressive jpeg": (".jpeg", lambda image, path: image.save(path, progressive=True, subsampling=0)),
    "grey jpeg": (".jpg", lambda image, path: image.convert("L").save(path)),
    "cmyk jpeg": (".jpg", lambda image, path: image.convert("CMYK").save(path)),
    "turned jpeg": (".jpg", lambda image, path: image.save(path, exif=exif(6))),
    "mirrored jpeg": (".jpg", lambda image, path: image.save(path, exif=exif(2))),
    "mpo of a phone": (
        ".jpg",
        lambda image, path: image.save(path, "MPO", save_all=True, append_images=[image.rotate(90)]),
    ),
    "turned mpo": (
        ".mpo",
        lambda image, path: image.save(path, "MPO", save_all=True, append_images=[image], exif=exif(8)),
    ),
    "png": (".png", lambda image, path: image.save(path)),
    "turned png": (".png", lambda image, path: image.save(path, exif=exif(5))),
    "transparent png": (".png", lambda image, path: with_alpha(image).save(path)),
    "palette png": (".png", lambda image, path: image.convert("P").save(path, transparency=3)),
    "16-bit png": (".png", lambda image, path: sixteen_bits(image).save(path)),
    "webp": (".webp", lambda image, path: image.save(path, lossless=True)),
    "bmp": (".bmp", lambda image, path: image.save(path)),
    "gif": (".gif", lambda image, path: image.save(path, save_all=True, append_images=[image.rotate(90)])),
    "tiff": (".tiff", lambda image, path: image.save(path)),
    "turned tiff": (".tif", lambda image, path: image.save(path, exif=exif(6))),
}


def with_alpha(image: Image.Image) -> Image.Image:
    image.putalpha(image.convert("L"))
    return image


def sixteen_bits(image: Image.Image) -> Image.Image:
    return Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 201)


def squares(path: Path, size: int = SIZE) -> dict[str, Tensor]:
    """The square of a file by each way in which the product meets it."""
    dataset = FolderDataset(path.parent)
    (batch,) = EvaluationLoader(dataset, DataConfig(size=size), 1)
    with Image.open(path) as opened, Image.open(io.BytesIO(path.read_bytes())) as in_memory:
        return {
            "in a folder": batch.images[0],
            "by name": load_image_batch(dataset, [path.name], size)[0],
            "alone": read_square(path, size)[0],
            "of Pillow": read_square(opened, size)[0],
            "of Pillow, again": read_square(opened, size)[0],
            "of Pillow, in memory": read_square(in_memory, size)[0],
        }


@pytest.mark.parametrize("kind", KINDS)
def test_every_way_to_an_image_gives_the_same_square(tmp_path: Path, kind: str) -> None:
    suffix, save = KINDS[kind]
    path = tmp_path / f"a{suffix}"
    save(photograph(300, 500), path)
    found = squares(path)
    for way, square in found.items():
        assert torch.equal(square, found["in a folder"]), way


@settings(max_examples=25, deadline=None)
@given(
    st.integers(16, 900),
    st.integers(16, 900),
    st.sampled_from([16, 33, 64, 128]),
    st.integers(1, 8),
    st.integers(0, 99),
)
def test_a_jpeg_of_any_shape_gives_one_square(
    tmp_path_factory: pytest.TempPathFactory, height: int, width: int, size: int, turn: int, seed: int
) -> None:
    path = tmp_path_factory.mktemp("jpeg") / "a.jpg"
    longest = 20 * min(height, width)  # of the sides that are read
    photograph(min(height, longest), min(width, longest), seed).save(path, exif=exif(turn))
    found = squares(path, size)
    for way, square in found.items():
        assert torch.equal(square, found["in a folder"]), way


@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_an_image_is_that_of_its_pixels(tmp_path: Path, kind: str) -> None:
    suffix, save = KINDS[kind]
    path = tmp_path / f"a{suffix}"
    save(photograph(30, 50), path)
    expected = load_image(path).shape[:2]
    assert read_shape(path)[:2] == expected
    with Image.open(path) as image:
        assert read_size(image) == expected
        read_square(image, 16)
        assert read_size(image) == expected


def test_an_mpo_is_decoded_small_as_any_jpeg(tmp_path: Path) -> None:
    image = photograph(600, 800)
    image.save(tmp_path / "a.jpg", "JPEG")
    image.save(tmp_path / "b.jpg", "MPO", save_all=True, append_images=[image])
    assert load_image(tmp_path / "b.jpg", at_least=100).shape == (150, 200, 3)
    small = [load_image(tmp_path / name, at_least=100) for name in ("a.jpg", "b.jpg")]
    np.testing.assert_array_equal(*small)


def test_pixels_of_pillow_are_used_as_they_are(tmp_path: Path) -> None:
    """An image that was made from another is upright already, whatever EXIF it took along."""
    photograph(30, 50).save(tmp_path / "a.jpg", exif=exif(6))
    with Image.open(tmp_path / "a.jpg") as image:
        turned = image.transpose(Image.Transpose.ROTATE_270)
        assert read_size(turned) == (50, 30)
        assert torch.equal(read_square(turned, 16), read_square(tmp_path / "a.jpg", 16))
        assert image.size == (50, 30)


def test_an_image_of_pillow_is_not_changed(tmp_path: Path) -> None:
    photograph(300, 500).save(tmp_path / "a.jpg")
    with Image.open(tmp_path / "a.jpg") as image:
        read_square(image, 16)
        assert image.size == (500, 300)
        np.testing.assert_array_equal(np.asarray(image), load_image(tmp_path / "a.jpg"))


def test_a_cut_file_opened_by_pillow_is_one_clear_error(tmp_path: Path) -> None:
    path = tmp_path / "a.jpg"
    photograph(300, 500).save(path)
    path.write_bytes(path.read_bytes()[:2000])
    with Image.open(path) as image, pytest.raises(DataError, match=r"a\.jpg: it cannot be decoded"):
        read_square(image, 16)
