"""Numbers distinct texts in order of their first appearance, however many there are, in bounded memory."""

import hashlib
import itertools
import shutil
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from jaxtyping import Int, UInt8

from tavq.core.files import write_error

BUCKET = 1 << 20
"""Rows that are sorted at once, on average; 24 bytes each and as much again while they are sorted."""

MOST = 512
"""Files at most, far below what a process may open; of more than half a billion texts a file holds more."""

ROW = np.dtype([("high", "<u8"), ("low", "<u8"), ("place", "<i8")])


class Deduplicator:
    """The number of each text of a long row of texts: equal texts have one, new ones the next.

    The texts are told apart by 128 bits of hash. These are dealt into files by their first bits, each file is sorted
    in memory and tells every text the place of the first one that is equal to it; a second pass counts these.

    Args:
        folder: for its files; made, emptied before and removed by `close`.
        total: how many texts will be added.

    Raises FileError where the disk is full.
    """

    def __init__(self, folder: Path, total: int) -> None:
        self.folder = folder
        self.total = total
        self.count = 0
        """Distinct texts, once all were added and `solve` was called."""
        self._added = 0
        try:
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
            self._buckets: list[BinaryIO] = [
                open(folder / f"bucket-{number}", "w+b")  # noqa: SIM115 - closed by close
                for number in range(1 + min(total // BUCKET, MOST))
            ]
        except OSError as error:
            raise write_error(folder, error) from error

    def add(self, text: UInt8[np.ndarray, " n"], offsets: Int[np.ndarray, " m1"]) -> None:
        """Adds texts that stand in one run of bytes; m1 is one more than their number."""
        rows = np.empty(len(offsets) - 1, ROW)
        rows["high"], rows["low"] = _hashes(text.tobytes(), offsets.tolist()).T
        rows["place"] = np.arange(self._added, self._added + len(rows))
        self._added += len(rows)
        chosen = rows["high"] % len(self._buckets)
        for number, bucket in enumerate(self._buckets):
            try:
                bucket.write((rows[chosen == number] if len(self._buckets) > 1 else rows).tobytes())
            except OSError as error:
                raise write_error(self.folder, error) from error

    def solve(self) -> None:
        """Finds the numbers, once all texts were added."""
        assert self._added == self.total, "every text must be added"
        try:
            self._numbers = _mapped(self.folder / "numbers", self.total)
            for bucket in self._buckets:
                self._find_first(bucket)
                bucket.close()
            self._count_first()
        except OSError as error:
            raise write_error(self.folder, error) from error

    def numbers(self, start: int, stop: int) -> Int[np.ndarray, " m"]:
        """The numbers of the texts from `start` up to `stop`, in the order in which they were added."""
        return np.array(self._numbers[start:stop])

    def close(self) -> None:
        """Removes the files."""
        for bucket in self._buckets:
            bucket.close()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _find_first(self, bucket: BinaryIO) -> None:
        """For each text of a bucket the place of the first that is equal."""
        bucket.seek(0)
        rows = np.frombuffer(bucket.read(), ROW)
        rows = rows[np.lexsort((rows["place"], rows["low"], rows["high"]))]
        new = np.ones(len(rows), bool)
        new[1:] = (rows["high"][1:] != rows["high"][:-1]) | (rows["low"][1:] != rows["low"][:-1])
        self._numbers[rows["place"]] = rows["place"][new][np.cumsum(new) - 1]

    def _count_first(self) -> None:
        """In the place of each text's first equal the number of that one."""
        for start in range(0, self.total, BUCKET):
            places = np.arange(start, min(start + BUCKET, self.total))
            first = np.array(self._numbers[places[0] : places[-1] + 1])
            new = places[first == places]
            self._numbers[new] = np.arange(self.count, self.count + len(new))
            # A first equal stands before this place, so that it has its number by now.
            self._numbers[places] = self._numbers[first]
            self.count += len(new)


def _hashes(data: bytes, offsets: list[int]) -> Any:
    digests = (hashlib.blake2b(data[start:end], digest_size=16).digest() for start, end in itertools.pairwise(offsets))
    return np.frombuffer(b"".join(digests), "<u8").reshape(-1, 2)


def _mapped(path: Path, count: int) -> Any:
    return np.memmap(path, np.int64, "w+", shape=(count,)) if count else np.empty(0, np.int64)
