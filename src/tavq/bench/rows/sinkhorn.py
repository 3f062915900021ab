"""Entropic transport, forward and backward to the points, against POT and geomloss; the cost matrix is the bound."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tavq.bench.case import Alternative, Case, Scale
from tavq.ops.transport import sinkhorn

SHAPES = {"sampled": (8, 16, 16), "deep": (8, 256, 16), "full": (8, 256, 64)}
TOY_SHAPES = {"sampled": (2, 4, 4)}
EPSILON, ITERATIONS, WIDTH = 0.05, 50, 64

Problem = tuple[Tensor, Tensor, Tensor, Tensor]
Solve = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def cases(scale: Scale) -> Iterator[Case]:
    """Eight problems of 16 x 16, 256 x 16 and 256 x 64 points on a sphere, 50 iterations."""
    generator = torch.Generator().manual_seed(0)
    for key, (b, n, m) in (TOY_SHAPES if scale.toy else SHAPES).items():
        x, y = (
            torch.nn.functional.normalize(torch.randn(b, size, WIDTH, generator=generator), dim=2).to(scale.device)
            for size in (n, m)
        )
        a, c = (torch.full((b, size), 1 / size, device=scale.device) for size in (n, m))
        problem = (x.requires_grad_(), y.requires_grad_(), a, c)
        case = Case(f"sinkhorn/{key}", f"Sinkhorn, {b} x {n} x {m}, {ITERATIONS} iterations, forward and backward")
        if (missing := add_pot(case, problem)) is not None:
            case.absent["POT"] = missing
        case.alternatives += [
            Alternative("tavq", partial(step, ours, problem), repeats=5),
            Alternative("the cost matrix alone", partial(step, cost_only, problem), repeats=20),
        ]
        case.add_peer("geomloss", "geomloss", partial(geomloss_samples, problem))
        yield case


def costs(x: Tensor, y: Tensor) -> Tensor:
    """2 - 2 cos of all pairs."""
    return 2 - 2 * x @ y.mT


def step(solve: Solve, problem: Problem) -> None:
    """Forward and backward to the points."""
    x, y, _, _ = problem
    solve(*problem).sum().backward()
    x.grad = y.grad = None


def ours(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """The library's."""
    return sinkhorn(costs(x, y), a, b, EPSILON, ITERATIONS)


def cost_only(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
    """No transport."""
    return costs(x, y).mean((1, 2))


def add_pot(case: Case, problem: Problem) -> str | None:
    """Add POT's ways, of which the loop is the reference; returns why not where it is not installed."""
    case.add_peer("POT", "ot", partial(pot_ways, problem))
    return case.absent.pop("POT", None)


def pot_ways(problem: Problem) -> Iterator[Alternative]:
    """One problem at a time through its iterations, a batch with the envelope gradient, and the exact problem."""
    import ot

    def loop(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        solve: Any = partial(ot.sinkhorn2, numItermax=ITERATIONS, stopThr=0, warn=False)
        parts = zip(a, b, costs(x, y), strict=True)
        return torch.stack([solve(*part, EPSILON) for part in parts])

    def batch(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return ot.solve_batch(costs(x, y), EPSILON, a, b, max_iter=ITERATIONS, tol=0, grad="envelope").value

    def exact(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return torch.stack([ot.emd2(*part) for part in zip(a, b, costs(x, y), strict=True)])

    far = (loop(*problem) - ours(*problem)).abs().max().item()
    yield Alternative("POT, loop", partial(step, loop, problem), note=f"ours is within {far:.1e} of its values")
    yield Alternative("POT, batch", partial(step, batch, problem), repeats=2)
    yield Alternative("POT, exact", partial(step, exact, problem))


def geomloss_samples(problem: Problem) -> Iterator[Alternative]:
    """geomloss' solver for points, with its own schedule of temperatures instead of a number of iterations."""
    from geomloss import SamplesLoss

    blur = EPSILON**0.5  # its ε is blur², of half the squared distance, which is half our cost
    solve = SamplesLoss("sinkhorn", p=2, blur=blur / 2**0.5, debias=False, backend="tensorized")

    def run(x: Tensor, y: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return solve(a, x, b, y)

    yield Alternative("geomloss", partial(step, run, problem), note="its own number of iterations")
