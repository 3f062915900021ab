"""Mask-and-replace against products of whole matrices, in float64."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tavq.ops.transitions import (
    LOG_ZERO,
    add_noise,
    kl_divergence,
    log_one_hot,
    log_posterior,
    log_uniform,
    make_schedule,
    transition_between,
)

STEPS, V = 5, 4
WIDE = make_schedule(STEPS, (0.9, 0.05), (0.04, 0.7))
PAPER = make_schedule(STEPS, (0.99999, 0.000009), (0.000009, 0.99999))
SHARES = pytest.mark.parametrize("shares", [WIDE, PAPER], ids=["wide", "paper"])
ALLOWED = torch.tensor([[True, True, True, True], [True, True, False, False], [False, False, False, True]])


def matrix(kept: float, replaced: float, masked: float, allowed: Tensor) -> Tensor:
    """The chance to come from each row's token to each column's; the mask is the last."""
    v = len(allowed)
    found = torch.zeros(v + 1, v + 1, dtype=torch.float64)
    found[:v, :v] = kept * torch.eye(v, dtype=torch.float64) + replaced * allowed.double() / allowed.sum()
    found[:v, v] = masked
    found[v, v] = 1
    return found


def single_steps(shares: Tensor, allowed: Tensor) -> list[Tensor]:
    """The matrix of each step, by the paper's α_t = ᾱ_t / ᾱ_{t-1} and 1 - γ_t = (1 - γ̄_t) / (1 - γ̄_{t-1})."""
    found = []
    for before, after in itertools.pairwise(shares.tolist()):
        kept, masked = after[0] / before[0], 1 - (1 - after[2]) / (1 - before[2])
        found.append(matrix(kept, 1 - kept - masked, masked, allowed))
    return found


def product(matrices: list[Tensor]) -> Tensor:
    found = torch.eye(len(matrices[0]), dtype=torch.float64)
    for one in matrices:
        found = found @ one
    return found


def test_the_schedule_by_hand() -> None:
    shares = make_schedule(3, (0.9, 0.1), (0.05, 0.8))
    assert shares.dtype == torch.float64
    expected = [[1, 0, 0], [0.9, 0.05, 0.05], [0.5, 0.075, 0.425], [0.1, 0.1, 0.8]]
    torch.testing.assert_close(shares, torch.tensor(expected, dtype=torch.float64))


def test_the_papers_schedule() -> None:
    shares = make_schedule(100, (0.99999, 0.000009), (0.000009, 0.99999))
    assert shares[1].tolist() == pytest.approx([0.99999, 1e-6, 0.000009], rel=1e-9)
    assert shares[100].tolist() == pytest.approx([0.000009, 1e-6, 0.99999], rel=1e-9)
    assert (shares.sum(1) - 1).abs().max() < 1e-15


@SHARES
@pytest.mark.parametrize("place", range(len(ALLOWED)))
def test_the_matrices_multiply_to_the_probabilities(shares: Tensor, place: int) -> None:
    allowed = ALLOWED[place]
    steps = single_steps(shares, allowed)
    for s in range(STEPS):
        for t in range(s + 1, STEPS + 1):
            [found] = transition_between(shares[s][None], shares[t][None]).tolist()
            assert sum(found) == pytest.approx(1, abs=1e-12)
            torch.testing.assert_close(matrix(*found, allowed)[:V][allowed], product(steps[s:t])[:V][allowed])


def brute_force(start: Tensor, shares: Tensor, s: int, t: int, noisy: int, allowed: Tensor) -> Tensor:
    """Σ over x_0 of p(x_0) q(x_s | x_t, x_0), Bayes' rule on matrices."""
    steps = single_steps(shares, allowed)
    first, second = (product(part or [torch.eye(V + 1, dtype=torch.float64)]) for part in (steps[:s], steps[s:t]))
    whole = first @ second
    found = torch.zeros(V + 1, dtype=torch.float64)
    for token in allowed.nonzero()[:, 0].tolist():
        found += start[token] * first[token] * second[:, noisy] / whole[token, noisy]
    return found


@SHARES
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32])
def test_the_posterior_against_matrices(shares: Tensor, dtype: torch.dtype) -> None:
    generator = torch.Generator().manual_seed(0)
    start = torch.rand(1, len(ALLOWED), V, generator=generator, dtype=torch.float64) * ALLOWED
    start = start / start.sum(2, keepdim=True)
    log_start = start.log().clamp(min=LOG_ZERO)
    even = log_uniform(ALLOWED, dtype)
    for s, t in itertools.combinations(range(STEPS + 1), 2):
        for choice in itertools.product(*[[*row.nonzero()[:, 0].tolist(), V] for row in ALLOWED]):
            found = log_posterior(log_start.to(dtype), torch.tensor([choice]), shares[s][None], shares[t][None], even)
            for place, noisy in enumerate(choice):
                expected = brute_force(start[0, place], shares, s, t, noisy, ALLOWED[place])
                tolerance = 1e-9 if dtype == torch.float64 else 2e-5  # the matrices know no more
                torch.testing.assert_close(found[0, place].exp().double(), expected, rtol=tolerance, atol=tolerance)


@SHARES
def test_at_step_0_the_posterior_is_the_prediction(shares: Tensor) -> None:
    log_start = torch.randn(2, 3, V, dtype=torch.float64).masked_fill(~ALLOWED, -torch.inf)
    log_start = log_start.log_softmax(2).clamp(min=LOG_ZERO)
    noisy = torch.tensor([[1, V, V], [V, 0, 3]])
    even = log_uniform(ALLOWED, torch.float64)
    found = log_posterior(log_start, noisy, shares[0].expand(2, 3), shares[4].expand(2, 3), even)
    torch.testing.assert_close(found[..., :V].exp(), log_start.exp())
    assert (found[..., V].exp() == 0).all()


@settings(deadline=None, max_examples=50)
@given(
    st.floats(0.5, 0.99999),
    st.floats(1e-6, 0.4),
    st.floats(0.01, 0.99),
    st.integers(2, 40),
    st.integers(0, 2**31),
)
def test_whatever_the_noise_the_posterior_sums_to_one(
    kept: float, kept_last: float, split: float, steps: int, seed: int
) -> None:
    hidden, hidden_last = (1 - kept) * (1 - split), (1 - kept_last) * (1 - split / 2)
    if (1 - kept_last - hidden_last) * kept < (1 - kept - hidden) * kept_last:
        return
    shares = make_schedule(steps, (kept, kept_last), (hidden, hidden_last))
    generator = torch.Generator().manual_seed(seed)
    t = torch.randint(1, steps + 1, (8,), generator=generator)
    s = (torch.rand(8, generator=generator) * t).long()
    log_start = (5 * torch.randn(8, 1, V, generator=generator)).log_softmax(2)
    noisy = torch.randint(V + 1, (8, 1), generator=generator)
    even = log_uniform(torch.ones(1, V, dtype=torch.bool), torch.float32)
    found = log_posterior(log_start, noisy, shares[s], shares[t], even)
    torch.testing.assert_close(found.exp().sum(2), torch.ones(8, 1), atol=2e-4, rtol=0)


def test_gradients_are_finite_where_tokens_are_forbidden() -> None:
    logits = torch.zeros(2, 3, V, requires_grad=True)
    log_start = logits.masked_fill(~ALLOWED, -torch.inf).log_softmax(2).clamp(min=LOG_ZERO)
    even = log_uniform(ALLOWED, torch.float32)
    noisy, tokens = torch.tensor([[0, V, 3], [V, 1, V]]), torch.tensor([[0, 1, 3], [2, 1, 3]])
    before, now = PAPER[[0, 3]], PAPER[[1, 5]]
    model = log_posterior(log_start, noisy, before, now, even)
    found = kl_divergence(log_posterior(log_one_hot(tokens, even), noisy, before, now, even), model)
    found.sum().backward()
    assert found.isfinite().all()
    assert logits.grad is not None
    assert logits.grad.isfinite().all()
    assert (logits.grad.masked_select(~ALLOWED) == 0).all()
    assert (logits.grad[:, :2].abs().sum() > 0).all()


def test_noise_has_its_probabilities() -> None:
    count = 40_000
    tokens = torch.tensor([[2, 1, 3]]).expand(count, -1)
    torch.manual_seed(0)
    found = add_noise(tokens, torch.tensor([[0.5, 0.3, 0.2]], dtype=torch.float64).expand(count, -1), ALLOWED)
    expected = torch.tensor(
        [[0.075, 0.075, 0.575, 0.075, 0.2], [0.15, 0.65, 0, 0, 0.2], [0, 0, 0, 0.8, 0.2]], dtype=torch.float64
    )
    for place in range(3):
        shares = torch.bincount(found[:, place], minlength=V + 1) / count
        torch.testing.assert_close(shares.double(), expected[place], atol=0.012, rtol=0)
        assert (shares[expected[place] == 0] == 0).all()


def test_without_noise_tokens_stay() -> None:
    tokens = torch.tensor([[2, 1, 3], [0, 0, 3]])
    assert torch.equal(add_noise(tokens, PAPER[[0, 0]], ALLOWED), tokens)


def test_divergence_by_hand() -> None:
    true = torch.tensor([[[0.5, 0.5, 0.0], [1.0, 0.0, 0.0]]], dtype=torch.float64)
    model = torch.tensor([[[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]], dtype=torch.float64)
    found = kl_divergence(true.log().clamp(min=LOG_ZERO), model.log())
    expected = 0.5 * torch.tensor(2.0, dtype=torch.float64).log() + torch.tensor(5.0, dtype=torch.float64).log()
    assert found.tolist() == pytest.approx([float(expected)])
