"""VQ-Diffusion's equations: against diffusers' scheduler, by hand, and the bound of a model that knows everything."""

import math

import pytest
import torch
from torch import Tensor, nn

from tavq.interfaces import sum_losses
from tavq.ops.transitions import add_noise, log_posterior, log_uniform, make_schedule, transition_between
from tavq.tasks.base import GenerationBatch, TokenLayout
from tavq.tasks.diffusion import Diffusion

# --- diffusers ------------------------------------------------------------------------------------------------------

# Made once with the class VQDiffusionScheduler of diffusers 0.31.0 (PyPI; float32): num_vec_classes 6 (the mask is 5),
# num_train_timesteps 8, its own ends of ᾱ and γ̄. log p(x_0) = log_softmax over j of sin((i + 1)(j + 2)) for the place i
# and the token j < 5; x_t = [5, 2, 0, 5]. Printed: exp of the buffers log_at, log_bt, log_ct and of q_posterior at
# its timesteps 7, 4, 1, which are the steps 8, 5, 2 here.
KEPT = [0.99998999, 0.85714418, 0.8333351, 0.80000252, 0.75000393, 0.66667366, 0.50001574, 6.2997249e-05]
REPLACED = [1.9999996e-07, 2.8571414e-08, 3.8888743e-08, 5.5999575e-08, 8.749867e-08, 1.5555156e-07, 3.4998334e-07,
            1.3998399e-06]  # fmt: skip
MASKED = [8.9999985e-06, 0.14285572, 0.16666472, 0.1999972, 0.24999562, 0.33332554, 0.49998251, 0.99993002]
POSTERIOR = {
    8: [[0.0676446, 0.0313776, 0.0127838, 0.0104443, 0.0206056, 0.857144],
        [0.0923484, 0.148852, 0.529455, 0.114245, 0.115099, 0],
        [0.144401, 0.288208, 0.111608, 0.365713, 0.0900697, 0],
        [0.0555214, 0.0120715, 0.0154795, 0.0514369, 0.00834658, 0.857144]],
    5: [[0.118378, 0.0549104, 0.0223714, 0.0182773, 0.0360594, 0.750004],
        [0.0230881, 0.0372148, 0.882358, 0.0285627, 0.0287762, 0],
        [0.78609, 0.0720555, 0.0279033, 0.0914327, 0.0225184, 0],
        [0.097162, 0.0211249, 0.0270888, 0.0900141, 0.0146062, 0.750004]],
    2: [[0.473488, 0.219631, 0.0894812, 0.0731058, 0.144231, 6.29972e-05],
        [0.0131933, 0.0212658, 0.932777, 0.0163216, 0.0164437, 0],
        [0.877765, 0.0411749, 0.0159448, 0.0522478, 0.0128677, 0],
        [0.38863, 0.0844955, 0.10835, 0.36004, 0.0584221, 6.29972e-05]],
}  # fmt: skip
# The same with alpha_cum_start 0.97, alpha_cum_end 0.02, gamma_cum_start 0.01, gamma_cum_end 0.8.
WIDE = {
    8: [[0.047419, 0.0295936, 0.0204547, 0.0193049, 0.0242992, 0.858929],
        [0.11314, 0.138111, 0.502738, 0.122817, 0.123194, 0],
        [0.283503, 0.211964, 0.133918, 0.246217, 0.124399, 0],
        [0.0414604, 0.0201047, 0.0217797, 0.0394529, 0.0182738, 0.858929]],
    5: [[0.106718, 0.053068, 0.0255619, 0.0221011, 0.0371328, 0.755418],
        [0.037023, 0.0563958, 0.817227, 0.0445306, 0.0448234, 0],
        [0.669412, 0.108124, 0.0475752, 0.134698, 0.0401905, 0],
        [0.0887843, 0.0245082, 0.0295497, 0.082742, 0.0189978, 0.755418]],
    2: [[0.4299, 0.201402, 0.0842538, 0.0695142, 0.133534, 0.0813954],
        [0.0553198, 0.0884633, 0.719387, 0.068164, 0.068665, 0],
        [0.489839, 0.171127, 0.0675389, 0.21659, 0.0549049, 0],
        [0.353519, 0.0797661, 0.101238, 0.327785, 0.0562973, 0.0813954]],
}  # fmt: skip
PAPER = make_schedule(8, (0.99999, 0.000009), (0.000009, 0.99999))


def test_the_steps_are_those_of_diffusers() -> None:
    kept, replaced, masked = transition_between(PAPER[:-1], PAPER[1:]).unbind(1)
    assert kept.tolist() == pytest.approx(KEPT, rel=1e-6)
    assert (replaced / 5).tolist() == pytest.approx(REPLACED, rel=1e-6)
    assert masked.tolist() == pytest.approx(MASKED, rel=1e-6)


@pytest.mark.parametrize(
    ("shares", "expected"),
    [(PAPER, POSTERIOR), (make_schedule(8, (0.97, 0.02), (0.01, 0.8)), WIDE)],
    ids=["paper", "wide"],
)
def test_the_posterior_is_that_of_diffusers(shares: Tensor, expected: dict[int, list[list[float]]]) -> None:
    place, token = torch.arange(4.0)[:, None], torch.arange(5.0)
    log_start = torch.sin((place + 1) * (token + 2)).log_softmax(1)[None]
    even = log_uniform(torch.ones(4, 5, dtype=torch.bool), torch.float32)
    for step, rows in expected.items():
        found = log_posterior(log_start, torch.tensor([[5, 2, 0, 5]]), shares[[step - 1]], shares[[step]], even)
        torch.testing.assert_close(found[0].exp(), torch.tensor(rows), rtol=2e-5, atol=2e-6)


# --- the loss -------------------------------------------------------------------------------------------------------


class Believed(nn.Module):
    """A network that gives the same logits whatever it sees."""

    def __init__(self, logits: Tensor) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, noisy: Tensor, step: Tensor, vectors: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        return self.logits.expand(*noisy.shape, -1)


def unconditional(layout: TokenLayout, steps: int, **changes: object) -> Diffusion:
    return Diffusion(Diffusion.Config(layers=1, heads=1, width=2, steps=steps, text=False, **changes), layout)


def test_the_terms_of_a_masked_token_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    """Two tokens, x_0 = 0 believed at 3/4, seen as the mask at step 2 of 4."""
    task = unconditional(
        TokenLayout(height=1, width=1, sizes=(2,)), 4, keep_probability=(0.9, 0.1), mask_probability=(0.04, 0.8)
    )
    task.network = Believed(torch.tensor([0.75, 0.25]).log())
    monkeypatch.setattr("tavq.tasks.diffusion.add_noise", lambda tokens, shares, allowed: torch.full_like(tokens, 2))
    (kept1, replaced1, masked1), (kept2, _, masked2) = task.schedule[1:3].tolist()
    step_masked = 1 - (1 - masked2) / (1 - masked1)
    assert kept2 / kept1 == pytest.approx((0.9 - 0.8 / 3) / 0.9)
    true = [step_masked / masked2 * (kept1 * p + replaced1 / 2) for p in (1, 0)]
    model = [step_masked / masked2 * (kept1 * p + replaced1 / 2) for p in (0.75, 0.25)]
    assert sum(true) + masked1 / masked2 == pytest.approx(1)
    expected = sum(a * math.log(a / b) for a, b in zip(true, model, strict=True))
    variational, auxiliary = task.terms(torch.tensor([[0]]), torch.tensor([2]))
    assert variational.item() == pytest.approx(expected, rel=1e-5)
    assert auxiliary.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    first = task.terms(torch.tensor([[0]]), torch.tensor([1]))[0]
    assert first.item() == pytest.approx(math.log(4 / 3), rel=1e-6)  # at step 1: -log p(x_0 | x_1)


def test_the_loss_is_a_mean_over_tokens_weighted_by_the_timesteps_probability(monkeypatch: pytest.MonkeyPatch) -> None:
    task = unconditional(TokenLayout(height=1, width=3, sizes=(2,)), 4, auxiliary_weight=0.5).eval()
    drawn = torch.tensor([1, 4]), torch.tensor([0.5, 0.125])
    monkeypatch.setattr(task, "_sample_steps", lambda count: drawn)
    monkeypatch.setattr(task, "terms", lambda *_: (torch.tensor([3.0, 6.0]), torch.tensor([9.0, 12.0])))
    losses = task.loss(GenerationBatch(torch.zeros(2, 3, dtype=torch.int64), ("a", "b")))
    assert losses["diffusion/variational"].value.item() == pytest.approx((3 / 0.5 + 6 / 0.125) / 2 / 3)
    # the auxiliary loss counts twice at the first step and 1 + 1/T at the last
    assert losses["diffusion/auxiliary"].value.item() == pytest.approx((2 * 9 / 0.5 + 1.25 * 12 / 0.125) / 2 / 3)
    assert sum_losses(losses).item() == pytest.approx(9 + 0.5 * (36 + 120) / 6)


class Bayes(nn.Module):
    """A network that knows the distribution of single tokens and the noise: p(x_0 | x_t) by Bayes' rule."""

    def __init__(self, shares: Tensor, start: Tensor) -> None:
        super().__init__()
        self.schedule, self.start = shares, start

    def forward(self, noisy: Tensor, step: Tensor, vectors: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        kept, replaced, masked = (column[:, None, None] for column in self.schedule[step].unbind(1))
        v = len(self.start)
        same = torch.arange(v) == noisy[..., None]
        likelihood = torch.where((noisy == v)[..., None], masked, kept * same + replaced / v)
        return (self.start * likelihood).log()


@pytest.mark.parametrize(
    "changes",
    [{}, {"keep_probability": (0.9, 0.1), "mask_probability": (0.05, 0.7)}],
    ids=["the paper's noise", "much replaced"],
)
def test_the_bound_of_a_perfect_model_is_the_entropy(changes: dict[str, object]) -> None:
    """E[L_T + Σ L_{t-1}] = H(x_0) + KL(q(x_T) ‖ p(x_T)): the expectation over x_0 and every x_t, not drawn."""
    start = torch.tensor([0.5, 0.3, 0.15, 0.05], dtype=torch.float64)
    v, steps = len(start), 6
    task = unconditional(TokenLayout(height=1, width=1, sizes=(v,)), steps, **changes)
    task.network = Bayes(task.schedule, start)
    even, bound = log_uniform(torch.ones(1, v, dtype=torch.bool), torch.float64), 0.0
    states = torch.cartesian_prod(torch.arange(v), torch.arange(v + 1))
    for step in range(1, steps + 1):
        now = task.schedule[[step]].expand(len(states), 3)
        chance = torch.cat([now[:, :1] * torch.eye(v).repeat_interleave(v + 1, 0) + now[:, 1:2] / v, now[:, 2:]], 1)
        weight = start[states[:, 0]] * chance.gather(1, states[:, 1:])[:, 0]
        found = _terms_at(task, states, step, even)
        bound += float((weight * found).sum())
    kept, replaced, masked = task.schedule[-1].tolist()
    last = kept * start + replaced / v
    prior = float((last * (last / ((1 - masked) / v)).log()).sum())
    entropy = float(-(start * start.log()).sum())
    told = task._prior_divergence().item()  # what L_T is for each token: no more than log v, and no less than prior
    assert prior <= told
    assert bound + told == pytest.approx(entropy + prior, abs=2e-5)


def _terms_at(task: Diffusion, states: Tensor, step: int, even: Tensor) -> Tensor:
    """L_{t-1} for each (x_0, x_t)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tavq.tasks.diffusion.add_noise", lambda *_: states[:, 1:])
        return task.terms(states[:, :1], torch.full((len(states),), step))[0].double()


def test_the_sampled_bound_equals_its_expectation() -> None:
    """`bound` of a model that knows a uniform distribution: log v a token, whatever is drawn."""
    task = unconditional(TokenLayout(height=2, width=2, sizes=(3, 5)), 7)
    allowed = task.layout.allowed_tokens()
    task.network = Places(task.schedule, allowed)
    torch.manual_seed(0)
    tokens = add_noise(
        torch.zeros(400, 8, dtype=torch.int64), torch.tensor([[0.0, 1.0, 0.0]]).double().expand(400, 3), allowed
    )
    found = task.bound(GenerationBatch(tokens, ("",) * 400))
    expected = 4 * (math.log(3) + math.log(5))
    assert found.mean().item() == pytest.approx(expected, rel=0.02)
    assert found.std().item() > 0


class Places(Bayes):
    """The same of tokens that are even at each place."""

    def __init__(self, shares: Tensor, allowed: Tensor) -> None:
        super().__init__(shares, (allowed / allowed.sum(1, keepdim=True)).double())

    def forward(self, noisy: Tensor, step: Tensor, vectors: Tensor | None = None, mask: Tensor | None = None) -> Tensor:
        kept, replaced, masked = (column[:, None, None] for column in self.schedule[step].unbind(1))
        same = torch.arange(self.start.shape[1]) == noisy[..., None]
        even_here = self.start.expand(len(noisy), -1, -1).gather(2, noisy.clamp(max=self.start.shape[1] - 1)[..., None])
        hidden = (noisy == self.start.shape[1])[..., None]
        return (self.start * torch.where(hidden, masked, kept * same + replaced * even_here)).log()
