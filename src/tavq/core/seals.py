"""Safetensors files and JSON records that hold their own hash, so that a changed byte anywhere in them is found.

For files that no manifest names: the hash stands in the file's metadata, and is one of the file with zeros in its
place. Other readers of safetensors read such a file as any other.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch

from tavq.core.errors import FileError
from tavq.core.files import parse_json, sha256_bytes, write_bytes, write_error
from tavq.core.own_files import open_own_file
from tavq.core.tensor_bytes import serialize_tensors

SEAL = "seal"
"""Key of the hash in the metadata or record."""

BLANK = "0" * 64
MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
CHUNK = 1 << 22  # bytes

# in the text of a header: quotes inside of values have a backslash before them
_PATTERN = re.compile(rb'"seal":"([^"]{64})"')


def seal_record(record: Mapping[str, Any]) -> str:
    """A hash of a record as JSON keeps it: a changed digit in it would otherwise be read without an error."""
    kept = parse_json(json.dumps(record), "A record")  # keys become text, which sorts in another order than numbers
    return sha256_bytes(json.dumps(kept, sort_keys=True).encode())


def write_sealed_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write a sealed safetensors file, atomically and durably."""
    data = _sort_metadata(serialize_tensors(tensors, {**metadata, SEAL: BLANK}))
    match = _PATTERN.search(data)
    assert match is not None
    data[match.start(1) : match.end(1)] = hashlib.sha256(data).hexdigest().encode()
    write_bytes(path, data)


def _sort_metadata(data: bytes) -> bytearray:
    """The same file with its metadata sorted by key: the library writes them in another order each time."""
    end = 8 + int.from_bytes(data[:8], "little")
    header = parse_json(data[8:end].decode(), "The header of a safetensors file")
    header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
    text = json.dumps(header, ensure_ascii=False, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)
    return bytearray(len(text).to_bytes(8, "little") + text + data[end:])


def seal_file(path: Path) -> None:
    """Write the hash into a file whose metadata has `BLANK` as its `SEAL`, and flush it to disk."""
    try:
        with open_own_file(path, 0) as file:
            digest, position, _ = _hash(file)
            os.pwrite(file.fileno(), digest, position)
            os.fsync(file.fileno())
    except OSError as error:
        raise write_error(path, error) from error


def is_intact(path: Path) -> bool | None:
    """Whether a safetensors file is as it was sealed; None if it has no seal.

    Cost: reads the whole file. Raises FileError where that fails.
    """
    try:
        with open(path, "rb") as file:
            digest, position, seal = _hash(file)
    except OSError as error:
        raise FileError(f"Could not read {path}: {error.strerror or error}.") from error
    return digest == seal if position >= 0 else None


def check_seal(path: Path) -> None:
    """Raise FileError if a file was changed since it was sealed; files of older versions have no seal and pass."""
    if is_intact(path) is False:
        raise FileError(f"{path} was altered or truncated: its content does not fit the hash in its metadata.")


def _hash(file: BinaryIO) -> tuple[bytes, int, bytes]:
    """The hash of a file with a blank seal, the position of the seal (-1 without one), and the seal."""
    length = int.from_bytes(file.read(8), "little")
    file.seek(0)
    header = file.read(8 + min(length, MAX_HEADER))
    match = _PATTERN.search(header)
    if match is None:
        return b"", -1, b""
    state = hashlib.sha256(header[: match.start(1)] + BLANK.encode() + header[match.end(1) :])
    while chunk := file.read(CHUNK):
        state.update(chunk)
    return state.hexdigest().encode(), match.start(1), match[1]
