"""Files that are written in place: opened so that a link in a folder of somebody else leads nowhere.

Data sets and runs come from strangers, and Git, tar and rsync carry links. A file that is renamed into its place
replaces a link; one that is locked, appended to or written row by row would change what the link names.
"""

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO

from tavq.core.errors import FileError


def open_own_file(path: Path, flags: int, buffering: int = 0) -> BinaryIO:
    """Open `path` for reading and writing.

    Args:
        path: the file; its folders may be links, the file itself not.
        flags: further flags of os.open, such as os.O_CREAT.
        buffering: as of `open`; by default none, so that writes may be short.

    Raises:
        FileError: the file is a link, a pipe, a device or a folder.
        OSError: it cannot be opened for another reason.
    """
    try:
        # without O_NONBLOCK a pipe could wait for ever
        handle = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | flags, 0o666)
    except OSError as error:
        if error.errno == errno.ELOOP:
            refuse_link(path)
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise FileError(f"{path} is not a regular file; move it away, so that tavq can write a file there.")
    return os.fdopen(handle, "r+b", buffering)


def refuse_link(path: Path) -> None:
    """Raise FileError if `path` is a link, where what it leads to would be changed."""
    if path.is_symlink():
        raise FileError(
            f"{path} is a link to {os.readlink(path)!r}; tavq would change what it leads to. Remove the link, or copy "
            "there what it leads to."
        )
