"""Tiny copies of published data sets."""

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from PIL import Image


def jpeg(number: int, width: int = 16, height: int = 12) -> bytes:
    """A picture whose bytes tell which one it is."""
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (number, 0, 0)).save(buffer, "JPEG")
    return buffer.getvalue()


def classes_png(classes: object) -> bytes:
    """A segmentation with these numbers."""
    buffer = io.BytesIO()
    Image.fromarray(np.asarray(classes, np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def lay_out(folder: Path, files: Mapping[str, str | bytes]) -> Path:
    """Writes the files by their relative names."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder
