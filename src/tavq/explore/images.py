"""The images that are explored: those of the data set by number, and uploads that are kept in memory for a while."""

import io
import threading
from collections import OrderedDict
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image, UnidentifiedImageError
from torch import Tensor

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset
from tavq.data.images import FORMATS, convert_image
from tavq.data.records import Record
from tavq.data.squares import load_square
from tavq.data.transforms import crop_and_resize, to_float
from tavq.explore.errors import NotFound, TooLarge

UPLOAD_BYTES = 8 << 20
UPLOAD_PIXELS = 16_000_000
UPLOADS = 16
"""Uploads that are kept; a new one displaces the oldest."""

UPLOAD_SIDE = 1024
"""Longer side at which an upload is kept."""

CACHED = 128
"""Squares that are kept decoded."""


@dataclass(frozen=True)
class Upload:
    """An image that a user sent."""

    name: str
    pixels: UInt8[np.ndarray, "y x 3"]


class ImageSource:
    """Squares of images by their id: a number in the data set, or "u" and the number of an upload.

    Args:
        dataset: the images.
    """

    def __init__(self, dataset: FolderDataset) -> None:
        self.dataset = dataset
        self._uploads: OrderedDict[int, Upload] = OrderedDict()
        self._squares: OrderedDict[tuple[str, int], UInt8[Tensor, "3 y x"]] = OrderedDict()
        self._next = 0
        self._lock = threading.Lock()

    def number(self, image: str) -> int | None:
        """The number of an image of the data set; None for an upload. Raises NotFound where there is none."""
        if image.startswith("u"):
            self._upload(image)
            return None
        if not (image.isascii() and image.isdigit()) or int(image) >= len(self.dataset):
            raise NotFound(f"There is no image {image!r}; images are 0 to {len(self.dataset) - 1}, or uploads.")
        return int(image)

    def record(self, image: str) -> Record:
        """The record of an image; of an upload one without annotations."""
        number = self.number(image)
        return Record(self._upload(image).name) if number is None else self.dataset[number]

    def _upload(self, image: str) -> Upload:
        number = image.removeprefix("u")
        with self._lock:
            found = self._uploads.get(int(number)) if number.isascii() and number.isdigit() else None
        if found is None:
            raise NotFound(f"The upload {image!r} is not kept any more, or never was; upload the image again.")
        return found

    def add(self, data: bytes) -> str:
        """Keep an uploaded image file and return its id.

        Raises:
            TooLarge: it has too many bytes or pixels.
            DataError: it is not an image that can be read.
        """
        pixels = read_upload(data)
        with self._lock:
            number, self._next = self._next, self._next + 1
            self._uploads[number] = Upload(f"upload {number}", pixels)
            while len(self._uploads) > UPLOADS:
                self._uploads.popitem(last=False)
        return f"u{number}"

    def square(self, image: str, size: int) -> UInt8[Tensor, "3 {size} {size}"]:
        """The centre square of an image; DataError where its file cannot be read."""
        key = (image, size)
        with self._lock:
            if key in self._squares:
                self._squares.move_to_end(key)
                return self._squares[key]
        number = self.number(image)
        if number is None:
            square = crop_and_resize(self._upload(image).pixels, size)
        else:
            square = load_square(self.dataset.file(self.dataset[number].file_name), size)
        with self._lock:
            self._squares[key] = square
            while len(self._squares) > CACHED:
                self._squares.popitem(last=False)
        return square

    def batch(self, image: str, size: int) -> Float[Tensor, "1 3 {size} {size}"]:
        """The centre square in [-1, 1], as networks read it."""
        return to_float(self.square(image, size))[None]

    def pixels(self, image: str, size: int) -> UInt8[np.ndarray, "y x 3"]:
        """The centre square, channels last."""
        return np.ascontiguousarray(self.square(image, size).permute(1, 2, 0).numpy())


def read_upload(data: bytes) -> UInt8[np.ndarray, "y x 3"]:
    """The pixels of an image file in memory, made smaller where it is large.

    Raises:
        TooLarge: it has too many bytes or pixels.
        DataError: it is not an image that can be read.
    """
    if len(data) > UPLOAD_BYTES:
        raise TooLarge(f"The upload has {len(data):,} bytes; at most {UPLOAD_BYTES:,} are accepted.")
    try:
        with Image.open(io.BytesIO(data), formats=FORMATS) as image:
            if image.width * image.height > UPLOAD_PIXELS:
                raise TooLarge(f"The upload has {image.width} x {image.height} pixels; at most {UPLOAD_PIXELS:,}.")
            pixels = convert_image(image)
    except (TooLarge, DataError):
        raise
    except UnidentifiedImageError as error:
        raise DataError(f"The upload is not an image in one of these formats: {', '.join(FORMATS)}.") from error
    except Exception as error:  # a hostile file may raise anything, from struct.error to MemoryError
        raise DataError(f"The upload cannot be read as an image ({type(error).__name__}).") from error
    longer = max(pixels.shape[:2])
    if longer <= UPLOAD_SIDE:
        return pixels
    shape = [max(1, round(side * UPLOAD_SIDE / longer)) for side in pixels.shape[:2]]
    return np.asarray(Image.fromarray(pixels).resize((shape[1], shape[0]), Image.Resampling.BICUBIC))
