"""sinkhorn against POT, values by hand, and what padding must never do."""

import ot
import pytest
import torch
from torch import Tensor

from tavq.ops.transport import sinkhorn, transport_plan

Problem = tuple[Tensor, Tensor, Tensor]


def sphere_problem(b: int, n: int, m: int, seed: int = 0, masked: bool = True) -> Problem:
    """Costs 2 - 2 cos in [0, 4] and random weights in float64, a third of them padding."""
    generator = torch.Generator().manual_seed(seed)

    def draw(size: int) -> tuple[Tensor, Tensor]:
        points = torch.randn(b, size, 8, generator=generator, dtype=torch.float64)
        weights = torch.rand(b, size, generator=generator, dtype=torch.float64) + 0.1
        if masked:
            keep = torch.rand(b, size, generator=generator) < 2 / 3
            keep[:, 0] = True
            weights = weights * keep
        return torch.nn.functional.normalize(points, dim=-1), weights / weights.sum(1, keepdim=True)

    (x, source), (y, target) = draw(n), draw(m)
    return 2 - 2 * x @ y.mT, source, target


def without_padding(cost: Tensor, source: Tensor, target: Tensor, i: int) -> Problem:
    rows, columns = source[i] > 0, target[i] > 0
    return cost[i].detach()[rows][:, columns], source[i][rows], target[i][columns]


@pytest.mark.parametrize("iterations", [1, 2, 10, 11, 12, 50])
@pytest.mark.parametrize(("n", "m"), [(16, 16), (40, 6), (5, 3), (1, 4)])
def test_value_and_gradient_equal_pot_after_every_number_of_iterations(n: int, m: int, iterations: int) -> None:
    cost, source, target = sphere_problem(4, n, m, seed=n)
    cost.requires_grad_()
    value = sinkhorn(cost, source, target, 0.05, iterations)
    value.sum().backward()
    for i in range(4):
        c, a, b = without_padding(cost, source, target, i)
        plan = ot.bregman.sinkhorn_knopp(a, b, c, 0.05, numItermax=iterations, stopThr=0, warn=False)
        assert value[i].item() == pytest.approx((plan * c).sum().item(), abs=1e-10)
        torch.testing.assert_close(cost.grad[i][source[i] > 0][:, target[i] > 0], plan, atol=1e-10, rtol=0)


@pytest.mark.parametrize("epsilon", [0.05, 0.5])
def test_converged_it_is_value_linear_with_the_envelope_gradient_of_pot(epsilon: float) -> None:
    cost, source, target = sphere_problem(3, 12, 7)
    cost.requires_grad_()
    value = sinkhorn(cost, source, target, epsilon, 2000)
    value.sum().backward()
    for i in range(3):
        c, a, b = without_padding(cost, source, target, i)
        c.requires_grad_()
        solution = ot.solve(c, a, b, reg=epsilon, reg_type="entropy", grad="envelope", max_iter=10_000, tol=1e-12)
        solution.value.backward()
        assert value[i].item() == pytest.approx(solution.value_linear.item(), abs=1e-6)
        torch.testing.assert_close(cost.grad[i][source[i] > 0][:, target[i] > 0], c.grad, atol=1e-6, rtol=0)


def test_at_small_epsilon_it_is_the_exact_transport_cost() -> None:
    cost, source, target = sphere_problem(4, 10, 6, seed=3)
    value = sinkhorn(cost, source, target, 2e-3, 20_000)
    for i in range(4):
        c, a, b = without_padding(cost, source, target, i)
        assert value[i].item() == pytest.approx(ot.emd2(a.numpy(), b.numpy(), c.numpy()), abs=2e-4)


def test_by_hand_two_by_two() -> None:
    # Symmetric: the plan is [[p, q], [q, p]] / 2 with q / p = exp(-1 / ε) and p + q = 1, met in one iteration.
    cost = torch.tensor([[[0.0, 1.0], [1.0, 0.0]]], dtype=torch.float64)
    half = torch.full((1, 2), 0.5, dtype=torch.float64)
    q = 1 / (1 + torch.e**2)
    assert sinkhorn(cost, half, half, 0.5, 1).item() == pytest.approx(q, abs=1e-12)
    assert transport_plan(cost, half, half, 0.5, 30)[0, 0].tolist() == pytest.approx([(1 - q) / 2, q / 2], abs=1e-12)


def test_finite_differences_of_the_regularised_minimum_are_the_gradient() -> None:
    cost, source, target = sphere_problem(1, 4, 3, masked=False)

    def minimum(c: Tensor) -> Tensor:
        plan = transport_plan(c, source, target, 0.3, 500)
        return (plan * c).sum() + 0.3 * (plan * plan.log()).sum()

    cost.requires_grad_()
    sinkhorn(cost, source, target, 0.3, 500).sum().backward()
    for place in range(12):
        step = torch.zeros(12, dtype=torch.float64)
        step[place] = 1e-5
        step = step.view_as(cost)
        slope = (minimum(cost.detach() + step) - minimum(cost.detach() - step)) / 2e-5
        assert slope.item() == pytest.approx(cost.grad.flatten()[place].item(), abs=1e-8)


def test_the_gradient_is_scaled_by_what_comes_from_above() -> None:
    cost, source, target = sphere_problem(2, 5, 4)
    cost.requires_grad_()
    (sinkhorn(cost, source, target, 0.05, 20) * torch.tensor([2.0, -3.0])).sum().backward()
    plan = transport_plan(cost, source, target, 0.05, 20)
    torch.testing.assert_close(cost.grad, plan * torch.tensor([2.0, -3.0], dtype=torch.float64)[:, None, None])


@pytest.mark.parametrize("epsilon", [0.05, 1e-3, 1e-4])
@pytest.mark.parametrize("scale", [1.0, 50.0])
def test_float32_is_stable_at_any_temperature(epsilon: float, scale: float) -> None:
    cost, source, target = sphere_problem(3, 64, 9)
    exact = transport_plan(cost * scale, source, target, epsilon, 50)
    plan = transport_plan((cost * scale).float(), source.float(), target.float(), epsilon, 50)
    assert plan.isfinite().all()
    torch.testing.assert_close(plan.sum(2), source.float(), atol=1e-6, rtol=1e-5)
    # The costs' own rounding to float32, divided by ε, is what two plans may differ by.
    torch.testing.assert_close(plan, exact.float(), atol=1e-6 + 1e-8 * scale / epsilon, rtol=0)


def test_potentials_beyond_the_range_of_float32() -> None:
    # Here the scalings grow beyond 1e38 within 200 iterations unless they are absorbed.
    generator = torch.Generator().manual_seed(1)
    cost = 4 * torch.rand(8, 8, 8, generator=generator, dtype=torch.float64)
    weights = torch.full((8, 8), 1 / 8, dtype=torch.float64)
    value = sinkhorn(cost.float(), weights.float(), weights.float(), 1e-3, 200)
    exact = [ot.emd2(weights[0].numpy(), weights[0].numpy(), c.numpy()) for c in cost]
    torch.testing.assert_close(value.double(), sinkhorn(cost, weights, weights, 1e-3, 200), atol=1e-6, rtol=0)
    converged = sinkhorn(cost.float(), weights.float(), weights.float(), 1e-3, 10_000)
    assert converged.tolist() == pytest.approx(exact, abs=1e-3)


def test_float32_value_and_gradient_are_close_to_float64() -> None:
    cost, source, target = sphere_problem(8, 256, 16)
    single = cost.float().requires_grad_()
    value = sinkhorn(single, source.float(), target.float(), 0.05, 50)
    value.sum().backward()
    torch.testing.assert_close(value.double(), sinkhorn(cost, source, target, 0.05, 50), atol=1e-6, rtol=0)
    torch.testing.assert_close(single.grad.double(), transport_plan(cost, source, target, 0.05, 50), atol=1e-6, rtol=0)


@pytest.mark.parametrize("iterations", [1, 2, 12])
@pytest.mark.parametrize("empty", ["source", "target"])
def test_without_weight_on_a_side_the_plan_is_zero_after_every_number_of_iterations(
    empty: str, iterations: int
) -> None:
    cost, source, target = sphere_problem(2, 5, 4)
    {"source": source, "target": target}[empty][1] = 0
    plan = transport_plan(cost, source, target, 0.05, iterations)
    assert (plan[1] == 0).all()
    assert plan[0].sum().item() == pytest.approx(1)


@pytest.mark.parametrize("junk", [0.0, 1e30, float("inf"), float("nan")])
def test_the_content_of_padding_changes_nothing(junk: float) -> None:
    cost, source, target = (part.float() for part in sphere_problem(4, 20, 7))
    padding = (source == 0)[:, :, None] | (target == 0)[:, None, :]
    results = []
    for value in (1.0, junk):
        filled = cost.masked_fill(padding, value).requires_grad_()
        result = sinkhorn(filled, source, target, 0.05, 50)
        result.sum().backward()
        results.append((result.detach(), filled.grad))
    assert torch.equal(results[0][0], results[1][0])
    assert torch.equal(results[0][1], results[1][1])
    assert (results[1][1][padding] == 0).all()


@pytest.mark.parametrize("junk", [1.0, float("nan")])
@pytest.mark.parametrize("side", ["source", "target", "both"])
def test_a_problem_without_weight_costs_nothing_and_spoils_no_other(side: str, junk: float) -> None:
    cost, source, target = (part.float() for part in sphere_problem(3, 20, 7))
    alone = sinkhorn(cost, source, target, 0.05, 50)
    if side != "target":
        source[1] = 0
    if side != "source":
        target[1] = 0
    cost[1] = junk
    cost.requires_grad_()
    value = sinkhorn(cost, source, target, 0.05, 50)
    value.sum().backward()
    assert value[1] == 0
    assert (cost.grad[1] == 0).all()
    assert torch.equal(value[[0, 2]], alone[[0, 2]])
    assert cost.grad.isfinite().all()


@pytest.mark.parametrize("shape", [(0, 4, 3), (2, 4, 0), (2, 0, 3)])
def test_nothing_to_move_is_0_with_a_gradient(shape: tuple[int, int, int]) -> None:
    b, n, m = shape
    cost = torch.zeros(shape, requires_grad=True)
    value = sinkhorn(cost, torch.zeros(b, n), torch.zeros(b, m), 0.05, 50)
    value.sum().backward()
    assert value.tolist() == [0.0] * b
    assert cost.grad.shape == shape


def test_a_nan_that_counts_shows_in_its_own_problem_only() -> None:
    cost, source, target = sphere_problem(3, 6, 4)
    cost[1, 0, 0] = torch.nan  # the first row and column always count
    assert sinkhorn(cost, source, target, 0.05, 20).isnan().tolist() == [False, True, False]


def test_very_unequal_weights_stay_finite() -> None:
    cost, source, target = sphere_problem(6, 30, 20, seed=5, masked=False)
    source, target = source**12, target**12  # down to 1e-12 of the largest
    source, target = source / source.sum(1, keepdim=True), target / target.sum(1, keepdim=True)
    exact = sinkhorn(cost, source, target, 0.05, 60)
    value = sinkhorn(cost.float(), source.float(), target.float(), 0.05, 60)
    torch.testing.assert_close(value.double(), exact, atol=1e-5, rtol=0)
    assert sinkhorn(cost.float() * 50, source.float(), target.float(), 1e-3, 60).isfinite().all()


def test_autocast_and_half_precision_compute_in_float32() -> None:
    cost, source, target = (part.float() for part in sphere_problem(2, 8, 4))
    expected = sinkhorn(cost, source, target, 0.05, 50)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(sinkhorn(cost, source, target, 0.05, 50), expected)
        assert transport_plan(cost.bfloat16(), source, target, 0.05, 50).dtype == torch.float32
    half = sinkhorn(cost.bfloat16(), source, target, 0.05, 50)
    assert half.dtype == torch.float32
    assert torch.equal(half, sinkhorn(cost.bfloat16().float(), source, target, 0.05, 50))


def test_a_half_precision_cost_gets_a_half_precision_gradient() -> None:
    cost, source, target = (part.float() for part in sphere_problem(2, 8, 4))
    cost = cost.bfloat16().requires_grad_()
    sinkhorn(cost, source, target, 0.05, 50).sum().backward()
    assert cost.grad.dtype == torch.bfloat16
    assert torch.equal(cost.grad, transport_plan(cost, source, target, 0.05, 50).bfloat16())


def test_no_gradient_reaches_the_weights() -> None:
    cost, source, target = sphere_problem(2, 5, 4)
    source.requires_grad_()
    assert not sinkhorn(cost, source, target, 0.05, 10).requires_grad


def test_fifty_iterations_are_as_close_to_the_marginals_as_stated() -> None:
    for n, bound in ((256, 0.01), (16, 0.04)):
        cost, source, target = sphere_problem(32, n, 16, masked=False)
        source, target = torch.full_like(source, 1 / n), torch.full_like(target, 1 / 16)
        plan = transport_plan(cost, source, target, 0.05, 50)
        torch.testing.assert_close(plan.sum(2), source, atol=1e-12, rtol=0)
        assert (plan.sum(1) - target).abs().sum(1).max() < bound
