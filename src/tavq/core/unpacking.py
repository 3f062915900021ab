"""Tells weights from archives that would fill the memory."""

import zipfile
from collections.abc import Iterable

from tavq.core.errors import FileError

SMALL = 100_000_000
"""Bytes that an array may unpack to whatever it is packed into."""

MAX_RATIO = 20
"""Weights shrink by a few per cent; only repetition shrinks as much as this."""


def check_unpacked(entries: Iterable[zipfile.ZipInfo]) -> None:
    """Raise FileError for an archive of arrays of which one unpacks to far more than it is packed into."""
    for entry in entries:
        if entry.file_size > max(SMALL, MAX_RATIO * entry.compress_size):
            packed, unpacked = f"{entry.compress_size:,}", f"{entry.file_size:,}"
            raise FileError(f"{entry.filename} would unpack from {packed} to {unpacked} bytes, which no weights do")
