"""Counts of a level from the grids of all images: where each code is, and in which images it is prominent."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from tavq.explore.statistics.rows import Rows, make_rows, offsets_of, runs

BLOCK = 1 << 22
"""Codes of the grids that are read at a time."""

SORTED = 1 << 24
"""Positions that are sorted at a time."""

CLOSEST = 8
"""Closest positions that are kept of a code, each from another image."""


@dataclass(frozen=True)
class Grids:
    """The grids of a level: codes [n, cells * parts], counted through all parts, and distances [n, cells]."""

    codes: Int[np.ndarray, "n p"]
    distances: Float[np.ndarray, "n c"]
    readable: Bool[np.ndarray, " n"]
    entries: int

    @property
    def parts(self) -> int:
        """Codes of a position."""
        return self.codes.shape[1] // self.distances.shape[1]

    def blocks(self) -> Iterator[tuple[Int[np.ndarray, " b"], Int[np.ndarray, "b p"]]]:
        """Yield readable images, some at a time, with their codes."""
        step = max(1, BLOCK // self.codes.shape[1])
        for start in range(0, len(self.codes), step):
            images = start + np.flatnonzero(self.readable[start : start + step])
            if len(images):
                yield images, np.asarray(self.codes[images]).astype(np.int64)


def count_codes(grids: Grids) -> Int[np.ndarray, " k"]:
    """How often each code was chosen."""
    counts = np.zeros(grids.entries, np.int64)
    for _, codes in grids.blocks():
        counts += np.bincount(codes.ravel(), minlength=grids.entries)
    return counts


def iter_positions(grids: Grids, counts: Int[np.ndarray, " k"]) -> Iterator[Int[np.ndarray, " v"]]:
    """Yield all positions in order of code, then of image; joined they are the values of `Rows` with these counts.

    A position is an index into `codes` as a flat array. Each of several passes over the grids sorts the positions of
    some codes, so that memory stays bounded.
    """
    width = grids.codes.shape[1]
    for first, last in _groups(counts):
        found, owners = [], []
        for images, codes in grids.blocks():
            row, column = np.nonzero((codes >= first) & (codes < last))
            found.append(images[row] * width + column)
            owners.append(codes[row, column])
        if found:
            order = np.argsort(np.concatenate(owners), kind="stable")
            yield np.concatenate(found)[order]


def _groups(counts: Int[np.ndarray, " k"]) -> Iterator[tuple[int, int]]:
    """Ranges of codes of about `SORTED` positions together."""
    total = np.cumsum(counts)
    first = 0
    while first < len(counts):
        before = total[first - 1] if first else 0
        last = max(int(total.searchsorted(before + SORTED, "right")), first + 1)
        yield first, last
        first = last


def find_prominent(grids: Grids, counted: Bool[np.ndarray, " n"]) -> Rows:
    """The codes that each counted image uses more often than the average counted image does.

    As in `association.Cooccurrences.find_prominent`: mere presence does not discriminate for a code that occurs in
    every image.

    Args:
        grids: of the level.
        counted: the images that statistics of text count.
    """
    totals = np.zeros(grids.entries, np.int64)
    for images, codes in grids.blocks():
        totals += np.bincount(codes[counted[images]].ravel(), minlength=grids.entries)
    mean = totals / max(int(counted.sum()), 1)
    owners, found = [], []
    for images, codes in grids.blocks():
        kept = counted[images]
        rows = np.repeat(images[kept], codes.shape[1])
        pairs, counts = runs(np.sort(rows * grids.entries + codes[kept].ravel()))
        image, code = np.divmod(pairs, grids.entries)
        prominent = counts > mean[code]
        owners.append(image[prominent])
        found.append(code[prominent].astype(np.int32))
    if not owners:
        return Rows(offsets_of(np.zeros(len(counted), np.int64)), np.zeros(0, np.int32))
    return make_rows(np.concatenate(owners), np.concatenate(found), len(counted))


def find_closest(grids: Grids, positions: Int[np.ndarray, " v"]) -> Int[np.ndarray, " c"]:
    """The positions of a code whose features are closest to it, at most one of an image, closest first.

    Args:
        grids: of the level.
        positions: of the code, in order of image.
    """
    width, cells = grids.codes.shape[1], grids.distances.shape[1]
    image, column = np.divmod(positions, width)
    distances = np.asarray(grids.distances).reshape(-1)[image * cells + column // grids.parts]
    order = np.lexsort((distances, image))
    _, first = np.unique(image[order], return_index=True)
    best = order[first]
    return positions[best[np.argsort(distances[best], kind="stable")[:CLOSEST]]]
