"""Opens files that others wrote: never a pipe that waits for ever, never a device without an end."""

import errno
import os
import stat
from io import BufferedReader
from pathlib import Path

from tavq.core.errors import FileError

GIVEN_BY_SHELL = ("/dev/stdin", "/dev/fd/", "/proc/self/fd/")
"""How a user names a pipe; a pipe under any other name stands where a file should be."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file for reading.

    Raises:
        FileError: it is a device, a folder or a pipe, other than one that the shell gives.
        OSError: it cannot be opened.
    """
    given = str(path).startswith(GIVEN_BY_SHELL)
    # O_NONBLOCK: opening a pipe would wait for somebody who writes into it
    handle = os.open(path, os.O_RDONLY | (0 if given else os.O_NONBLOCK))
    try:
        mode = os.fstat(handle).st_mode
        if not (stat.S_ISREG(mode) or (given and stat.S_ISFIFO(mode))):
            raise FileError(f"{path} is {_kind(mode)}, not a file; put a file in its place.")
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def check_size(file: BufferedReader, limit: int, path: str | Path) -> None:
    """Raise FileError if an open file holds more than `limit` bytes."""
    size = os.fstat(file.fileno()).st_size
    if size > limit:
        raise FileError(f"{path} has {size:,} bytes; at most {limit:,} are read.")


def check_regular(path: str | Path) -> None:
    """Raise FileError unless `path` is a file that a library may open."""
    try:
        open_regular(path).close()
    except OSError as error:
        if error.errno == errno.ENOENT:
            raise FileError(f"There is no file {path}.") from error
        raise FileError(f"Could not read {path}: {error.strerror or error}.") from error


def _kind(mode: int) -> str:
    if stat.S_ISDIR(mode):
        return "a folder"
    if stat.S_ISFIFO(mode):
        return "a pipe"
    return "a device" if stat.S_ISCHR(mode) or stat.S_ISBLK(mode) else "something special"
