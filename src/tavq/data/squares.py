"""The one way to prepare an image for a network outside of training: its centre square, the same from any source."""

from jaxtyping import UInt8
from PIL import Image
from torch import Tensor

from tavq.data.images import convert_image, load_image
from tavq.data.storage import DataFile
from tavq.data.transforms import crop_and_resize


def load_square(source: DataFile | Image.Image, size: int) -> UInt8[Tensor, "3 {size} {size}"]:
    """Load the centre square of an image as bytes: of a file alone, a file in a data set or an image of Pillow.

    Args:
        source: an image file, or an image of Pillow as `convert_image` reads it.
        size: the side of the square in pixels.

    Raises:
        DataError: the image cannot be read.
    """
    pixels = convert_image(source, size) if isinstance(source, Image.Image) else load_image(source, size)
    return crop_and_resize(pixels, size)
