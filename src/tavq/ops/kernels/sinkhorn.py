"""All entropic transport problems of a batch in one launch: a program solves one problem in registers.

In PyTorch, 50 iterations are two hundred launches for microseconds of arithmetic; here they are one, whatever the
number of problems, and one more multiplies the plan by the gradient (`tavq.ops.transport`).
"""

import torch
import triton
import triton.language as tl
from jaxtyping import Float
from torch import Tensor

LARGEST_PROBLEM = 2**14
"""Pairs of a problem, sides rounded up to powers of two: 256 positions and 64 units. More would not fit registers."""

PAIRS_PER_WARP = 1024
"""32 a thread: the plan, its logarithm and the exponent then take 96 of 255 registers. Only the largest problems, at
16 warps, leave a thread 128; what does not fit is read every `absorb_every` iterations."""


def fits(cost: Float[Tensor, "b n m"]) -> bool:
    """Whether the kernel solves problems of this size and dtype: not empty, up to `LARGEST_PROBLEM`, not float64."""
    n, m = _sides(cost)
    return cost.dtype != torch.float64 and cost.numel() > 0 and n * m <= LARGEST_PROBLEM


def solve_transport(
    cost: Float[Tensor, "b n m"],
    source: Float[Tensor, "b n"],
    target: Float[Tensor, "b m"],
    epsilon: float,
    iterations: int,
    absorb_every: int,
) -> tuple[Float[Tensor, " b"], Float[Tensor, "b n m"]]:
    """The transport cost ⟨P, C⟩ and the plan P of each problem in float32, after the iterations of `transport_plan`.

    The same arithmetic in the same order as in ops/transport, up to the order of sums: the first iteration on
    logarithms, then scalings that are absorbed into them every `absorb_every` iterations.
    """
    b, n, m = cost.shape
    rows, columns = _sides(cost)
    plan = torch.empty(b, n, m, device=cost.device)
    value = torch.empty(b, device=cost.device)
    warps = min(16, max(1, rows * columns // PAIRS_PER_WARP))
    _solve[(b,)](
        cost,
        source.float().contiguous(),
        target.float().contiguous(),
        plan,
        value,
        n,
        m,
        epsilon,
        iterations,
        absorb_every,
        *cost.stride(),
        SMALLEST=torch.finfo(torch.float32).tiny * 64,
        ROWS=rows,
        COLUMNS=columns,
        num_warps=warps,
        enable_fp_fusion=True,  # as in all versions before Triton 3.10
    )
    return value, plan


def _sides(cost: Tensor) -> tuple[int, int]:
    """The sides of a problem as powers of two."""
    return tuple(max(4, triton.next_power_of_2(size)) for size in cost.shape[1:])


@triton.jit
def _log_softmax(values, AXIS: tl.constexpr):
    """Logarithms normalised along an axis; a NaN spreads along it, also where the maximum passes over it."""
    shifted = values - tl.expand_dims(tl.max(values, AXIS), AXIS)
    return shifted - tl.expand_dims(tl.log(tl.sum(tl.exp(shifted), AXIS)), AXIS)


@triton.jit
def _log(weights):
    """Logarithms, -1e30 of 0: its exponential is 0, and sums of a few stay finite."""
    return tl.where(weights == 0, -1e30, tl.log(tl.where(weights == 0, 1.0, weights)))


@triton.jit
def _divide(weights, sums, SMALLEST: tl.constexpr):
    """Scalings; by at least `SMALLEST`, so that padding stays finite, while NaN stays NaN."""
    return weights / tl.where(sums < SMALLEST, SMALLEST, sums)


@triton.jit
def _solve(
    cost,
    source,
    target,
    plan,
    value,
    n,
    m,
    epsilon,
    iterations,
    absorb_every,
    problem_stride,
    row_stride,
    column_stride,
    SMALLEST: tl.constexpr,
    ROWS: tl.constexpr,
    COLUMNS: tl.constexpr,
):
    problem = tl.program_id(0).to(tl.int64)
    rows, columns = tl.arange(0, ROWS), tl.arange(0, COLUMNS)
    inside = (rows < n)[:, None] & (columns < m)[None, :]
    places = rows[:, None] * row_stride + columns[None, :] * column_stride
    a = tl.load(source + problem * n + rows, mask=rows < n, other=0.0)
    b = tl.load(target + problem * m + columns, mask=columns < m, other=0.0)
    counted = (a > 0)[:, None] & (b > 0)[None, :]
    costs = tl.load(cost + problem * problem_stride + places, mask=inside & counted, other=0.0).to(tl.float32)
    absent = tl.where(a > 0, 0.0, -1e30)
    exponent = costs / -epsilon
    logarithms = _log_softmax(exponent + absent[:, None], 0) + _log(b)[None, :]
    logarithms = _log_softmax(logarithms, 1) + _log(a)[:, None]
    kernel = tl.exp(logarithms)
    for start in range(1, iterations, absorb_every):
        u = tl.full([ROWS], 1.0, tl.float32)
        v = tl.full([COLUMNS], 1.0, tl.float32)
        for _ in range(start, tl.minimum(start + absorb_every, iterations)):
            v = _divide(b, tl.sum(kernel * u[:, None], 0), SMALLEST)
            u = _divide(a, tl.sum(kernel * v[None, :], 1), SMALLEST)
        if start + absorb_every >= iterations:
            kernel = kernel * u[:, None] * v[None, :]
        else:
            logarithms = logarithms + _log(u)[:, None] + _log(v)[None, :]
            kernel = tl.exp(logarithms)
    kernel = tl.where(counted, kernel, 0.0)
    tl.store(plan + (problem * n + rows[:, None]) * m + columns[None, :], kernel, mask=inside)
    tl.store(value + problem, tl.sum(tl.sum(exponent * kernel, 1), 0) * -epsilon)
