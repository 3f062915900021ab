"""Reading untrusted tar files member by member, into memory: no member can choose where it is written."""

import contextlib
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import NamedTuple

from tavq.core.errors import DataError

MAX_IMAGE_FILE = 200_000_000  # bytes; far more than any photograph, and it is read into memory


class Member(NamedTuple):
    """A regular file in a tar file; call `read` for its bytes before asking for the next member."""

    name: str
    size: int
    read: Callable[[], bytes]


def iter_members(path: Path) -> Iterator[Member]:
    """Iterate over the regular files of a tar file, plain or compressed; links and folders are skipped.

    Memory does not grow with their number. Raises DataError where a truncated file ends, even if only the final empty
    block is missing.
    """
    with _explain_errors(path), tarfile.open(path) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member for random access
            if member.isfile():
                yield Member(member.name, member.size, _reader(path, archive, member))
        _check_end(path, archive)


@contextlib.contextmanager
def _explain_errors(path: Path) -> Iterator[None]:
    """Turn whatever is wrong with the tar file into a DataError that names it."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0].removesuffix(":")
        raise DataError(f"{path} is truncated, damaged or not a tar file: {reason}.") from error


def _check_end(path: Path, archive: tarfile.TarFile) -> None:
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path} is truncated: the empty block at the end of a tar file is missing.")
    while archive.fileobj.read(100_000):  # a compressed file has its checksum at the very end
        pass


def _reader(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    return lambda: _read(path, archive, member)


def _read(path: Path, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member; DataError if it is too large or truncated."""
    if member.size > MAX_IMAGE_FILE:
        raise DataError(f"{path}: {member.name!r} has {member.size:,} bytes; at most {MAX_IMAGE_FILE:,} are allowed.")
    with _explain_errors(path):  # again, because callers read outside the block in `iter_members`
        file = archive.extractfile(member)
        data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise DataError(f"{path} is truncated at {member.name!r}.")
    return data
