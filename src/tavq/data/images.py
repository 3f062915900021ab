"""Image files in and out: whatever the file holds, plain RGB bytes or one error that names it.

Files come from strangers. Only six formats are ever tried (never one that starts another program, as EPS does), the
size is checked before any pixel is decoded, and every way in which decoding can fail ends in a DataError.
"""

import io
from pathlib import Path

import numpy as np
from jaxtyping import Int, UInt8, UInt16
from PIL import Image, UnidentifiedImageError

from tavq.core.errors import DataError
from tavq.core.files import write_bytes

FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})

MAX_PIXELS = 64_000_000  # three bytes each when decoded: 192 MB
MAX_RATIO = 20  # longer side over shorter side; beyond it a square crop shows nothing of the image
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


def load_image(path: Path, at_least: int | None = None) -> UInt8[np.ndarray, "y x 3"]:
    """The image in a file as RGB bytes, upright.

    The first frame of an animation; transparency over white; 16-bit grey scaled to 8 bits; CMYK and palettes as RGB;
    EXIF orientation applied. With `at_least`, a JPEG may be decoded at 1/2, 1/4 or 1/8 of its size as long as both
    sides keep that many pixels, which is several times faster. It is about the mean of each 2 x 2, 4 x 4 or 8 x 8
    pixels: sharper than the bicubic filter, so that what is measured differs too (docs/protocol.md).

    Raises DataError with the file and the reason: missing, no image, cut short, over 64 megapixels, longer than 20
    times its other side, or of a kind that has no fixed range (32-bit).
    """
    with _opened(path) as image:
        try:
            if at_least is not None and image.format == "JPEG":
                image.draft("RGB", (at_least, at_least))
            image.load()
            return np.asarray(_rgb(_upright(image)))
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:  # a hostile file raises anything, from struct.error to MemoryError
            raise DataError(f"{path}: {_reason(error)}") from error


def load_segmentation(path: Path) -> Int[np.ndarray, "y x"]:
    """The class of each pixel of a segmentation: a grey or palette PNG, whose stored numbers are the classes."""
    with _opened(path) as image:
        try:
            image.load()
            if image.mode not in ("1", "L", "P", "I;16", "I;16B", "I"):
                raise DataError(f"it holds colours ({image.mode}); a segmentation holds one class number a pixel")
            return np.asarray(image).astype(np.int32)
        except DataError as error:
            raise DataError(f"{path}: {error}") from error
        except Exception as error:
            raise DataError(f"{path}: {_reason(error)}") from error


def check_image(path: Path) -> tuple[int, int]:
    """(height, width) of the upright image, after decoding it whole and verifying its checksums; else DataError.

    Stricter than `load_image`: a PNG whose end is missing still shows all its pixels, but it was cut.
    """
    height, width, _ = load_image(path).shape
    with _opened(path) as image:
        if image.format == "PNG":
            try:
                image.verify()
            except Exception as error:
                raise DataError(f"{path}: {_reason(error)}") from error
            if b"IEND\xaeB`\x82" not in path.read_bytes():
                raise DataError(f"{path}: it is cut short (the end mark of the PNG is missing)")
    return height, width


def has_exif_turn(path: Path) -> bool:
    """Whether EXIF turns or mirrors the image, so that its stored pixels are not the upright ones."""
    with _opened(path) as image:
        return _turn(image) is not None


def read_shape(path: Path) -> tuple[int, int, bool]:
    """(height, width) of the upright image from its header alone, and whether EXIF turns or mirrors it."""
    with _opened(path) as image:
        try:
            turn = TURNS.get(image.getexif().get(ORIENTATION, 1))
        except Exception:  # as in `_upright`: the pixels are whole
            turn = None
        width, height = image.size
    swapped = turn in (TURNS[5], TURNS[6], TURNS[7], TURNS[8])
    return (width, height, True) if swapped else (height, width, turn is not None)


def save_png(path: Path, image: UInt8[np.ndarray, "y x 3"] | UInt8[np.ndarray, "y x"]) -> None:
    """Writes a PNG atomically; the same pixels give the same bytes with the same version of zlib."""
    write_bytes(path, encode_png(image))


def encode_png(
    image: UInt8[np.ndarray, "y x 3"] | UInt8[np.ndarray, "y x"] | UInt16[np.ndarray, "y x"],
) -> bytes:
    """The pixels as the bytes of a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _opened(path: Path) -> Image.Image:
    """The file with only its header read, within the limits on size and shape."""
    try:
        if path.exists() and not path.is_file():  # a pipe would be waited for without end
            raise DataError(f"{path}: it is not a file")
        image = Image.open(path, formats=FORMATS)
    except DataError:
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"{path}: it is not an image in one of the formats {', '.join(FORMATS)}") from error
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise DataError(f"{path}: it has more than {MAX_PIXELS:,} pixels") from error
    except Exception as error:
        raise DataError(f"{path}: {_reason(error)}") from error
    width, height = image.size
    reason = None
    if width * height > MAX_PIXELS:
        reason = f"it has {width} x {height} pixels; at most {MAX_PIXELS:,} are read"
    elif max(width, height) > MAX_RATIO * min(width, height):
        reason = f"it has {width} x {height} pixels; one side may be at most {MAX_RATIO} times the other"
    if reason:
        image.close()
        raise DataError(f"{path}: {reason}")
    return image


def _reason(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    return f"it cannot be decoded ({str(error).splitlines()[0] if str(error) else type(error).__name__})"


def _upright(image: Image.Image) -> Image.Image:
    turn = _turn(image)
    return image if turn is None else image.transpose(turn)


def _turn(image: Image.Image) -> Image.Transpose | None:
    """What brings the image upright as its EXIF says; unreadable EXIF counts as none, for the pixels are whole."""
    try:
        return TURNS.get(image.getexif().get(ORIENTATION, 1))
    except Exception:
        return None


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode in ("F", "I") or image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, WHITE), image).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bit(image: Image.Image) -> Image.Image:
    """Grey of 16 bits in 8: 65535 is 255. Pillow itself would cut such values off at 255."""
    values = np.asarray(image)
    if image.mode == "F" or values.min() < 0 or values.max() > 65535:
        raise DataError(f"its 32-bit values ({image.mode}) have no fixed range; save it with 8 or 16 bits")
    return Image.fromarray(np.rint(values / 257).astype(np.uint8))
