"""Locks between processes: a file that holds the id of its owner, locked by the system while that runs."""

import contextlib
import fcntl
import os
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from tavq.core.errors import FileError
from tavq.core.files import write_all, write_error
from tavq.core.own_files import open_own_file


@contextlib.contextmanager
def lock(path: Path, what: Path, instead: str = "choose another --out", patience: float = 0.0) -> Iterator[None]:
    """Hold a lock file; the system releases it when the process ends, even if it is killed.

    Args:
        path: the lock file.
        what: what it protects, for the error.
        instead: what to do instead of waiting, for the error.
        patience: seconds to wait for a process that holds the lock.

    Raises:
        FileError: another process still holds the lock, or the file cannot be created.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        file = open_own_file(path, os.O_CREAT)
    except OSError as error:
        raise write_error(path, error) from error
    with file:
        try:
            _take(file, patience)
        except OSError as error:
            owner = _read_owner(file) or "unknown"
            raise FileError(f"Another process (pid {owner}) is writing to {what}; wait for it or {instead}.") from error
        if _read_owner(file) is None:
            raise FileError(f"{path} is needed as a lock and holds something else; move it away.")
        file.truncate(file.seek(0))
        write_all(file, str(os.getpid()).encode())
        yield


def _take(file: BinaryIO, patience: float) -> None:
    """Lock the file; OSError if another process holds it for longer than `patience` seconds."""
    end = time.monotonic() + patience
    while True:
        try:
            # not flock: child processes inherit its lock and outlive a killed writer by seconds
            return fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            if time.monotonic() >= end:
                raise
            time.sleep(0.2)


def _read_owner(file: BinaryIO) -> str | None:
    """The process in a lock file; "" if it is empty, None if it holds something else."""
    file.seek(0)
    content = file.read(32).strip()
    return content.decode() if re.fullmatch(rb"[0-9]{0,20}", content) else None
