"""Exact search for the largest dot products in a table of any size, in memory or mapped from a file."""

import warnings
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Int

BLOCK_BYTES = 32 << 20
"""Bytes of float32 rows that are scored at a time: enough for a fast matrix product, and little memory."""

QUERIES = 64
"""Queries that are scored at a time."""

CHUNK = 1024
"""Rows that are scored exactly at a time."""

UNIT_ROUNDOFF = 2.0**-24
"""The unit roundoff of float32."""


@dataclass(frozen=True)
class TopK:
    """For each query the rows with the largest scores, best first; of equal scores the lower row comes first."""

    rows: Int[np.ndarray, "q k"]
    scores: Float[np.ndarray, "q k"]


def topk_dot_products(
    queries: Float[np.ndarray, "q e"], table: Float[np.ndarray, "n e"], count: int, max_norm: float = 1.0
) -> TopK:
    """Find the `count` rows of a table with the largest dot product for each query.

    A score is the dot product of the stored numbers, summed in float64 and rounded to float32, so it does not depend on
    the table's other rows or on the other queries. Rows whose score is not finite are left out.

    Each block of rows is scored in float32; rows that may be among the best, by the error bound of that product, are
    scored again exactly. Time O(q n e); memory one block and its scores, whether the table is mapped or not.

    Source: Higham, "Accuracy and Stability of Numerical Algorithms", eq. 3.5, for the bound.

    Args:
        queries: vectors of any length.
        table: the rows to search.
        count: rows to find, 1 or more; all rows of a smaller table.
        max_norm: an upper bound on the length of the table's rows.
    """
    starts = range(0, len(queries), QUERIES)
    groups = [_search_group(queries[start : start + QUERIES], table, count, max_norm) for start in starts]
    if not groups:
        return TopK(np.empty((0, 0), np.int64), np.empty((0, 0), np.float32))
    rows = np.concatenate([group.rows for group in groups])
    return TopK(rows, np.concatenate([group.scores for group in groups]))


def _search_group(
    queries: Float[np.ndarray, "q e"], table: Float[np.ndarray, "n e"], count: int, max_norm: float
) -> TopK:
    queries = np.ascontiguousarray(queries, np.float32)
    gaps = _error_bound(table.shape[1]) * max_norm * np.linalg.norm(queries.astype(np.float64), axis=1)
    best = [(np.empty(0, np.int64), np.empty(0, np.float32)) for _ in queries]
    for start, block in _blocks(table):
        with np.errstate(invalid="ignore", over="ignore"):
            rough = queries @ block.T
        for i, query in enumerate(queries):
            candidates = _candidates(rough[i], best[i][1], count, gaps[i])
            scores = exact_dot_products(block[candidates], query)
            finite = np.isfinite(scores)
            best[i] = _merge(best[i], (start + candidates[finite], scores[finite]), count)
    # queries may differ in how many finite scores they have
    least = min(len(rows) for rows, _ in best)
    rows = np.stack([rows[:least] for rows, _ in best])
    return TopK(rows, np.stack([scores[:least] for _, scores in best]))


def _blocks(table: Float[np.ndarray, "n e"]) -> Iterator[tuple[int, np.ndarray]]:
    """Yield the first row of each block and its rows as float32, in a buffer that the next block overwrites."""
    n, width = table.shape
    step = min(n, max(1, BLOCK_BYTES // (4 * max(width, 1))))
    wide = None if table.dtype == np.float32 else torch.empty(step, width)
    for start in range(0, n, step or 1):
        block = table[start : start + step]
        if wide is None:
            yield start, block
            continue
        with warnings.catch_warnings():  # torch warns that the array is not writable; it is only read
            warnings.simplefilter("ignore", UserWarning)
            half = torch.from_numpy(block)
        yield start, wide[: len(block)].copy_(half).numpy()  # torch converts to float32 several times faster than numpy


def _error_bound(width: int) -> float:
    """Twice the error of a float32 dot product of unit vectors: of a row's score and of the score it is compared with.

    One operation more than the width covers the rounding of the exact score.
    """
    steps = (width + 1) * UNIT_ROUNDOFF
    return 2 * steps / (1 - steps)


def _candidates(
    rough: Float[np.ndarray, " n"], best: Float[np.ndarray, " k"], count: int, gap: float
) -> Int[np.ndarray, " c"]:
    """The rows of a block that may be among the best; the errors of any two rough scores add up to less than `gap`."""
    rough = np.where(np.isfinite(rough), rough, -np.inf)
    least = best[count - 1] if len(best) >= count else -np.inf
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


def _merge(
    first: tuple[np.ndarray, np.ndarray], second: tuple[np.ndarray, np.ndarray], count: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `count` best of both, in order."""
    rows, scores = (np.concatenate(parts) for parts in zip(first, second, strict=True))
    order = np.lexsort((rows, -scores))[:count]
    return rows[order], scores[order]
