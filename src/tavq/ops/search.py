"""Exact search: the rows of a table with the largest dot products, whatever its size and wherever it lies."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

BLOCK_BYTES = 32 << 20
"""Of rows as float32 that are compared at a time: large enough for a fast matrix product, small beside any memory."""

QUERIES = 64
"""Compared at a time."""

CHUNK = 1024
"""Rows that are multiplied exactly at a time."""

UNIT_ROUNDOFF = 2.0**-24
"""Of float32."""


@dataclass(frozen=True)
class SearchResult:
    """For each query the rows with the largest scores, best first; of equal scores the row that stands first."""

    rows: Int[np.ndarray, "q k"]
    scores: Float[np.ndarray, "q k"]


def search(
    queries: Float[np.ndarray, "q e"], table: Float[np.ndarray, "n e"], count: int, longest: float = 1.0
) -> SearchResult:
    """The `count` best rows of a table (all of them, where it has fewer) for each query by dot product.

    A score is the dot product of the numbers as they are stored, added in float64 and rounded to float32, so it does
    not depend on the table's other rows or on the queries beside it. A row whose score is not finite is never found.

    A block of rows at a time is multiplied in float32, and what may be among the best by the error bound of that
    product is computed again: time O(q n e), memory one block and its scores, whether the table is mapped or not.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms", eq. 3.5, for the bound.

    Args:
        queries: of any length.
        table: no row is longer than `longest`.
        count: 1 or more.
        longest: of the rows.
    """
    starts = range(0, len(queries), QUERIES)
    found = [_some(queries[start : start + QUERIES], table, count, longest) for start in starts]
    if not found:
        return SearchResult(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
    return SearchResult(np.concatenate([best.rows for best in found]), np.concatenate([best.scores for best in found]))


def _some(
    queries: Float[np.ndarray, "q e"], table: Float[np.ndarray, "n e"], count: int, longest: float
) -> SearchResult:
    queries = np.ascontiguousarray(queries, np.float32)
    gaps = _error(table.shape[1]) * longest * np.linalg.norm(queries.astype(np.float64), axis=1)
    kept = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    for start, block in _blocks(table):
        with np.errstate(invalid="ignore", over="ignore"):
            rough = queries @ block.T
        for number, query in enumerate(queries):
            chosen = _candidates(rough[number], kept[number][1], count, gaps[number])
            scores = exact_dot_products(block[chosen], query)
            sure = np.isfinite(scores)
            kept[number] = _merged(kept[number], (start + chosen[sure], scores[sure]), count)
    least = min(len(rows) for rows, _ in kept)
    return SearchResult(np.stack([rows[:least] for rows, _ in kept]), np.stack([scores[:least] for _, scores in kept]))


def _blocks(table: Float[np.ndarray, "n e"]) -> Iterator[tuple[int, np.ndarray]]:
    """Where each block begins, and its rows as float32; the next block may take the place of the last."""
    n, width = table.shape
    step = min(n, max(1, BLOCK_BYTES // (4 * max(width, 1))))
    wide = None if table.dtype == np.float32 else torch.empty(step, width)
    for start in range(0, n, step or 1):
        block = table[start : start + step]
        if wide is None:
            yield start, block
            continue
        with warnings.catch_warnings():  # that the table is not writable; it is only read
            warnings.simplefilter("ignore", UserWarning)
            half = torch.from_numpy(block)
        yield start, wide[: len(block)].copy_(half).numpy()  # torch converts several times as fast as numpy


def _error(width: int) -> float:
    """How far a float32 dot product of two vectors of length 1 may be off, twice: for the row and for the last kept.

    One more operation counts for the rounding of an exact score.
    """
    steps = (width + 1) * UNIT_ROUNDOFF
    return 2 * steps / (1 - steps)


def _candidates(
    rough: Float[np.ndarray, " n"], kept: Float[np.ndarray, " k"], count: int, gap: float
) -> Int[np.ndarray, " c"]:
    """The rows of a block that may be among the best, by scores of which two are off by less than `gap` together."""
    rough = np.where(np.isfinite(rough), rough, -np.inf)
    least = kept[count - 1] if len(kept) >= count else -np.inf
    if len(rough) > count:
        least = max(least, np.partition(rough, -count)[-count])
    return np.flatnonzero(rough >= least - gap)


def exact_dot_products(rows: Float[np.ndarray, "c e"], query: Float[np.ndarray, " e"]) -> Float[np.ndarray, " c"]:
    """The dot product of each row with the query, rounded once: products of float32 are exact in float64."""
    wide = query.astype(np.float64)
    scores = np.empty(len(rows), np.float32)
    with np.errstate(invalid="ignore", over="ignore"):
        for start in range(0, len(rows), CHUNK):
            scores[start : start + CHUNK] = (rows[start : start + CHUNK].astype(np.float64) * wide).sum(axis=1)
    return scores


def _merged(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The best of both, in order."""
    rows, scores = (np.concatenate(parts) for parts in zip(first, second, strict=True))
    order = np.lexsort((rows, -scores))[:count]
    return rows[order], scores[order]
