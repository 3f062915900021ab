"""JSON lines in files of any size: one after the other, by their place, and appended so that a crash loses none."""

import os
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from tavq.core.errors import FileError
from tavq.core.files import fsync_folder, remove_partial_line, write_error

OPEN_FILES = 64  # far below every system's limit for one process


def iter_raw_lines(path: Path, longest: int) -> Iterator[tuple[int, bytes]]:
    """The place and the bytes of each line, its newline kept; the last one may lack it.

    Of a line longer than `longest` bytes only the first `longest` + 1 come, so that no file can fill the memory.
    """
    try:
        with open(path, "rb") as file:
            place = 0
            while line := file.readline(longest + 1):
                yield place, line
                place += len(line)
                part = line
                while len(part) > longest and not part.endswith(b"\n"):
                    part = file.readline(longest + 1)
                    place += len(part)
    except OSError as error:
        raise FileError(f"Could not read {path}: {error.strerror or error}.") from error


class LineReader:
    """Single lines of several files, read where they are known to begin; a few files are kept open."""

    def __init__(self, longest: int) -> None:
        self.longest = longest
        self._open: dict[Path, int] = {}

    def read(self, path: Path, place: int) -> bytes:
        """The line of `path` that begins at the byte `place`, without its newline; cut after `longest` bytes."""
        try:
            handle = self._handle(path)
            size, line = 4096, b""
            while not line.endswith(b"\n") and len(line) < self.longest:
                part = os.pread(handle, size, place + len(line))
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
            self._open[path] = os.open(path, os.O_RDONLY)
        return self._open[path]

    def close(self) -> None:
        """Closes the files; reading opens them again."""
        while self._open:
            os.close(self._open.popitem()[1])


class LineAppender:
    """Appends lines to a file: whole ones, flushed to the disk at least once a second while lines come.

    A last line that a crash cut short is removed on opening. A line that `append` has written survives the end of
    the process, however it ends; a power failure may take the lines of the last second, and leaves whole lines.
    """

    SECONDS = 1.0

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._handle = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
            remove_partial_line(path)
            fsync_folder(path.parent)
        except OSError as error:
            raise write_error(path, error) from error
        self._synced = time.monotonic()
        self._unsynced = False

    def append(self, lines: Iterable[bytes]) -> None:
        """Adds lines, each with its newline, in one write."""
        left = b"".join(lines)
        try:
            while left:
                left = left[os.write(self._handle, left) :]
                self._unsynced = True
            if time.monotonic() - self._synced >= self.SECONDS:
                self.sync()
        except OSError as error:
            raise write_error(self.path, error) from error

    def sync(self) -> None:
        """Flushes what was appended to the disk."""
        if self._unsynced:
            os.fsync(self._handle)
            self._unsynced = False
        self._synced = time.monotonic()

    def close(self) -> None:
        """Flushes and closes the file."""
        try:
            self.sync()
        finally:
            os.close(self._handle)

    def __enter__(self) -> "LineAppender":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
