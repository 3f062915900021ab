"""Ragged tables: lists of integers of different lengths, one after the other, with the offsets where each begins."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int, Shaped

CHUNK = 1 << 20
"""Values that are gathered at a time, so that memory stays bounded."""


@dataclass(frozen=True)
class Rows:
    """Row i holds `values[offsets[i] : offsets[i + 1]]`."""

    offsets: Int[np.ndarray, " n1"]
    values: Int[np.ndarray, " v"]

    def __len__(self) -> int:
        return len(self.offsets) - 1

    def __getitem__(self, row: int) -> Int[np.ndarray, " r"]:
        """The values of a row."""
        return np.asarray(self.values[self.offsets[row] : self.offsets[row + 1]])

    @property
    def lengths(self) -> Int[np.ndarray, " n"]:
        """The number of values of each row."""
        return np.diff(self.offsets)

    def count(self, rows: Int[np.ndarray, " r"], size: int) -> Int[np.ndarray, " size"]:
        """How often each value from 0 to size - 1 occurs in some rows, in bounded memory."""
        counts = np.zeros(size, np.int64)
        for part in self._parts(rows):
            counts += np.bincount(self.gather(part), minlength=size)
        return counts

    def _parts(self, rows: Int[np.ndarray, " r"]) -> Iterator[Int[np.ndarray, " p"]]:
        """Split rows so that each part gathers about `CHUNK` values."""
        total = np.cumsum(self.offsets[rows + 1] - self.offsets[rows])
        if not len(total) or total[-1] <= CHUNK:
            yield rows
            return
        yield from np.split(rows, np.searchsorted(total, np.arange(CHUNK, total[-1], CHUNK)))

    def gather(self, rows: Int[np.ndarray, " r"]) -> Int[np.ndarray, " v"]:
        """The values of some rows, one row after the other."""
        starts = self.offsets[rows]
        lengths = self.offsets[rows + 1] - starts
        ends = np.cumsum(lengths)
        if not len(ends) or not ends[-1]:
            return np.zeros(0, np.int64)
        return np.asarray(self.values[np.repeat(starts - (ends - lengths), lengths) + np.arange(ends[-1])])


def make_rows(rows: Int[np.ndarray, " v"], values: Int[np.ndarray, " v"], count: int) -> Rows:
    """Collect values by their row; values of a row keep their order."""
    order = np.argsort(rows, kind="stable")
    return Rows(offsets_of(np.bincount(rows, minlength=count)), values[order])


def offsets_of(lengths: Int[np.ndarray, " n"]) -> Int[np.ndarray, " n1"]:
    """Where rows of these lengths begin, and where the last one ends."""
    return np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)


def transpose(rows: Rows, size: int) -> Rows:
    """For each value from 0 to size - 1 the rows that hold it, in order."""
    owners = np.repeat(np.arange(len(rows), dtype=np.int32), rows.lengths)
    return make_rows(np.asarray(rows.values), owners, size)


def runs(values: Shaped[np.ndarray, " v"]) -> tuple[Shaped[np.ndarray, " r"], Int[np.ndarray, " r"]]:
    """The distinct values of a sorted array and how often each occurs."""
    if not len(values):
        return values, np.zeros(0, np.int64)
    starts = np.flatnonzero(np.concatenate([[True], values[1:] != values[:-1]]))
    return values[starts], np.diff(np.append(starts, len(values)))


def find_largest(values: Shaped[np.ndarray, " v"], count: int) -> Int[np.ndarray, " c"]:
    """Where the largest values are, the largest first and equal ones in order, without sorting all of them."""
    if len(values) <= count:
        return np.argsort(-values, kind="stable")
    least = np.partition(values, -count)[-count]
    above = np.flatnonzero(values > least)
    equal = np.flatnonzero(values == least)[: count - len(above)]
    return np.concatenate([above[np.argsort(-values[above], kind="stable")], equal])
