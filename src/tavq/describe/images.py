"""Pictures as models and servers take them."""

import base64
import io
from pathlib import Path

from PIL import Image

from tavq.core.errors import DataError
from tavq.core.files import inside
from tavq.data.images import load_picture

QUALITY = 90  # of the JPEG that is sent


def load(folder: Path, file_name: str, longest_side: int) -> Image.Image:
    """The picture in RGB, its longer side at most `longest_side` pixels; DataError with the reason where it cannot be.

    The name is checked again: a link may have been put there since the data set was read.
    """
    path = inside(folder, file_name)
    try:
        picture = Image.fromarray(load_picture(path, at_least=longest_side))
    except DataError as error:
        raise DataError(str(error).removeprefix(f"{path}: ")) from error
    picture.thumbnail((longest_side, longest_side), Image.Resampling.BICUBIC)
    return picture


def data_url(picture: Image.Image) -> str:
    """The picture itself as a URL."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
