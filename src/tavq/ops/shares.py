"""How a batch is shared by processes, equally or not, and what follows for means and gathered values."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass


@dataclass(frozen=True)
class Share:
    """The part of each batch that one process takes: `count` samples from `first` on, of `total`."""

    first: int
    count: int
    total: int


def share_of(batch: int, rank: int, world: int) -> Share:
    """The share of a process; the first processes take one sample more where the batch cannot be divided."""
    count, more = divmod(batch, world)
    return Share(rank * count + min(rank, more), count + (rank < more), batch)


_counts: tuple[int, ...] = ()
"""Samples of each process in the batch that is trained on; empty where all have as many."""


@contextmanager
def sharing(batch: int, world: int) -> Iterator[None]:
    """Within this context, means over processes weigh each by its samples, and gathered values may differ in number."""
    global _counts
    before = _counts
    _counts = () if batch % world == 0 else tuple(share_of(batch, rank, world).count for rank in range(world))
    try:
        yield
    finally:
        _counts = before


def share_weight(rank: int) -> float:
    """What the mean of a process weighs in the mean over processes; 1 where all have as many samples."""
    return len(_counts) * _counts[rank] / sum(_counts) if _counts else 1.0


def gathered_lengths(rows: int, rank: int, world: int) -> list[int]:
    """The number of rows of each process, where this one has `rows` for its samples."""
    if not _counts:
        return [rows] * world
    return [rows * count // _counts[rank] for count in _counts]
