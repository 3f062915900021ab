"""The only place that opens weights, shards and JSON: durable writes, checked reads, hashes.

Writes go to a temporary name in the same folder, are flushed to the disk and then renamed, so that a reader sees
the old file or the new one and never a part. Nothing here ever unpickles.
"""

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import torch
from safetensors.torch import load_file, save

from tavq.core.config import M, build_stored
from tavq.core.errors import FileError, UsageError

TEMP_PREFIX = ".tavq-tmp-"  # prefix of names that a crash may leave behind; see `remove_leftovers`
REPLACED_PREFIX = f"{TEMP_PREFIX}old-"
MAX_JSON = 1_000_000_000  # bytes


# --- durable writes ---------------------------------------------------------------------------------------------


def write_bytes(path: Path, data: bytes) -> None:
    """Replaces `path` by `data` atomically and durably; its folder is made when missing."""
    temporary = path.parent / f"{TEMP_PREFIX}{os.getpid()}-{path.name}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, "wb") as file:
            file.write(data)
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
    """`write_bytes` of UTF-8 text."""
    write_bytes(path, text.encode("utf-8"))


def write_json(path: Path, value: Any) -> None:
    """`write_bytes` of indented JSON; NaN and infinity, which JSON lacks, are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def write_json_lines(path: Path, values: Iterable[Any]) -> None:
    """`write_bytes` of one JSON value a line."""
    write_text(path, "".join(json.dumps(value, ensure_ascii=False, allow_nan=False) + "\n" for value in values))


def append_json_line(path: Path, value: Any) -> None:
    """Adds one JSON line to a log, in place of a last line that a crash cut short."""
    line = json.dumps(value, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n"
    try:
        with open(path, "r+b" if path.exists() else "wb") as file:
            file.truncate(file.seek(_end_of_lines(file)))
            file.write(line)
    except OSError as error:
        raise write_error(path, error) from error


def remove_partial_line(path: Path) -> None:
    """Removes a last line without its newline, which a killed writer leaves."""
    with open(path, "r+b") as file:
        file.truncate(_end_of_lines(file))


def _end_of_lines(file: BinaryIO) -> int:
    """The place after the last newline; looks back as far as the cut line is long."""
    place = file.seek(0, os.SEEK_END)
    while place:
        start = max(0, place - 4096)
        file.seek(start)
        found = file.read(place - start).rfind(b"\n")
        if found >= 0:
            return start + found + 1
        place = start
    return 0


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str] | None = None) -> None:
    """`write_bytes` of a safetensors file; tensors are stored contiguous and on the CPU."""
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    write_bytes(path, save(plain, dict(metadata) if metadata else None))


@contextlib.contextmanager
def write_folder(path: Path) -> Iterator[Path]:
    """A new folder to fill; when the block ends without an error it takes the place of `path`.

    An existing folder at `path` is moved aside and removed afterwards; a process killed between the two renames
    leaves it aside, and `remove_leftovers` puts it back. Write the files in the folder with the functions above.
    """
    temporary = path.parent / f"{TEMP_PREFIX}{os.getpid()}-{path.name}"
    try:
        if path.is_file():
            raise FileError(f"{path} is a file, not a folder; choose another place.")
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir()
        yield temporary
        replace_folder(temporary, path)
    except OSError as error:
        raise write_error(path, error) from error
    except FileError as error:  # says the name that the user knows
        raise FileError(str(error).replace(str(temporary), str(path))) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


@contextlib.contextmanager
def create_folder(path: Path) -> Iterator[Path]:
    """As `write_folder` for many files, written in any way; what `path` holds is never replaced.

    What a killed process left of this very folder is removed first.

    All of the files are flushed to the disk together at the end, four times as fast as one by one.

    Raises:
        UsageError: `path` is there and is no empty folder.
    """
    remove_leftovers_of(path)
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} already holds something; give a new folder.")
    with write_folder(path) as folder:
        yield folder
        for place, _, names in os.walk(folder):
            for name in names:
                with open(os.path.join(place, name), "rb") as file:
                    os.fsync(file.fileno())
            fsync_folder(Path(place))


def replace_folder(new: Path, path: Path) -> None:
    """Renames the folder `new` to `path`, in place of an older one, which is moved aside and then removed."""
    fsync_folder(new)
    aside = path.parent / f"{REPLACED_PREFIX}{os.getpid()}-{path.name}"
    if path.exists():
        os.replace(path, aside)
    os.replace(new, path)
    fsync_folder(path.parent)
    shutil.rmtree(aside, ignore_errors=True)


def remove_folder(path: Path) -> None:
    """Removes a folder and what is in it; under a temporary name first, so that a crash never leaves half of it."""
    doomed = path.parent / f"{TEMP_PREFIX}{os.getpid()}-{path.name}"
    with contextlib.suppress(FileNotFoundError):
        os.replace(path, doomed)
    shutil.rmtree(doomed, ignore_errors=True)


def remove_leftovers(folder: Path) -> None:
    """Removes what a killed process left half-written in `folder`, and puts back what it had moved aside."""
    for aside in folder.glob(f"{REPLACED_PREFIX}*"):
        path = folder / aside.name.removeprefix(REPLACED_PREFIX).partition("-")[2]
        if not path.exists():
            os.replace(aside, path)
    for leftover in folder.glob(f"{TEMP_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def remove_leftovers_of(path: Path) -> None:
    """As `remove_leftovers` of the one folder `path`, where others write beside it.

    What a living process of this machine is writing stays.
    """
    name = re.compile(f"{re.escape(TEMP_PREFIX)}(old-)?([0-9]+)-{re.escape(path.name)}")
    leftovers = [(place, name.fullmatch(place.name)) for place in path.parent.glob(f"{TEMP_PREFIX}*")]
    for place, found in leftovers:
        if found is None or _lives(int(found[2])):
            continue
        if found[1] and not path.exists():
            os.replace(place, path)
        else:
            shutil.rmtree(place, ignore_errors=True)


def _lives(process: int) -> bool:
    """Whether another process of this number runs on this machine."""
    try:
        os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except PermissionError:  # another person's
        return True
    return process != os.getpid()


def write_error(path: Path, error: OSError) -> FileError:
    """What a person is told when a file could not be written."""
    return FileError(f"Could not write {path}: {error.strerror or error}. Free space or choose another place.")


def fsync_folder(folder: Path) -> None:
    """Makes the names in a folder durable."""
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


# --- one writer -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(path: Path, what: Path, instead: str = "choose another --out") -> Iterator[None]:
    """Holds the lock file `path` of `what` for this process; the system frees it when the process ends, however.

    `instead` is what a person may do who does not want to wait.

    Raises:
        FileError: another process holds it, or it cannot be made.
    """
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        handle = open(path, "a+")  # noqa: SIM115 - closed below
    except OSError as error:
        raise write_error(path, error) from error
    with handle:
        try:
            # not flock: its lock is inherited by child processes, which outlive a killed writer by seconds
            fcntl.lockf(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            handle.seek(0)
            owner = handle.read().strip() or "unknown"
            raise FileError(f"Another process (pid {owner}) is writing to {what}; wait for it or {instead}.") from error
        handle.truncate(0)
        handle.write(str(os.getpid()))
        handle.flush()
        yield


# --- checked reads ----------------------------------------------------------------------------------------------


def read_bytes(path: Path) -> bytes:
    """The whole file, or a FileError that names it."""
    try:
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        raise FileError(f"Could not read {path}: {getattr(error, 'strerror', None) or error}.") from error


def read_text(path: Path) -> str:
    """The whole file as UTF-8 text."""
    try:
        return read_bytes(path).decode("utf-8")
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text: byte {error.start} cannot be read.") from error


def read_lines(path: Path) -> Iterator[str]:
    """The lines of a UTF-8 text of any size, one at a time."""
    try:
        with path.open(encoding="utf-8") as file:
            yield from file
    except UnicodeDecodeError as error:
        raise FileError(f"{path} is not UTF-8 text: {error.reason}.") from error
    except OSError as error:
        raise FileError(f"{path} cannot be read: {error.strerror or error}.") from error


def read_json(path: Path) -> Any:
    """The value in a JSON file."""
    if path.exists() and path.stat().st_size > MAX_JSON:
        raise FileError(f"{path} holds {path.stat().st_size} bytes; JSON files here stay below {MAX_JSON}.")
    return parse_json(read_text(path), str(path))


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
    """The value of a JSON text; `source` names it in errors."""
    try:
        return json.loads(text)
    except (json.JSONDecodeError, RecursionError, ValueError) as error:
        raise FileError(f"{source} is not valid JSON: {error}.") from error


def read_json_lines(path: Path) -> list[Any]:
    """The values of a JSON-lines file; a last line without its newline is dropped, as a killed writer leaves one."""
    lines = read_text(path).split("\n")
    return [parse_json(line, f"{path} line {number}") for number, line in enumerate(lines[:-1], 1) if line.strip()]


def read_tensors(path: Path) -> dict[str, torch.Tensor]:
    """All tensors of a safetensors file."""
    if not path.is_file():
        raise FileError(f"There is no file {path}.")
    try:
        return load_file(path)
    except Exception as error:  # besides its own kind the library lets torch's out, with a trace in the text
        raise FileError(f"{path} is not a whole safetensors file: {str(error).partition(chr(10))[0]}.") from error


def read_arrays(path: Path) -> dict[str, np.ndarray]:
    """All arrays of an .npz file; arrays of Python objects, which would need pickle, are refused."""
    try:
        # opened here, because numpy leaves it open where it is no archive
        with open(path, "rb") as file, np.load(file, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except Exception as error:  # zipfile, zlib and numpy each raise several kinds of their own
        raise FileError(f"{path} is not a readable .npz file: {error}.") from error


# --- hashes -----------------------------------------------------------------------------------------------------


def sha256(path: Path) -> str:
    """The file's SHA-256 in hexadecimal."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise FileError(f"Could not read {path}: {error.strerror or error}.") from error


def sha256_bytes(data: bytes) -> str:
    """The SHA-256 of bytes in hexadecimal."""
    return hashlib.sha256(data).hexdigest()


def check_sha256(path: Path, expected: str) -> None:
    """Raises FileError unless the file's SHA-256 is `expected`."""
    found = sha256(path)
    if found != expected:
        raise FileError(f"{path} was altered or cut: its sha256 is {found[:12]}…, expected {expected[:12]}….")


def resolve_inside(folder: Path, name: str) -> Path:
    """`folder / name`, or FileError when the name is absolute or leads outside the folder (links followed)."""
    try:
        path = (folder / name).resolve()
        kept = bool(name) and not Path(name).is_absolute() and path.is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):  # NUL, a lone surrogate, a loop of links
        kept = False
    if not kept:
        raise FileError(f"The path {name!r} leads outside {folder}.")
    return path
