"""Reading untrusted tar files member by member, into memory: no member can choose where it is written."""

import contextlib
import io
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tavq.core.errors import DataError

MAX_IMAGE_FILE = 200_000_000  # bytes; far more than any photograph, and it is read into memory


class Span(NamedTuple):
    """Where a member is in a plain tar file.

    `start` and `size` are those of its bytes; of a sparse member, which is stored without its zeros, those of its
    header and all that belongs to it.
    """

    start: int
    size: int
    sparse: bool = False


class Member(NamedTuple):
    """A regular file in a tar file; call `read` for its bytes before asking for the next member."""

    name: str
    size: int
    read: Callable[[], bytes]
    span: Span


def iter_members(path: Path | str, file: Any = None) -> Iterator[Member]:
    """Iterate over the regular files of a tar file, plain or compressed; links and folders are skipped.

    Memory does not grow with their number. Raises DataError where a truncated file ends, even if only the final empty
    block is missing.

    Args:
        path: the tar file, or its name in errors.
        file: an open plain tar file, instead of the one at `path`.
    """
    mode: Literal["r:", "r:*"] = "r:" if file is not None else "r:*"
    with _explain_errors(path), tarfile.open(path, mode, file) as archive:
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member for random access
            if member.isfile():
                yield Member(member.name, member.size, _reader(path, archive, member), _find_span(archive, member))
        _check_end(path, archive)


def _find_span(archive: tarfile.TarFile, member: tarfile.TarInfo) -> Span:
    if member.issparse():
        return Span(member.offset, archive.offset - member.offset, sparse=True)
    return Span(member.offset_data, member.size)


def unpack_sparse(data: bytes) -> bytes:
    """The bytes of a sparse member, from those of its span; DataError where they are no member."""
    file = io.BytesIO(data + bytes(2 * tarfile.BLOCKSIZE))
    return b"".join(member.read() for member in iter_members("a sparse member", file))


@contextlib.contextmanager
def _explain_errors(path: Path | str) -> Iterator[None]:
    """Turn whatever is wrong with the tar file into a DataError that names it."""
    try:
        yield
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        reason = str(error).partition("\n")[0].removesuffix(":")
        raise DataError(f"{path} is truncated, damaged or not a tar file: {reason}.") from error


def _check_end(path: Path | str, archive: tarfile.TarFile) -> None:
    assert archive.fileobj is not None
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise DataError(f"{path} is truncated: the empty block at the end of a tar file is missing.")
    while archive.fileobj.read(100_000):  # a compressed file has its checksum at the very end
        pass


def _reader(path: Path | str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> Callable[[], bytes]:
    return lambda: _read(path, archive, member)


def _read(path: Path | str, archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    """The bytes of a member; DataError if it is too large or truncated."""
    if member.size > MAX_IMAGE_FILE:
        raise DataError(f"{path}: {member.name!r} has {member.size:,} bytes; at most {MAX_IMAGE_FILE:,} are allowed.")
    with _explain_errors(path):  # again, because callers read outside the block in `iter_members`
        file = archive.extractfile(member)
        data = file.read() if file is not None else b""
    if len(data) != member.size:
        raise DataError(f"{path} is truncated at {member.name!r}.")
    return data
