"""Safetensors files larger than memory: read by memory mapping, written row by row.

Besides `core.files` the only place that opens weights.
"""

import json
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from tavq.core.errors import FileError
from tavq.core.files import parse_json, write_error
from tavq.core.own_files import open_own_file
from tavq.core.regular import open_regular

MAX_HEADER = 100_000_000  # bytes; the limit of the safetensors format itself
ALIGNMENT = 8
"""Tensors start at a multiple of this, the size in bytes of the widest dtype."""


class MappedTensors(Mapping[str, np.ndarray]):
    """A safetensors file as read-only arrays that the system pages in on access.

    Opening reads the header only, and memory stays bounded for files of any size. Raises FileError if the header does
    not fit the file.
    """

    DTYPES: ClassVar = {
        "F64": "<f8",
        "F32": "<f4",
        "F16": "<f2",
        "I64": "<i8",
        "I32": "<i4",
        "I16": "<i2",
        "U8": "u1",
        "BOOL": "?",
    }

    def __init__(self, path: Path) -> None:
        self.path = path
        header, start, size = self._read_header()
        self.metadata: dict[str, str] = header.pop("__metadata__", {})
        self._arrays = {name: self._map(name, entry, start, size) for name, entry in header.items()}
        end = max((entry["data_offsets"][1] for entry in header.values()), default=0)
        if start + end != size:
            raise FileError(
                f"{path} is not a complete safetensors file: {size - start - end} bytes belong to no tensor."
            )

    def _read_header(self) -> tuple[dict[str, Any], int, int]:
        try:
            with open_regular(self.path) as file:
                size = os.fstat(file.fileno()).st_size
                prefix = file.read(8)
                length = struct.unpack("<Q", prefix)[0] if len(prefix) == 8 else -1
                if not 0 <= length <= min(MAX_HEADER, size - 8):
                    raise FileError(f"{self.path} is not a complete safetensors file: its header is truncated.")
                text = file.read(length).decode("utf-8")
        except OSError as error:
            raise FileError(f"Could not read {self.path}: {error.strerror or error}.") from error
        except UnicodeDecodeError as error:
            raise FileError(f"{self.path} is not a safetensors file: its header is not text.") from error
        header = parse_json(text, f"The header of {self.path}")
        if not isinstance(header, dict) or not isinstance(header.get("__metadata__", {}), dict):
            raise FileError(f"{self.path} is not a safetensors file: its header is not a mapping.")
        return header, 8 + length, size

    def _map(self, name: str, entry: Any, start: int, size: int) -> np.ndarray:
        try:
            dtype = np.dtype(self.DTYPES[entry["dtype"]])
            shape, (begin, end) = tuple(entry["shape"]), entry["data_offsets"]
            if any(type(value) is not int for value in (*shape, begin, end)):
                raise ValueError("its shape and offsets must be integers")
            count = int(np.prod(shape, dtype=object)) if shape else 1
            if min(shape, default=0) < 0 or not 0 <= begin <= end or end - begin != count * dtype.itemsize:
                raise ValueError("its shape and its offsets disagree")
            if start + end > size:
                raise ValueError("the file is truncated")
            return np.memmap(self.path, dtype, "r", start + begin, shape) if count else np.empty(shape, dtype)
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise FileError(f"{self.path}: the tensor {name!r} cannot be read: {error}.") from error

    def __getitem__(self, name: str) -> np.ndarray:
        if name not in self._arrays:
            raise FileError(
                f"{self.path} lacks the tensor {name!r}; it has: {', '.join(sorted(self._arrays)) or 'none'}."
            )
        return self._arrays[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._arrays)

    def __len__(self) -> int:
        return len(self._arrays)


class TensorFileWriter:
    """Writes a safetensors file of known shapes, a few rows at a time and in any order.

    Rows that are never written are zeros. Continues an existing file with the same shapes and metadata and replaces any
    other. Takes no memory but the rows passed to it.

    Raises FileError when the disk is full.
    """

    KINDS: ClassVar = {kind: name for name, kind in MappedTensors.DTYPES.items()}

    def __init__(
        self, path: Path, shapes: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]
    ) -> None:
        """`shapes` has the dtype of each tensor, as numpy writes it ("<f4"), and its shape."""
        self.path = path
        self._layout: dict[str, tuple[int, np.dtype[Any], int]] = {}  # start, dtype, values in a row
        header, end = self._header(shapes, metadata)
        try:
            self.is_new = not (path.is_file() and path.stat().st_size == end and _begins_with(path, header))
            self._file = open_own_file(path, os.O_CREAT | os.O_TRUNC if self.is_new else 0, buffering=-1)
        except OSError as error:
            raise write_error(path, error) from error
        if self.is_new:
            self._begin(header, end)

    def _begin(self, header: bytes, end: int) -> None:
        try:
            self._file.write(header)
            self._file.truncate(end)
        except OSError as error:
            self._file.close()
            raise write_error(self.path, error) from error

    def _header(
        self, shapes: Mapping[str, tuple[str, Sequence[int]]], metadata: Mapping[str, str]
    ) -> tuple[bytes, int]:
        """The first bytes of the file and its length. Wider dtypes come first, so that all tensors are aligned."""
        entries: dict[str, Any] = {"__metadata__": dict(metadata)}
        end = 0
        starts = {}
        for name in sorted(shapes, key=lambda name: (-np.dtype(shapes[name][0]).itemsize, name)):
            kind, shape = shapes[name]
            dtype = np.dtype(kind)
            starts[name] = (end, dtype, int(np.prod(shape[1:], dtype=object)))
            size = int(np.prod(shape, dtype=object)) * dtype.itemsize
            entries[name] = {"dtype": self.KINDS[kind], "shape": list(shape), "data_offsets": [end, end + size]}
            end += size
        text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode()
        text += b" " * (-len(text) % ALIGNMENT)
        first = 8 + len(text)
        self._layout = {name: (first + start, dtype, row) for name, (start, dtype, row) in starts.items()}
        return struct.pack("<Q", len(text)) + text, first + end

    def write(self, name: str, row: int, values: np.ndarray) -> None:
        """Write `values` [n, …] to the rows from `row` on."""
        start, dtype, width = self._layout[name]
        try:
            self._file.seek(start + row * width * dtype.itemsize)
            self._file.write(np.ascontiguousarray(values, dtype).data)
        except OSError as error:
            raise write_error(self.path, error) from error

    def flush(self) -> None:
        """Flush everything written so far to disk."""
        try:
            self._file.flush()
            os.fsync(self._file.fileno())
        except OSError as error:
            raise write_error(self.path, error) from error

    def close(self) -> None:
        """Close the file, without flushing it to disk; this may write the last rows, and so fail on a full disk."""
        try:
            self._file.close()
        except OSError as error:
            raise write_error(self.path, error) from error


def _begins_with(path: Path, header: bytes) -> bool:
    with open(path, "rb") as file:
        return file.read(len(header)) == header
