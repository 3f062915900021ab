"""Tar files from strangers, read member by member as bytes: nothing is ever unpacked under a name that one chose."""

import contextlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tavq.core.errors import DataError

SUFFIXES = (".tar", ".tar.gz", ".tgz")
MAX_IMAGE_FILE = 200_000_000  # bytes; no photograph comes near, and a larger one would be held in memory


class Member(NamedTuple):
    """A regular file in a tar file; `read` gives its bytes, before the next one is asked for."""

    name: str
    size: int
    read: Callable[[], bytes]


def stream(path: Path) -> Iterator[Member]:
    """The regular files of a tar file, plain or compressed, in their order; links and folders are passed by.

    Memory does not grow with their number. Raises DataError at the place where the file is cut, also when only the
    block that ends it is missing.
    """
    with _named(path), tarfile.open(path) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all for random access
            if member.isfile():
                yield Member(member.name, member.size, _reader(path, archive, member))
        _check_end(path, archive)


@contextlib.contextmanager
def _named(path: Path) -> Iterator[None]:
    """Whatever is wrong with the tar file becomes a DataError that names it."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0].removesuffix(":")
        raise DataError(f"{path} is not a whole tar file: {reason}.") from error


def _check_end(path: Path, archive: tarfile.TarFile) -> None:
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path} is cut short: the empty block that ends a tar file is missing.")
    while archive.fileobj.read(100_000):  # a compressed one has its checksum at the very end
        pass


def _reader(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    return lambda: _read(path, archive, member)


def _read(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a plain file in a tar file; DataError when it is too large or cut short."""
    if member.size > MAX_IMAGE_FILE:
        raise DataError(f"{path}: {member.name!r} holds {member.size} bytes; at most {MAX_IMAGE_FILE} are read.")
    with _named(path):  # here too: whoever reads a stream does it outside of the block that opened it
        file = archive.extractfile(member)
        data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise DataError(f"{path} is cut short at {member.name!r}.")
    return data
