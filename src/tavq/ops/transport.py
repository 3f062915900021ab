"""Entropic optimal transport by Sinkhorn-Knopp: batched, masked, stable at any temperature."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor
from torch.autograd.function import once_differentiable

from tavq.ops.kernels import use_triton

ABSORB_EVERY = 10
"""Iterations after which the scalings are absorbed into the logarithms; see `_iterate`."""

NEVER = -1e30
"""Used as the logarithm of weight 0: its exponential is 0, and sums or differences of a few stay finite."""


def sinkhorn(
    cost: Float[Tensor, "b n m"],
    source: Float[Tensor, "b n"],
    target: Float[Tensor, "b m"],
    epsilon: float,
    iterations: int,
) -> Float[Tensor, " b"]:
    """The transport cost ⟨P, C⟩ of the entropic plan P of each problem; its gradient with respect to the cost is P.

    P minimises ⟨P, C⟩ + ε Σ P log P over plans with the marginals `source` and `target`, up to the given number of
    iterations. The value is ⟨P, C⟩ alone, and its gradient that of ⟨stopgrad(P), C⟩: by the envelope theorem this is
    the exact gradient of the regularised minimum, and for small ε nearly that of the transport cost. No gradient flows
    through the iterations or to the weights.

    In POT's terms, with `solution = ot.solve(C, a, b, reg=ε, reg_type="entropy", grad="envelope")`, this is the value
    of `solution.value_linear` and the gradient of `solution.value`. `ot.sinkhorn2` has the same value but another
    gradient: it differentiates through its iterations.

    See `transport_plan` for padding, precision and accuracy.

    Args:
        cost: C, the cost of each pair.
        source: weights of the rows.
        target: weights of the columns; their sum is that of `source`.
        epsilon: ε, the strength of the entropy.
        iterations: Sinkhorn iterations.
    """
    return _TransportCost.apply(cost, source.detach(), target.detach(), epsilon, iterations)


@torch.no_grad()
def transport_plan(
    cost: Float[Tensor, "b n m"],
    source: Float[Tensor, "b n"],
    target: Float[Tensor, "b m"],
    epsilon: float,
    iterations: int,
) -> Float[Tensor, "b n m"]:
    """The entropic plan of each problem after a fixed number of Sinkhorn iterations, without a gradient.

    Takes the arguments of `sinkhorn`. Weight 0 is padding: its costs are not read (they may be NaN) and its plan is
    exactly 0. A problem without any weight on one side has the plan 0; otherwise both sides must have the same sum of
    weights. Computed in float32, or in float64 for a float64 cost, whatever autocast says. A NaN outside of padding
    makes its own problem NaN and no other.

    An iteration scales the columns, then the rows, so that `source` is met to rounding and `target` as far as the
    iterations have converged: at ε = 0.05, uniform weights and 50 iterations the column sums of 256 × 16 points on a
    sphere (costs in [0, 4]) are off by under 1 % of the mass in total, those of 16 × 16 points by up to 4 %.

    Source: Cuturi 2013, "Sinkhorn Distances", algorithm 1; the absorption is Schmitzer 2019, "Stabilized Sparse Scaling
    Algorithms for Entropy Regularized Transport Problems", section 3.1.
    """
    return _solve(cost, source, target, epsilon, iterations)[1]


class _TransportCost(torch.autograd.Function):
    """⟨P, C⟩ with the gradient P; as a single operation it saves the plan alone for its backward pass."""

    @staticmethod
    def forward(ctx: Any, cost: Tensor, source: Tensor, target: Tensor, epsilon: float, iterations: int) -> Tensor:
        value, plan = _solve(cost, source, target, epsilon, iterations)
        ctx.save_for_backward(plan)
        ctx.dtype = cost.dtype
        return value

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None, None]:
        (plan,) = ctx.saved_tensors
        return (gradient[:, None, None] * plan).to(ctx.dtype), None, None, None, None


def _solve(cost: Tensor, source: Tensor, target: Tensor, epsilon: float, iterations: int) -> tuple[Tensor, Tensor]:
    """The value ⟨P, C⟩ and the plan P of each problem."""
    assert epsilon > 0, "epsilon must be positive"
    assert iterations > 0, "at least one iteration"
    if use_triton(cost.device):
        from tavq.ops.kernels import sinkhorn as kernel

        if kernel.fits(cost):
            return kernel.solve_transport(cost, source, target, epsilon, iterations, ABSORB_EVERY)
    exponent = _exponent(cost, source, target, epsilon)
    plan = _iterate(exponent, source.to(exponent.dtype), target.to(exponent.dtype), iterations)
    return exponent.mul_(plan).sum((1, 2)) * -epsilon, plan


def _exponent(cost: Tensor, source: Tensor, target: Tensor, epsilon: float) -> Tensor:
    """-C/ε, with 0 where a weight is 0."""
    dtype = torch.float64 if cost.dtype == torch.float64 else torch.float32
    # an outer product of floats takes half the time of one of booleans
    counted = (source > 0).to(dtype)[:, :, None] * (target > 0).to(dtype)[:, None, :] > 0
    return torch.where(counted, cost.to(dtype), 0.0).div_(-epsilon)


def _iterate(exponent: Tensor, source: Tensor, target: Tensor, iterations: int) -> Tensor:
    """The plan after `iterations` of scaling columns, then rows, of exp(exponent).

    The first iteration runs on logarithms. After it, a scaling step changes a row or column by a factor between the
    smallest weight and its inverse: once columns and rows have been normalised, each column sum stays above
    target · min(source). So the scalings of ten iterations fit float32 for weights down to 1e-3 in the worst case.
    They are then absorbed into the logarithms, from which the kernel is computed again. That takes one exponential in
    ten iterations, where the log-domain form takes twenty, and is as stable at any temperature.
    """
    if exponent.numel() == 0:
        return torch.zeros_like(exponent)
    absent = torch.where(source > 0, 0.0, NEVER)
    logarithms = torch.log_softmax(exponent + absent[:, :, None], 1).add_(_log(target)[:, None, :])
    logarithms = torch.log_softmax(logarithms, 2).add_(_log(source)[:, :, None])
    kernel = logarithms.exp()
    if iterations == 1:  # later iterations scale the columns of padding to 0
        return kernel.mul_((target > 0)[:, None, :])
    for left in range(iterations - 1, 0, -ABSORB_EVERY):
        u, v = _scalings(kernel, source[:, None], target[:, None], min(ABSORB_EVERY, left))
        if left <= ABSORB_EVERY:
            return kernel.mul_(u.mT).mul_(v)
        torch.exp(logarithms.add_(u.log_().mT).add_(v.log_()), out=kernel)
    return kernel


def _log(weights: Tensor) -> Tensor:
    return weights.log().clamp_min_(NEVER)


def _scalings(kernel: Tensor, source: Tensor, target: Tensor, iterations: int) -> tuple[Tensor, Tensor]:
    """Row and column scalings [b, 1, n] and [b, 1, m] after `iterations` from 1.

    With a row vector on the left a product is 3 to 4 times faster on a CPU than with a column vector on the right.
    """
    u, v = torch.ones_like(source), torch.empty_like(target)
    row_sums, column_sums = torch.empty_like(source), torch.empty_like(target)
    smallest = torch.finfo(kernel.dtype).tiny * 64  # divides by it where all is padding, so the result stays finite
    transposed = kernel.mT
    for _ in range(iterations):
        torch.bmm(u, kernel, out=column_sums).clamp_min_(smallest)
        torch.div(target, column_sums, out=v)
        torch.bmm(v, transposed, out=row_sums).clamp_min_(smallest)
        torch.div(source, row_sums, out=u)
    return u, v
