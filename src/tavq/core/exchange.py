"""Exchanges two names in one step, so that there is no moment at which one of them is missing."""

import ctypes
import errno
import os
from pathlib import Path

RENAME_EXCHANGE = 2
AT_FDCWD = -100

UNSUPPORTED = frozenset({errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP})
"""What systems and file systems answer that cannot exchange names, such as NFS."""


def exchange_names(first: Path, second: Path) -> bool:
    """Exchange the names of two files or folders; False, with nothing changed, where that is not possible.

    Raises:
        OSError: one of them is missing, or the folder cannot be written.
    """
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)  # Linux, glibc 2.28 and musl 1.2
    if rename is None:
        return False
    names = (os.fsencode(first), os.fsencode(second))
    if rename(AT_FDCWD, names[0], AT_FDCWD, names[1], RENAME_EXCHANGE) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(second))
