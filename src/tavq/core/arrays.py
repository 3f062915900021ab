"""Reads numpy's .npz files, which others hand out weights in."""

import zipfile
from collections.abc import Iterable
from pathlib import Path

import numpy as np

from tavq.core.errors import FileError
from tavq.core.regular import open_regular

SMALL = 100_000_000
"""Bytes that an array may unpack to whatever it is packed into."""

MAX_RATIO = 20
"""Weights shrink by a few per cent; only repetition shrinks as much as this."""


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file.

    Raises:
        FileError: it is damaged, would fill the memory, or holds arrays of Python objects, which would need pickle.
    """
    try:
        # opened here, because numpy leaves the file open if it is not an archive
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            _check_unpacked(archive.zip.infolist())
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each raise errors of several kinds
        raise FileError(f"{path} is not a readable .npz file: {error}.") from error


def _check_unpacked(entries: Iterable[zipfile.ZipInfo]) -> None:
    for entry in entries:
        if entry.file_size > max(SMALL, MAX_RATIO * entry.compress_size):
            packed, unpacked = f"{entry.compress_size:,}", f"{entry.file_size:,}"
            raise FileError(f"{entry.filename} would unpack from {packed} to {unpacked} bytes, which no weights do")
