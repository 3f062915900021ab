"""Reading and writing image files: plain RGB bytes, or one error that names the file.

Files are untrusted. Few formats are tried (never one that starts another program, as EPS does), the size is checked
before any pixel is decoded, and every failure to decode becomes a DataError.
"""

import io
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image, ImageFile, UnidentifiedImageError, features

from tavq.core.errors import DataError, TavqError
from tavq.core.files import write_bytes
from tavq.data.storage import DataFile

OPTIONAL = {"avif": ("AVIF", (".avif",)), "jpg_2000": ("JPEG2000", (".jp2", ".j2k", ".jpx", ".jpf"))}
"""Formats that not every build of Pillow reads, by the name of the library that they need."""


def _find_optional() -> list[tuple[str, tuple[str, ...]]]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an older Pillow warns of names that it does not know
        return [OPTIONAL[library] for library in OPTIONAL if features.check(library)]


FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF", "PPM", *(name for name, _ in _find_optional()))
SUFFIXES = frozenset(
    (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".png", ".apng", ".webp", ".bmp", ".gif", ".tif", ".tiff",
     ".ppm", ".pgm", ".pbm", ".pnm", *(suffix for _, suffixes in _find_optional() for suffix in suffixes))
)  # fmt: skip
UNREAD_SUFFIXES = frozenset(
    (".heic", ".heif", ".hif", ".svg", ".psd", ".tga", ".ico", ".exr", ".hdr", ".raw", ".dng", ".cr2", ".cr3", ".nef",
     ".arw", ".orf", ".rw2", ".jxl", *(suffix for _, suffixes in OPTIONAL.values() for suffix in suffixes))
) - SUFFIXES  # fmt: skip
"""Endings of images that are not read, which are counted where a folder is listed."""

JPEG_FORMATS = ("JPEG", "MPO")
"""Pillow's names of a JPEG; it calls one that holds more images after the first, as phones write, an MPO."""

MAX_PIXELS = 64_000_000  # three bytes each when decoded: 192 MB
MAX_RATIO = 20  # longer side over shorter side; a square crop of a longer image shows hardly any of it
WHITE = (255, 255, 255, 255)
ORIENTATION = 0x0112  # the EXIF tag

TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
SIDE_SWAPS = frozenset(TURNS[value] for value in (5, 6, 7, 8))


def load_image(path: DataFile, at_least: int | None = None) -> UInt8[np.ndarray, "y x 3"]:
    """Load an image file as RGB bytes, with its EXIF orientation applied.

    Takes the first frame of an animation, blends transparency with white, scales 16-bit grey to 8 bits and converts
    CMYK and palettes to RGB.

    Args:
        path: the file: a path, or a member of a shard.
        at_least: decode a JPEG at 1/2, 1/4 or 1/8 of its size as long as both sides keep this many pixels. This is
            several times faster. Each pixel is then about the mean of 2 x 2, 4 x 4 or 8 x 8 pixels, which is sharper
            than the bicubic filter and changes metrics slightly (docs/protocol.md).

    Raises:
        DataError: the file is missing, not an image, truncated, larger than 64 megapixels, more than 20 times as long
            as it is wide, or has 32-bit values, which have no fixed range.
    """
    with _open(path) as image:
        try:
            return _decode(image, at_least)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # a hostile file may raise anything, from struct.error to MemoryError
            raise DataError(f"{path}: {_explain(error)}") from error


def convert_image(image: Image.Image, at_least: int | None = None) -> UInt8[np.ndarray, "y x 3"]:
    """Convert an image of Pillow to RGB bytes, those that `load_image` gives for its file.

    An image that was opened and not decoded yet is read from its file, so that it may be decoded at a smaller size.
    Of any other image the pixels are used as they are; EXIF turns it only where it is still the image of a file.

    Args:
        image: the image, which is not changed.
        at_least: as for `load_image`.

    Raises:
        DataError: the file is truncated, or the image has 32-bit values, which have no fixed range.
    """
    name = getattr(image, "filename", "") or "The image"
    try:
        again = _reopen_undecoded_jpeg(image)
        if again is not None:
            return _decode(again, at_least)
        image.load()
        return np.array(_convert_to_rgb(_apply_orientation(image) if _is_of_file(image) else image))
    except DataError as error:
        raise DataError(f"{name}: {error}") from error
    except Exception as error:
        raise DataError(f"{name}: {_explain(error)}") from error


def shape_of(image: Image.Image) -> tuple[int, int]:
    """(height, width) of an image of Pillow as `convert_image` reads it."""
    width, height = image.size
    return (width, height) if _is_of_file(image) and _swaps_sides(image) else (height, width)


def _is_of_file(image: Image.Image) -> bool:
    """Whether it is what `Image.open` returned: an image made from another keeps its EXIF, though it may be upright."""
    return isinstance(image, ImageFile.ImageFile)


def _reopen_undecoded_jpeg(image: Image.Image) -> Image.Image | None:
    """Open the file of a JPEG again where it is not decoded yet, because a draft would change the caller's image."""
    if not isinstance(image, ImageFile.ImageFile) or image.format not in JPEG_FORMATS:
        return None
    if not image.tile or image.fp is None or image.tell() != 0:
        return None
    position = image.fp.tell()
    image.fp.seek(0)
    data = image.fp.read()
    image.fp.seek(position)
    return Image.open(io.BytesIO(data), formats=FORMATS)


def _decode(image: Image.Image, at_least: int | None) -> UInt8[np.ndarray, "y x 3"]:
    if at_least is not None and image.format in JPEG_FORMATS:
        image.draft("RGB", (at_least, at_least))
    image.load()
    return np.asarray(_convert_to_rgb(_apply_orientation(image)))


def load_segmentation(path: DataFile) -> Int[np.ndarray, "y x"]:
    """Load the class index of each pixel from a grey or palette PNG, whose stored values are the classes."""
    with _open(path) as image:
        try:
            image.load()
            if image.mode not in ("1", "L", "P", "I;16", "I;16B", "I"):
                raise DataError(f"it holds colours ({image.mode}); a segmentation needs one class index per pixel")
            return np.asarray(image).astype(np.int32)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:
            raise DataError(f"{path}: {_explain(error)}") from error


def check_image(path: DataFile) -> tuple[int, int]:
    """Decode an image completely, verify its checksums and return the (height, width) of the upright image.

    Stricter than `load_image`, which accepts a PNG without its end marker if all pixels are there. Raises DataError.
    """
    height, width, _ = load_image(path).shape
    with _open(path) as image:
        if image.format == "PNG":
            try:
                image.verify()
            except Exception as error:
                raise DataError(f"{path}: {_explain(error)}") from error
            if b"IEND\xaeB`\x82" not in path.read_bytes():
                raise DataError(f"{path}: it is truncated (the PNG end marker is missing)")
    return height, width


def has_exif_turn(path: DataFile) -> bool:
    """Whether EXIF rotates or mirrors the image, so that the stored pixels are not the upright image."""
    with _open(path) as image:
        return _find_turn(image) is not None


def read_shape(path: DataFile) -> tuple[int, int, bool]:
    """(height, width) of the upright image from its header alone, and whether EXIF rotates or mirrors it."""
    with _open(path) as image:
        turned, swaps_sides = _find_turn(image) is not None, _swaps_sides(image)
        width, height = image.size
    return (width, height, turned) if swaps_sides else (height, width, turned)


def save_png(path: Path, image: UInt8[np.ndarray, "y x 3"] | UInt8[np.ndarray, "y x"]) -> None:
    """Write a PNG atomically; the same pixels give the same bytes with the same version of zlib."""
    write_bytes(path, encode_png(image))


def encode_png(
    image: UInt8[np.ndarray, "y x 3"] | UInt8[np.ndarray, "y x"] | UInt16[np.ndarray, "y x"],
) -> bytes:
    """Encode pixels as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _open(path: DataFile) -> Image.Image:
    """Open the file and read its header only; DataError if it is not an image within the limits on size and shape."""
    try:
        if isinstance(path, Path) and path.exists() and not path.is_file():  # reading a pipe would block forever
            raise DataError(f"{path}: it is not a file")
        image = Image.open(path if isinstance(path, Path) else io.BytesIO(path.read_bytes()), formats=FORMATS)
    except TavqError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: it is not an image in one of the formats {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: it has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:
        raise DataError(f"{path}: {_explain(error)}") from error
    width, height = image.size
    reason = None
    if width * height > MAX_PIXELS:
        reason = f"it has {width} x {height} pixels; at most {MAX_PIXELS:,} are allowed"
    elif max(width, height) > MAX_RATIO * min(width, height):
        reason = f"it has {width} x {height} pixels; one side may be at most {MAX_RATIO} times the other"
    if reason:
        image.close()
        raise DataError(f"{path}: {reason}")
    return image


def _explain(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    return f"it cannot be decoded ({reason})"


def _apply_orientation(image: Image.Image) -> Image.Image:
    turn = _find_turn(image)
    return image if turn is None else image.transpose(turn)


def _find_turn(image: Image.Image) -> Image.Transpose | None:
    """The transposition that EXIF asks for; unreadable EXIF counts as none, because the pixels are intact."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return None


def _swaps_sides(image: Image.Image) -> bool:
    """Whether the sides of the upright image are those of `image.size` exchanged; Pillow itself turns a TIFF."""
    return image.format != "TIFF" and _find_turn(image) in SIDE_SWAPS


def _convert_to_rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        image = _scale_to_8_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _scale_to_8_bits(image: Image.Image) -> Image.Image:
    """Map 16-bit grey to 8 bits: 65535 becomes 255. Pillow itself would clip at 255."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError(f"its 32-bit values ({image.mode}) have no fixed range; save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
