"""Loads images as models and servers expect them."""

import base64
import io
from pathlib import Path

from PIL import Image

from tavq.core.errors import DataError
from tavq.data.folder import open_storage
from tavq.data.images import load_image

QUALITY = 90  # of the JPEG that is sent


def load_resized(folder: Path, file_name: str, longest_side: int) -> Image.Image:
    """The image in RGB, its longer side at most `longest_side` pixels; DataError with the reason if it is unreadable.

    The path is checked again, because a link may have been created since the data set was read.
    """
    path = open_storage(folder).file(file_name)
    try:
        image = Image.fromarray(load_image(path, at_least=longest_side))
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{path}: ")) from error
    image.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
    return image


def to_data_url(image: Image.Image) -> str:
    """The image encoded as a data URL."""
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
