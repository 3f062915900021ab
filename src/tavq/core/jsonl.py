"""Lines of files of any size: read in order or at an offset, and appended so that a crash loses none."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from tavq.core.errors import FileError
from tavq.core.files import fsync_folder, remove_partial_line, write_all, write_error
from tavq.core.own_files import open_own_file
from tavq.core.regular import open_regular

OPEN_FILES = 64  # far below any system's limit for a process


def iter_raw_lines(path: Path, max_length: int) -> Iterator[tuple[int, bytes]]:
    """Yield the byte offset and the bytes of each line, with its newline, which the last line may lack.

    Lines longer than `max_length` bytes are cut after `max_length` + 1, so that no file can fill the memory.
    """
    try:
        with open_regular(path) as file:
            offset = 0
            while line := file.readline(max_length + 1):
                yield offset, line
                offset += len(line)
                part = line
                while len(part) > max_length and not part.endswith(b"\n"):
                    part = file.readline(max_length + 1)
                    offset += len(part)
    except OSError as error:
        raise FileError(f"Could not read {path}: {error.strerror or error}.") from error


class LineReader:
    """Reads single lines of several files at known byte offsets; keeps a few files open."""

    def __init__(self, max_length: int) -> None:
        self.max_length = max_length
        self._open: dict[Path, int] = {}

    def read(self, path: Path, offset: int) -> bytes:
        """Read the line of `path` that starts at `offset`, without its newline; cut after about `max_length` bytes."""
        try:
            handle = self._handle(path)
            size, line = 4096, b""
            while not line.endswith(b"\n") and len(line) < self.max_length:
                part = os.pread(handle, size, offset + len(line))
                if not part:
                    break
                end = part.find(b"\n") + 1
                line += part[:end] if end else part
                size *= 2
        except OSError as error:
            raise FileError(f"Could not read {path}: {error.strerror or error}.") from error
        return line.removesuffix(b"\n")

    def _handle(self, path: Path) -> int:
        if path not in self._open:
            if len(self._open) == OPEN_FILES:
                os.close(self._open.pop(next(iter(self._open))))
            with open_regular(path) as file:
                self._open[path] = os.dup(file.fileno())
        return self._open[path]

    def close(self) -> None:
        """Close the files; `read` opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])


class LineAppender:
    """Appends complete lines to a file and flushes them to disk at least once a second while lines come.

    Opening removes an incomplete last line that a crash left. A line that `append` has written survives any end of the
    process; a power failure can take the lines of the last second, but leaves only complete lines.
    """

    SECONDS = 1.0

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._file = open_own_file(path, os.O_CREAT | os.O_APPEND)
            remove_partial_line(self._file)
            fsync_folder(path.parent)
        except OSError as error:
            raise write_error(path, error) from error
        self._synced = time.monotonic()
        self._unsynced = False

    def append(self, lines: Iterable[bytes]) -> None:
        """Append lines, each with its newline, in one write."""
        try:
            self._unsynced = True
            write_all(self._file, b"".join(lines))
            if time.monotonic() - self._synced >= self.SECONDS:
                self.sync()
        except OSError as error:
            raise write_error(self.path, error) from error

    def sync(self) -> None:
        """Flush appended lines to disk."""
        if self._unsynced:
            os.fsync(self._file.fileno())
            self._unsynced = False
        self._synced = time.monotonic()

    def close(self) -> None:
        """Flush and close the file."""
        try:
            self.sync()
        finally:
            self._file.close()

    def __enter__(self) -> "LineAppender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
