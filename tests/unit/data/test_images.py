"""Every kind of image file becomes RGB bytes with values worked out by hand."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tavq.core.errors import DataError
from tavq.data.images import check_image, has_exif_turn, load_image, load_segmentation, save_png

RED, BLUE = (255, 0, 0), (0, 0, 255)


def save(image: Image.Image, path: Path, **options: object) -> Path:
    image.save(path, **options)
    return path


def halves(mode: str = "RGB") -> Image.Image:
    """6 wide, 4 high: the left half red, the right half blue."""
    image = Image.new("RGB", (6, 4), RED)
    image.paste(BLUE, (3, 0, 6, 4))
    return image.convert(mode)


def test_png_keeps_every_byte(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
    save_png(tmp_path / "a.png", image)
    save_png(tmp_path / "b.png", image)
    np.testing.assert_array_equal(load_image(tmp_path / "a.png"), image)
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()


@pytest.mark.parametrize("mode", ["P", "RGBA", "1", "L", "LA"])
def test_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    image = load_image(save(halves(mode), tmp_path / "a.png"))
    expected = np.asarray(halves(mode).convert("RGB"))
    assert image.shape == (4, 6, 3)
    np.testing.assert_array_equal(image, expected)


def test_cmyk_jpeg_keeps_its_colours(tmp_path: Path) -> None:
    path = save(Image.new("CMYK", (8, 8), (0, 255, 255, 0)), tmp_path / "a.jpg", quality=95)
    assert np.abs(load_image(path).astype(int) - RED).max() <= 3


def test_transparency_lies_over_white(tmp_path: Path) -> None:
    path = save(Image.new("RGBA", (2, 2), (255, 0, 0, 0)), tmp_path / "clear.png")
    assert load_image(path)[0, 0].tolist() == [255, 255, 255]
    path = save(Image.new("RGBA", (2, 2), (0, 0, 0, 51)), tmp_path / "faint.png")
    assert load_image(path)[0, 0].tolist() == [204, 204, 204]  # 255 * (1 - 51 / 255)
    palette = halves("P")
    path = save(palette, tmp_path / "palette.png", transparency=palette.getpixel((0, 0)))
    assert load_image(path)[0, [0, 5]].tolist() == [[255, 255, 255], list(BLUE)]


def test_sixteen_bits_become_eight_by_scale_not_by_cutting(tmp_path: Path) -> None:
    values = np.array([[0, 257, 32896, 65535]], np.uint16)
    path = save(Image.fromarray(values), tmp_path / "a.png")
    assert load_image(path)[0, :, 0].tolist() == [0, 1, 128, 255]


def test_values_without_a_range_are_refused(tmp_path: Path) -> None:
    path = save(Image.fromarray(np.zeros((2, 2), np.float32)), tmp_path / "a.tiff")
    with pytest.raises(DataError, match=r"a\.tiff: its 32-bit values"):
        load_image(path)


def test_animation_gives_its_first_frame(tmp_path: Path) -> None:
    first, second = Image.new("RGB", (4, 4), RED), Image.new("RGB", (4, 4), BLUE)
    path = save(first, tmp_path / "a.gif", save_all=True, append_images=[second])
    assert load_image(path)[0, 0].tolist() == list(RED)


@pytest.mark.parametrize(
    ("orientation", "top_left", "shape"),
    [
        (1, RED, (4, 6)),
        (2, BLUE, (4, 6)),
        (3, BLUE, (4, 6)),
        (4, RED, (4, 6)),
        (5, RED, (6, 4)),
        (6, RED, (6, 4)),
        (7, BLUE, (6, 4)),
        (8, BLUE, (6, 4)),
    ],
)
def test_exif_orientation_is_applied(
    tmp_path: Path, orientation: int, top_left: tuple[int, int, int], shape: tuple[int, int]
) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = save(halves(), tmp_path / "a.png", exif=exif)
    image = load_image(path)
    assert has_exif_turn(path) == (orientation > 1)
    assert image.shape[:2] == shape
    assert image[0, 0].tolist() == list(top_left)


def test_a_large_jpeg_is_decoded_small_but_never_below_the_wish(tmp_path: Path) -> None:
    path = save(Image.new("RGB", (800, 600), RED), tmp_path / "a.jpg")
    assert load_image(path).shape == (600, 800, 3)
    assert load_image(path, at_least=100).shape == (150, 200, 3)
    assert load_image(path, at_least=600).shape == (600, 800, 3)


def test_segmentation_gives_stored_numbers(tmp_path: Path) -> None:
    classes = np.array([[0, 1], [2, 255]], np.uint8)
    assert load_segmentation(save(Image.fromarray(classes), tmp_path / "grey.png")).tolist() == classes.tolist()
    palette = Image.fromarray(classes, "L").convert("P")
    palette.putdata(classes.ravel().tolist())
    assert load_segmentation(save(palette, tmp_path / "palette.png")).tolist() == classes.tolist()
    with pytest.raises(DataError, match="holds colours"):
        load_segmentation(save(halves(), tmp_path / "colours.png"))


def test_check_sees_a_png_cut_behind_its_pixels(tmp_path: Path) -> None:
    path = save(halves(), tmp_path / "a.png")
    assert check_image(path) == (4, 6)
    whole = path.read_bytes()
    for cut in (1, 4, 12):
        path.write_bytes(whole[:-cut])
        with pytest.raises(DataError, match=r"a\.png"):
            check_image(path)
