"""What holds for the kernels on any input."""

import ot
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tavq.ops.nearest_entry import find_nearest
from tavq.ops.transport import sinkhorn, transport_plan

seeds = st.integers(0, 2**31)
sizes = st.integers(1, 9)


@given(seeds, st.integers(0, 40), st.integers(1, 40), sizes, st.integers(-12, 12), st.integers(-12, 12), st.booleans())
@settings(max_examples=150, deadline=None)
def test_nearest_equals_brute_force(seed: int, n: int, k: int, d: int, offset: int, spread: int, lattice: bool) -> None:
    generator = torch.Generator().manual_seed(seed)
    rows = torch.randn(n, d, generator=generator)
    entries = torch.randn(k, d, generator=generator)[torch.randint(k, (k,), generator=generator)]
    if lattice:
        rows, entries = rows.round(), entries.round()
    rows, entries = rows + 2.0**offset, entries * 2.0**spread + 2.0**offset
    distances = (rows.double()[:, None] - entries.double()).square().sum(2)
    assert torch.equal(find_nearest(rows, entries), distances.argmin(1))


def problem(seed: int, b: int, n: int, m: int) -> tuple[Tensor, Tensor, Tensor]:
    """Random costs and weights, at least one weight a side."""
    generator = torch.Generator().manual_seed(seed)
    weights = []
    for size in (n, m):
        weight = torch.rand(b, size, generator=generator, dtype=torch.float64) + 0.05
        weight[:, 1:] *= torch.rand(b, size - 1, generator=generator) < 0.6
        weights.append(weight / weight.sum(1, keepdim=True))
    return torch.rand(b, n, m, generator=generator, dtype=torch.float64) * 4, weights[0], weights[1]


@given(seeds, sizes, sizes, st.sampled_from([0.05, 0.3, 2.0]))
@settings(max_examples=60, deadline=None)
def test_sinkhorn_equals_pot(seed: int, n: int, m: int, epsilon: float) -> None:
    cost, source, target = problem(seed, 2, n, m)
    value = sinkhorn(cost, source, target, epsilon, 50)
    for i in range(2):
        rows, columns = source[i] > 0, target[i] > 0
        expected = ot.sinkhorn2(
            source[i][rows],
            target[i][columns],
            cost[i][rows][:, columns],
            epsilon,
            numItermax=50,
            stopThr=0,
            warn=False,
        )
        assert value[i].item() == pytest.approx(expected.item(), abs=1e-6)


@given(seeds, sizes, sizes)
@settings(max_examples=40, deadline=None)
def test_the_plan_follows_permutations(seed: int, n: int, m: int) -> None:
    cost, source, target = problem(seed, 2, n, m)
    rows, columns = (torch.randperm(size, generator=torch.Generator().manual_seed(seed)) for size in (n, m))
    plan = transport_plan(cost, source, target, 0.05, 20)
    permuted = transport_plan(cost[:, rows][:, :, columns], source[:, rows], target[:, columns], 0.05, 20)
    torch.testing.assert_close(permuted, plan[:, rows][:, :, columns], atol=1e-12, rtol=0)


@given(seeds, sizes, sizes, sizes, sizes)
@settings(max_examples=40, deadline=None)
def test_more_padding_changes_nothing(seed: int, n: int, m: int, more_rows: int, more_columns: int) -> None:
    cost, source, target = problem(seed, 2, n, m)
    pad = torch.nn.functional.pad
    wide = pad(cost, (0, more_columns, 0, more_rows), value=float("nan"))
    value = sinkhorn(wide, pad(source, (0, more_rows)), pad(target, (0, more_columns)), 0.05, 30)
    torch.testing.assert_close(value, sinkhorn(cost, source, target, 0.05, 30), atol=1e-12, rtol=0)


@given(seeds, sizes, sizes)
@settings(max_examples=40, deadline=None)
def test_the_plan_moves_all_weight(seed: int, n: int, m: int) -> None:
    cost, source, target = problem(seed, 2, n, m)
    plan = transport_plan(cost, source, target, 0.05, 50)
    assert (plan >= 0).all()
    torch.testing.assert_close(plan.sum(2), source, atol=1e-12, rtol=0)
