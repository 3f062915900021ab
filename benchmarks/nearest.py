"""find_nearest compared with the usual formula; the matrix product alone is the lower bound.

Run: OMP_NUM_THREADS=1 python benchmarks/nearest.py [--rounds 5] [--json nearest.json]
"""

from functools import partial
from typing import Any

import torch
from timing import compare, report
from torch import Tensor

from tavq.ops.nearest_entry import find_nearest

SHAPES = ((65_536, 256, 1_024), (16_384, 8, 16_384))


def incumbent(rows: Tensor, entries: Tensor) -> Tensor:
    """The formula of taming-transformers: the full matrix of distances, then argmin."""
    squares = rows.square().sum(1, keepdim=True) + entries.square().sum(1)
    return (squares - 2 * (rows @ entries.T)).argmin(1)


def floor(rows: Tensor, entries: Tensor) -> None:
    """The matrix product alone, in pieces that fit into the cache."""
    out = torch.empty(len(entries), 2**20 // len(entries))
    for piece in rows.split(out.shape[1]):
        torch.mm(entries, piece.T, out=out[:, : len(piece)])


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}
    generator = torch.Generator().manual_seed(0)
    for n, d, k in SHAPES:
        rows, entries = torch.randn(n, d, generator=generator), torch.randn(k, d, generator=generator)
        searches = {"taming": incumbent, "tavq": find_nearest, "floor": floor}
        results = compare({name: partial(find, rows, entries) for name, find in searches.items()}, rounds)
        wrong = int((incumbent(rows, entries) != find_nearest(rows, entries)).sum())
        results["taming"]["note"] = f"{wrong} of {n:,} indices are not the nearest"
        cases[f"{n:,} × {d} → {k:,}"] = results
    return cases


if __name__ == "__main__":
    report("nearest entry, forward", measure)
