"""The kernel of many transport problems against the plain form in float64."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from interpreted import count_launches, solve
from torch import Tensor

from tavq.ops.transport import transport_plan

Interpreted = Callable[..., Any]


def problem(b: int, n: int, m: int, seed: int = 0, absent: float = 1 / 3) -> tuple[Tensor, Tensor, Tensor]:
    """Costs in [0, 4] and random weights in float32, some of them padding."""
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for size in (n, m):
        keep = torch.rand(b, size, generator=generator) >= absent
        keep[:, seed % size] = True
        positive = (torch.rand(b, size, generator=generator) + 0.1) * keep
        weights.append(positive / positive.sum(1, keepdim=True))
    return 4 * torch.rand(b, n, m, generator=generator), *weights


def check(
    interpreted: Interpreted, cost: Tensor, source: Tensor, target: Tensor, epsilon: float, iterations: int
) -> None:
    """Value and gradient within 1e-5 of those of float64, the gradient in the dtype of the cost."""
    scale = torch.arange(1.0, len(cost) + 1)
    value, gradient = interpreted(solve, cost, source, target, epsilon, iterations, scale)
    plan = transport_plan(cost.double(), source.double(), target.double(), epsilon, iterations)
    counted = (source > 0)[:, :, None] & (target > 0)[:, None, :]
    exact = (plan * cost.double().masked_fill(~counted, 0)).sum((1, 2))
    assert gradient.dtype == cost.dtype
    rounding = torch.finfo(cost.dtype).eps
    torch.testing.assert_close(value.double(), exact, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(gradient.double(), plan * scale[:, None, None].double(), atol=1e-5, rtol=rounding + 1e-4)
    assert (gradient[~counted] == 0).all()


@pytest.mark.parametrize("iterations", [1, 2, 10, 11, 12, 50])
@pytest.mark.parametrize(("n", "m"), [(4, 4), (8, 8), (16, 16), (16, 64), (5, 3), (1, 1), (33, 6)])
def test_value_and_gradient_equal_float64_after_every_number_of_iterations(
    interpreted: Interpreted, n: int, m: int, iterations: int
) -> None:
    check(interpreted, *problem(3, n, m, seed=n), 0.05, iterations)


def test_the_largest_problem_of_the_recipes(interpreted: Interpreted) -> None:
    check(interpreted, *problem(1, 256, 64), 0.05, 50)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_costs_of_fewer_digits(interpreted: Interpreted, dtype: torch.dtype) -> None:
    cost, source, target = problem(2, 9, 7)
    check(interpreted, cost.to(dtype), source, target, 0.05, 20)


@settings(max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    b=st.integers(1, 4),
    n=st.integers(1, 20),
    m=st.integers(1, 20),
    iterations=st.integers(1, 25),
    epsilon=st.sampled_from([0.02, 0.05, 1.0]),
    absent=st.sampled_from([0.0, 0.5, 1.0]),
)
def test_any_mask(
    interpreted: Interpreted, seed: int, b: int, n: int, m: int, iterations: int, epsilon: float, absent: float
) -> None:
    check(interpreted, *problem(b, n, m, seed, absent), epsilon, iterations)


def test_a_low_temperature_stays_finite(interpreted: Interpreted) -> None:
    cost, source, target = problem(2, 12, 9, seed=1)
    value, gradient = interpreted(solve, cost, source, target, 1e-3, 200)
    exact = (transport_plan(cost.double(), source.double(), target.double(), 1e-3, 200) * cost).sum((1, 2))
    torch.testing.assert_close(value.double(), exact, atol=1e-4, rtol=0)
    torch.testing.assert_close(gradient.sum(2), source, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("junk", [1e30, float("inf"), float("nan")])
def test_the_content_of_padding_changes_nothing(interpreted: Interpreted, junk: float) -> None:
    cost, source, target = problem(3, 10, 7)
    padding = (source == 0)[:, :, None] | (target == 0)[:, None, :]
    clean = interpreted(solve, cost, source, target, 0.05, 20)
    filled = interpreted(solve, cost.masked_fill(padding, junk), source, target, 0.05, 20)
    assert all(torch.equal(one, other) for one, other in zip(clean, filled, strict=True))


@pytest.mark.parametrize("iterations", [1, 2, 30])
@pytest.mark.parametrize("side", ["source", "target", "both"])
def test_a_problem_without_weight_costs_nothing_and_changes_no_other(
    interpreted: Interpreted, side: str, iterations: int
) -> None:
    cost, source, target = problem(3, 6, 5)
    whole = interpreted(solve, cost, source, target, 0.05, iterations)
    for name, weights in (("source", source), ("target", target)):
        if side in (name, "both"):
            weights[1] = 0
    value, gradient = interpreted(solve, cost, source, target, 0.05, iterations)
    assert value[1] == 0
    assert (gradient[1] == 0).all()
    for i in (0, 2):
        assert value[i] == whole[0][i]
        assert torch.equal(gradient[i], whole[1][i])


def test_a_nan_makes_its_own_problem_nan_and_no_other(interpreted: Interpreted) -> None:
    cost, source, target = problem(3, 6, 5, absent=0.0)
    cost[1, 2, 3] = torch.nan
    value, gradient = interpreted(solve, cost, source, target, 0.05, 20)
    assert value.isnan().tolist() == [False, True, False]
    assert gradient.isnan().flatten(1).all(1).tolist() == [False, True, False]


def test_costs_of_any_strides(interpreted: Interpreted) -> None:
    cost, source, target = problem(3, 9, 6)
    check(interpreted, cost.permute(1, 2, 0).contiguous().permute(2, 0, 1), source, target, 0.05, 12)


def test_all_problems_take_one_launch_where_they_fit(interpreted: Interpreted) -> None:
    assert interpreted(count_launches, torch.rand(5, 16, 64)) == 1
    assert interpreted(count_launches, torch.rand(1, 300, 64)) == 0  # too large for the registers
    assert interpreted(count_launches, torch.rand(2, 8, 8).double()) == 0
    assert interpreted(count_launches, torch.rand(0, 8, 8)) == 0
