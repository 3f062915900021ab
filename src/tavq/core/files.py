"""The only place that opens weights, shards and JSON: durable writes, checked reads, hashes.

Writes go to a temporary name in the same folder, are flushed to disk and then renamed, so that a reader sees the old
file or the new one and never part of it. Nothing here unpickles.
"""

import contextlib
import errno
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors import safe_open

from tavq.core.config import M, build_stored
from tavq.core.errors import FileError, UsageError, first_line
from tavq.core.exchange import exchange_names
from tavq.core.own_files import open_own_file
from tavq.core.regular import check_regular, check_size, open_regular
from tavq.core.temporary import (
    ASIDE_PREFIX,
    find_writer,
    remove_abandoned,
    remove_leftover,
    remove_leftovers_of,
    temporary_path,
)
from tavq.core.tensor_bytes import file_chunks
from tavq.core.unpacking import check_unpacked

MAX_JSON = 1_000_000_000
"""Bytes of a JSON file with data, such as the annotations of a data set."""

MAX_SETTINGS = 20_000_000
"""Bytes of a JSON file with settings; empty lists take 26 times as much memory as they take on disk."""


# --- durable writes ---------------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes | bytearray) -> None:
    """Replace `path` by `data`, atomically and durably; creates its folder if it is missing.

    The first write into a folder removes what killed processes have left there.
    """
    _write_chunks(path, [data])


def _write_chunks(path: Path, chunks: Iterable[Any]) -> None:
    temporary = temporary_path(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove_abandoned(path.parent)
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:  # x: never through a link that has this name
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
        fsync_folder(path.parent)
    except OSError as error:
        raise write_error(path, error) from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def write_text(path: Path, text: str) -> None:
    """Write UTF-8 text by `write_bytes`."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON by `write_bytes`; raises ValueError on NaN and infinity, which JSON lacks."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """Write one JSON value a line by `write_bytes`."""
    lines = [json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values]
    write_text(path, "".join(lines))


def append_json_line(path: Path, value: Any) -> None:
    """Append a JSON line to a log, over an incomplete last line that a crash left."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    try:
        with open_own_file(path, os.O_CREAT) as file:
            remove_partial_line(file)
            write_all(file, line)
    except OSError as error:
        raise write_error(path, error) from error


def write_all(file: BinaryIO, data: bytes) -> None:
    """Write all of `data` to a file without a buffer, whose single writes may be short."""
    left = memoryview(data)
    while left:
        left = left[file.write(left) :]


def remove_partial_line(file: BinaryIO) -> None:
    """Remove a last line without a newline, as a killed writer leaves it, and go to the end of the file."""
    file.truncate(file.seek(_end_of_lines(file)))


def _end_of_lines(file: BinaryIO) -> int:
    """The offset after the last newline, found from the end, so that long logs cost nothing."""
    end = file.seek(0, os.SEEK_END)
    while end:
        start = max(0, end - 4096)
        file.seek(start)
        newline = file.read(end - start).rfind(b"\n")
        if newline >= 0:
            return start + newline + 1
        end = start
    return 0


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """Write a safetensors file as `write_bytes` does."""
    _write_chunks(path, file_chunks(tensors, metadata))


@contextlib.contextmanager
def write_folder(path: Path, check: Callable[[], None] | None = None) -> Iterator[Path]:
    """Yield a new folder to fill, which replaces `path` when the block ends without an error.

    An existing folder at `path` is exchanged with the new one in one step and removed afterwards. Write files into the
    new folder by the functions above.

    Args:
        path: the folder.
        check: raises where `path` holds something that must not be replaced. Called at the end, because another
            process may have written there since the caller looked.
    """
    with _fill_folder(path) as temporary:
        yield temporary
        if check is not None:
            check()
        replace_folder(temporary, path)


@contextlib.contextmanager
def _fill_folder(path: Path) -> Iterator[Path]:
    """Yield a temporary folder next to `path`, and remove what is left of it; errors name `path`."""
    temporary = temporary_path(path)
    try:
        if path.is_file():
            raise FileError(f"{path} is a file, not a folder; choose another path.")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
    except OSError as error:
        raise write_error(path, error) from error
    except FileError as error:  # names the path that the user knows, not the temporary one
        raise FileError(str(error).replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """Yield a new folder like `write_folder`, for many files written in any way; never replaces an existing folder.

    Removes what a killed process left of this folder first. Flushes all files to disk at the end, which is four times
    as fast as one by one. Where `path` is a link, the folder that it leads to is created.

    Raises:
        UsageError: `path` exists and is not an empty folder, or another process creates it at the same time.
    """
    given, path = path, path.resolve() if path.is_symlink() else path
    remove_leftovers_of(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{given} already exists and is not empty; choose a new folder.")
    if process := find_writer(path):
        raise UsageError(f"Another process (pid {process}) is writing to {path}; wait for it, or choose a new folder.")
    with _fill_folder(path) as folder:
        yield folder
        for parent, _, names in os.walk(folder):
            for name in names:
                with open(os.path.join(parent, name), "rb") as file:
                    os.fsync(file.fileno())
            fsync_folder(Path(parent))
        try:
            os.replace(folder, path)  # fails unless `path` is missing or an empty folder: never replaces what is there
        except (FileExistsError, NotADirectoryError) as error:
            raise _created_meanwhile(path) from error
        except OSError as error:
            raise _created_meanwhile(path) if error.errno == errno.ENOTEMPTY else error from error
        fsync_folder(path.parent)


def _created_meanwhile(path: Path) -> UsageError:
    return UsageError(f"{path} was created by another process in the meantime and is kept; choose a new folder.")


def replace_folder(new: Path, path: Path) -> None:
    """Rename the folder `new` to `path`; an older folder there is exchanged with it and then removed.

    Where names cannot be exchanged, the older folder is moved aside first; for a moment `path` is missing.
    """
    fsync_folder(new)
    aside = temporary_path(path, ASIDE_PREFIX)
    if not path.exists():
        os.replace(new, path)
    elif exchange_names(new, path):
        aside = new
    else:
        aside.mkdir()
        os.replace(path, aside / path.name)
        os.replace(new, path)
    fsync_folder(path.parent)
    remove_leftover(aside)


def remove_folder(path: Path) -> None:
    """Remove a folder with its content; renames it first, so that a crash never leaves half of it at `path`."""
    doomed = temporary_path(path)
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def write_error(path: Path, error: OSError) -> FileError:
    """The error to raise when a file cannot be written."""
    if error.errno == errno.ENAMETOOLONG:
        return FileError(
            f"Could not write {path}: the file system does not allow names this long; choose a shorter one."
        )
    return FileError(f"Could not write {path}: {error.strerror or error}. Free space or choose another path.")


def fsync_folder(folder: Path) -> None:
    """Flush the names in a folder to disk, so that a rename survives a power failure."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- checked reads ----------------------------------------------------------------------------------------------


def read_bytes(path: Path, limit: int | None = None) -> bytes:
    """Read a file; raises FileError where that fails, where it is a pipe or a device, or above `limit` bytes."""
    try:
        with open_regular(path) as file:
            if limit is not None:
                check_size(file, limit, path)
            return file.read()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise FileError(f"Could not read {path}: {getattr(error, 'strerror', None) or error}.") from error


def read_text(path: Path, limit: int | None = None) -> str:
    """Read a file of at most `limit` bytes as UTF-8 text, without the byte order mark that editors on Windows write."""
    try:
        return read_bytes(path, limit).decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise FileError(
            f"{path} is not UTF-8 text: byte {error.start} cannot be read. Convert it, for example with: "
            f"iconv -f WINDOWS-1252 -t UTF-8"
        ) from error


def read_lines(path: Path) -> Iterator[str]:
    """Yield the lines of a UTF-8 text file of any size."""
    try:
        with io.TextIOWrapper(open_regular(path), encoding="utf-8-sig") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text: {error.reason}.") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_json(path: Path, limit: int = MAX_SETTINGS) -> Any:
    """Read the value of a JSON file of at most `limit` bytes."""
    return parse_json(read_text(path, limit), str(path))


def read_manifest(path: Path, model: type[M], format: int, what: str, command: str) -> M:
    """Read the JSON file that describes a `what`, such as a text store.

    Args:
        path: the file.
        model: its fields.
        format: the format number that is supported.
        what: named in errors.
        command: rebuilds it; named in errors.

    Raises FileError if it is not such a file, has another format, or has invalid fields.
    """
    fields = read_json(path)
    if not isinstance(fields, dict):
        raise FileError(f"{path} is not the manifest of a {what}: it holds no settings.")
    if isinstance(fields.get("format"), int) and fields["format"] != format:
        raise FileError(
            f"{path} has format {fields['format']}, from another version of tavq; this version reads format {format}. "
            f"Rebuild the {what.rpartition(' ')[2]} with: {command}"
        )
    try:
        return build_stored(model, fields, str(path))
    except UsageError as error:
        raise FileError(f"{path} is not the manifest of a {what}: {error}") from error


def parse_json(text: str, source: str) -> Any:
    """Parse JSON; `source` names the text in errors."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        raise FileError(f"{source} is not valid JSON: {error}.") from error


def read_json_lines(path: Path) -> list[Any]:
    """Read the values of a JSON-lines file, without an incomplete last line that a killed writer left."""
    lines = read_text(path).split("\n")
    return [parse_json(line, f"{path} line {number}") for number, line in enumerate(lines[:-1], 1) if line.strip()]


def read_tensors(path: Path, names: Sequence[str] | None = None) -> dict[str, torch.Tensor]:
    """Read the tensors of a safetensors file, or those called `names`. They share its memory map while they last."""
    with _open_tensors(path) as file:
        return {name: file.get_tensor(name) for name in (file.offset_keys() if names is None else names)}


def tensor_names(path: Path) -> list[str]:
    """The names of the tensors in a safetensors file."""
    with _open_tensors(path) as file:
        return list(file.keys())


@contextlib.contextmanager
def _open_tensors(path: Path) -> Iterator[Any]:
    check_regular(path)
    try:
        with safe_open(path, "pt") as file:
            yield file
    except Exception as error:  # besides its own errors the library raises torch's, whose text holds a stack trace
        raise FileError(f"{path} is not a complete safetensors file: {first_line(error)}.") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """Read all arrays of an .npz file; FileError for a bomb, and for Python objects, which would need pickle."""
    try:
        # opened here, because numpy leaves the file open if it is not an archive
        with open_regular(path) as file, np.load(file, allow_pickle=False) as archive:
            check_unpacked(archive.zip.infolist())
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each raise errors of several kinds
        raise FileError(f"{path} is not a readable .npz file: {error}.") from error


# --- hashes -----------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal."""
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"Could not read {path}: {error.strerror or error}.") from error


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raise FileError unless the SHA-256 of the file is `expected`."""
    actual = sha256(path)
    if actual != expected:
        raise FileError(f"{path} was altered or truncated: its sha256 is {actual[:12]}…, expected {expected[:12]}….")
