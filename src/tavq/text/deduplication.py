"""Gives equal texts the same id in order of first appearance, in bounded memory however many texts there are."""

import contextlib
import errno
import hashlib
import itertools
import os
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int, UInt8

from tavq.core.files import write_error

BUCKET = 1 << 20
"""Texts sorted at once, on average; 24 bytes each, and as much again while they are sorted."""

MAX_BUCKETS = 512
"""Far below the number of files a process may open; beyond half a billion texts each bucket holds more."""

CHUNK = 1 << 20
"""Zeros written at once."""

ENTRY = np.dtype([("high", "<u8"), ("low", "<u8"), ("position", "<i8")])


class Deduplicator:
    """The id of each text in a long sequence: equal texts share an id, new texts get the next one.

    Texts are compared by 128 bits of hash. The hashes are distributed over files by their first bits; each file is
    sorted in memory, which yields for every text the position of its first occurrence. A second pass counts these.

    Args:
        folder: temporary folder; emptied at the start and removed by `close`.
        total: how many texts will be added.

    Raises FileError when the disk is full.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.folder = folder
        self.total = total
        self.count = 0
        """Distinct texts; known after `solve`."""
        self._added = 0
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._buckets: list[BinaryIO] = [
                open(folder / f"bucket-{bucket}", "w+b")  # noqa: SIM115 - closed by close
                for bucket in range(1 + min(total // BUCKET, MAX_BUCKETS))
            ]
        except OSError as error:
            raise write_error(folder, error) from error

    def add(self, text: UInt8[np.ndarray, " n"], offsets: Int[np.ndarray, " m1"]) -> None:
        """Adds texts that are concatenated in one byte array; m1 is one more than their number."""
        entries = np.empty(len(offsets) - 1, ENTRY)
        entries["high"], entries["low"] = _hash_texts(text.tobytes(), offsets.tolist()).T
        entries["position"] = np.arange(self._added, self._added + len(entries))
        self._added += len(entries)
        owners = entries["high"] % len(self._buckets)
        for index, bucket in enumerate(self._buckets):
            own = entries[owners == index] if len(self._buckets) > 1 else entries
            try:
                bucket.write(own.tobytes())
            except OSError as error:
                raise write_error(self.folder, error) from error

    def solve(self) -> None:
        """Computes the ids, once all texts were added."""
        assert self._added == self.total, "every text must be added"
        try:
            self._ids = _create_array(self.folder / "ids", self.total)
            for bucket in self._buckets:
                self._find_first(bucket)
                bucket.close()
            self._number_first()
        except OSError as error:
            raise write_error(self.folder, error) from error

    def ids(self, start: int, stop: int) -> Int[np.ndarray, " m"]:
        """The ids of the texts from `start` up to `stop`, in the order in which they were added."""
        return np.array(self._ids[start:stop])

    def close(self) -> None:
        """Removes the files."""
        for bucket in self._buckets:
            with contextlib.suppress(OSError):  # a full disk takes no more of a file that is removed
                bucket.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _find_first(self, bucket: BinaryIO) -> None:
        """Stores for each text of a bucket the position of its first occurrence."""
        bucket.seek(0)
        entries = np.frombuffer(bucket.read(), ENTRY)
        entries = entries[np.lexsort((entries["position"], entries["low"], entries["high"]))]
        is_new = np.ones(len(entries), bool)
        is_new[1:] = (entries["high"][1:] != entries["high"][:-1]) | (entries["low"][1:] != entries["low"][:-1])
        self._ids[entries["position"]] = entries["position"][is_new][np.cumsum(is_new) - 1]

    def _number_first(self) -> None:
        """Replaces the position of each text's first occurrence by the id of that text."""
        for start in range(0, self.total, BUCKET):
            positions = np.arange(start, min(start + BUCKET, self.total))
            first = np.array(self._ids[positions[0] : positions[-1] + 1])
            new = positions[first == positions]
            self._ids[new] = np.arange(self.count, self.count + len(new))
            # The first occurrence is never behind the text itself, so it has its id by now.
            self._ids[positions] = self._ids[first]
            self.count += len(new)


def _hash_texts(data: bytes, offsets: list[int]) -> Any:
    digests = (hashlib.blake2b(data[start:end], digest_size=16).digest() for start, end in itertools.pairwise(offsets))
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


def _create_array(path: Path, count: int) -> Any:
    """An int64 array in a file; mmap cannot map an empty one.

    The disk space is taken first: the first touch of a page that finds none would end the process by SIGBUS.
    """
    if not count:
        return np.empty(0, np.int64)
    try:
        with open(path, "wb") as file:
            _allocate(file, 8 * count)
    except OSError as error:
        raise write_error(path, error) from error
    return np.memmap(path, np.int64, "r+", shape=(count,))


def _allocate(file: BinaryIO, size: int) -> None:
    try:
        os.posix_fallocate(file.fileno(), 0, size)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
            raise
        for start in range(0, size, CHUNK):  # file systems that take no orders
            file.write(bytes(min(CHUNK, size - start)))
