"""Entropic optimal transport by Sinkhorn-Knopp: batched, masked, stable at any temperature."""

import torch
from jaxtyping import Float
from torch import Tensor

ABSORB_EVERY = 10
"""Iterations between two moves of the scalings into the logarithms, see `_iterate`."""


def sinkhorn(
    cost: Float[Tensor, "b n m"],
    source: Float[Tensor, "b n"],
    target: Float[Tensor, "b m"],
    epsilon: float,
    iterations: int,
) -> Float[Tensor, " b"]:
    """The transport cost ⟨P, C⟩ of each problem's entropic plan P, with P as its gradient by the cost.

    P minimises ⟨P, C⟩ + ε Σ P log P over plans with the marginals `source` and `target`, up to the given number of
    iterations. The value is ⟨P, C⟩ alone. Its gradient is that of ⟨stopgrad(P), C⟩, which is P: by the envelope theorem
    the exact gradient of the regularised minimum, and at small ε that of the transport cost. Nothing flows through
    the iterations or to the weights.

    In POT's terms, with `solution = ot.solve(C, a, b, reg=ε, reg_type="entropy", grad="envelope")`, this is the value
    of `solution.value_linear` and the gradient of `solution.value`. `ot.sinkhorn2` has the same value but another
    gradient: it differentiates through its iterations.

    See `transport_plan` for the weights, padding, cost and accuracy.
    """
    plan = transport_plan(cost, source, target, epsilon, iterations)
    with torch.autocast(cost.device.type, enabled=False):
        counted = cost.masked_fill(~_counted(source, target), 0.0).to(plan.dtype)
        return (plan * counted).sum((1, 2))


@torch.no_grad()
def transport_plan(
    cost: Float[Tensor, "b n m"],
    source: Float[Tensor, "b n"],
    target: Float[Tensor, "b m"],
    epsilon: float,
    iterations: int,
) -> Float[Tensor, "b n m"]:
    """The entropic plan of each problem after a fixed number of Sinkhorn iterations; carries no gradient.

    Weight 0 is padding: its costs are never read (they may be NaN), its plan is exactly 0. A problem without any weight
    on one side has the plan 0. Otherwise the weights of both sides must have the same sum. Computed in float32, or
    in float64 for a float64 cost, whatever autocast says.

    An iteration scales the columns, then the rows, so that `source` is met to rounding and `target` as far as the
    iterations have converged: at ε = 0.05, costs in [0, 4] and 50 iterations the
    column sums of 256 × 16 points on a sphere are off by under 1 % of the mass in total, of 16 × 16 points by 2 to 4 %.

    Source: Cuturi 2013, "Sinkhorn Distances", algorithm 1; the absorption is Schmitzer 2019, "Stabilized Sparse Scaling
    Algorithms for Entropy Regularized Transport Problems", section 3.1.
    """
    assert epsilon > 0, "epsilon must be positive"
    assert iterations > 0, "one iteration at least"
    dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
    if cost.numel() == 0:
        return torch.zeros_like(cost, dtype=dtype)
    with torch.autocast(cost.device.type, enabled=False):
        counted = _counted(source, target)
        exponent = cost.detach().masked_fill(~counted, 0.0).to(dtype) / -epsilon
        # Without weight on one side there is no plan: solved with uniform weights, to stay finite, then emptied.
        empty = ~counted.any((1, 2))[:, None]
        source = source.to(dtype).masked_fill(empty, 1.0 / source.shape[1])
        target = target.to(dtype).masked_fill(empty, 1.0 / target.shape[1])
        return _iterate(exponent, source, target, iterations).masked_fill_(~counted, 0.0)


def _counted(source: Tensor, target: Tensor) -> Tensor:
    """True where a pair has weight on both sides."""
    return (source > 0)[:, :, None] & (target > 0)[:, None, :]


def _iterate(exponent: Tensor, source: Tensor, target: Tensor, iterations: int) -> Tensor:
    """The plan after `iterations` of scaling columns, then rows, of exp(exponent).

    The first iteration runs on logarithms. From then on a scaling step changes a row or column by a factor between the
    smallest weight and its inverse: after columns and rows have been normalised once, each column sum stays above
    target · min(source). So the scalings of ten iterations fit float32 for weights down to 1e-3 in the worst case,
    and are then absorbed into the logarithms, from which the kernel is made anew. That needs one exponential in ten
    iterations where the log-domain form needs twenty, and is as safe at any temperature.
    """
    absent = torch.zeros_like(source).masked_fill_(source == 0, -torch.inf)
    column = target.log() - _log_sum_exp(exponent + absent[:, :, None], 1)
    row = source.log() - _log_sum_exp(exponent + column[:, None, :], 2)
    kernel = _kernel(exponent, row, column)
    for left in range(iterations - 1, 0, -ABSORB_EVERY):
        u, v = _scalings(kernel, source[:, None], target[:, None], min(ABSORB_EVERY, left))
        if left <= ABSORB_EVERY:
            return kernel.mul_(u.mT).mul_(v)
        row += u.squeeze(1).log_()
        column += v.squeeze(1).log_()
        kernel = _kernel(exponent, row, column)
    return kernel


def _log_sum_exp(values: Tensor, dim: int) -> Tensor:
    """torch.logsumexp in a third of its time; along `dim` one value at least must be finite."""
    top = values.amax(dim, keepdim=True)
    return (values - top).exp_().sum(dim).log_() + top.squeeze(dim)


def _kernel(exponent: Tensor, row: Tensor, column: Tensor) -> Tensor:
    return (exponent + row[:, :, None]).add_(column[:, None, :]).exp_()


def _scalings(kernel: Tensor, source: Tensor, target: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Row and column scalings [b, 1, n] and [b, 1, m] after some iterations from 1.

    Products with a row vector on the left: 3 to 4 times faster on a CPU than with a column vector on the right.
    """
    u, v = torch.ones_like(source), torch.empty_like(target)
    row_sums, column_sums = torch.empty_like(source), torch.empty_like(target)
    smallest = torch.finfo(kernel.dtype).tiny  # padding divides 0 by this and not by 0
    for _ in range(iterations):
        torch.bmm(u, kernel, out=column_sums).clamp_min_(smallest)
        torch.div(target, column_sums, out=v)
        torch.bmm(v, kernel.mT, out=row_sums).clamp_min_(smallest)
        torch.div(source, row_sums, out=u)
    return u, v
