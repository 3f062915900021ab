"""sinkhorn compared with POT, forward and backward; the cost matrix alone is the lower bound.

Run: OMP_NUM_THREADS=1 python benchmarks/transport.py [--rounds 5] [--json transport.json]
"""

from functools import partial
from typing import Any

import ot
import torch
from timing import compare, report
from torch import Tensor

from tavq.ops.transport import sinkhorn

SHAPES = ((8, 256, 16), (8, 16, 16), (8, 256, 64))
EPSILON, ITERATIONS = 0.05, 50


def costs(x: Tensor, y: Tensor) -> Tensor:
    return 2 - 2 * x @ y.mT


def pot_loop(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """One problem at a time, with gradients through the iterations."""
    cost = costs(x, y)
    return torch.stack(
        [
            ot.sinkhorn2(*part, EPSILON, numItermax=ITERATIONS, stopThr=0, warn=False)
            for part in zip(a, b, cost, strict=True)
        ]
    )


def pot_batch(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return ot.solve_batch(costs(x, y), EPSILON, a, b, max_iter=ITERATIONS, tol=0, grad="envelope").value


def pot_exact(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The unregularized problem, one at a time."""
    return torch.stack([ot.emd2(*part) for part in zip(a, b, costs(x, y), strict=True)])


def ours(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return sinkhorn(costs(x, y), a, b, EPSILON, ITERATIONS)


def floor(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    return costs(x, y).mean((1, 2))


def step(solve: Any, x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> None:
    """Forward and backward to the points."""
    solve(x, y, a, b).sum().backward()
    x.grad = y.grad = None


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    cases: dict[str, dict[str, Any]] = {}
    generator = torch.Generator().manual_seed(0)
    for b, n, m in SHAPES:
        points = [
            torch.nn.functional.normalize(torch.randn(b, size, 64, generator=generator), dim=2) for size in (n, m)
        ]
        weights = [torch.full((b, size), 1 / size) for size in (n, m)]
        x, y = (point.requires_grad_() for point in points)
        solvers = {
            "POT, loop": pot_loop,
            "POT, batch": pot_batch,
            "POT, exact": pot_exact,
            "tavq": ours,
            "floor": floor,
        }
        works = {name: partial(step, solve, x, y, *weights) for name, solve in solvers.items()}
        case = f"{b} × {n} × {m}, {ITERATIONS} iterations, forward and backward"
        cases[case] = compare(works, rounds, repeats={"POT, batch": 10, "tavq": 20, "floor": 100})
        difference = (ours(x, y, *weights) - pot_loop(x, y, *weights)).abs().max()
        cases[case]["tavq"]["note"] = f"values within {difference:.1e} of POT's"
    return cases


if __name__ == "__main__":
    report("Sinkhorn", measure)
