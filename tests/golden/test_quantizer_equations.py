"""The equations of the quantizers by hand, on a few numbers."""

import itertools
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tavq.codebooks.lattice import LatticeCodebook
from tavq.codebooks.learned import LearnedCodebook
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import Loss, Quantizer, sum_losses
from tavq.ops.entropy import binary_entropy_gap, dot_entropy_gap, entropy_gap
from tavq.ops.grids import flatten_grid, unflatten_grid
from tavq.ops.gumbel import argmax_logits, gumbel_softmax
from tavq.quantizers.binary import BinaryQuantizer
from tavq.quantizers.dot import DotQuantizer
from tavq.quantizers.gumbel import GumbelQuantizer
from tavq.quantizers.nearest import NearestQuantizer
from tavq.quantizers.product import ProductQuantizer
from tavq.quantizers.residual import ResidualQuantizer
from tavq.quantizers.scalar import ScalarQuantizer
from tavq.quantizers.spherical import SphericalQuantizer
from tavq.tokenizer import Tokenizer, TokenizerConfig


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def learned(rows: list[list[float]], parts: int = 1, **settings: Any) -> LearnedCodebook:
    settings = {"entries": len(rows) // parts, "width": len(rows[0]), "parts": parts, **settings}
    made = LearnedCodebook(LearnedCodebook.Config(**settings))
    with torch.no_grad():
        made.table.copy_(torch.tensor(rows))
    return made


def positions(*rows: list[float]) -> Tensor:
    """A grid of one row of positions."""
    return unflatten_grid(torch.tensor(rows), (1, 1, len(rows)))


# --- Gumbel -----------------------------------------------------------------------------------------------------


def by_the_book(rows: Tensor, weight: Tensor, bias: Tensor, entries: Tensor, tau: float, uniform: Tensor) -> Any:
    """Soft codes, drawn indices and divergence, with the noise of `uniform`."""
    logits = rows @ weight.T + bias
    soft = torch.softmax((logits - torch.log(-torch.log(uniform))) / tau, 1)
    shares = torch.softmax(logits, 1)
    divergence = (shares * (shares * len(weight)).log()).sum(1).mean()
    return soft, soft.argmax(1), divergence


@pytest.mark.parametrize("hard", [True, False])
@pytest.mark.parametrize("tau", [1.0, 0.3])
def test_gumbel_softmax_and_its_gradients(hard: bool, tau: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.ops.gumbel.CPU_BUFFER", 7 * 5)  # five rows a piece, the last piece shorter
    values = [randn(13, 4, seed=1), randn(7, 4, seed=2), randn(7, seed=3), randn(7, 6, seed=4)]
    mine, theirs = ([value.clone().requires_grad_() for value in values] for _ in range(2))
    torch.manual_seed(3)
    codes, indices, divergence = gumbel_softmax(*mine, torch.tensor(tau), hard)
    torch.manual_seed(3)
    uniform = torch.cat([torch.rand(count, 7) for count in (5, 5, 3)])
    soft, chosen, expected = by_the_book(*theirs, tau, uniform)
    assert torch.equal(indices, chosen)
    one_hot = F.one_hot(chosen, 7) + soft - soft.detach() if hard else soft
    torch.testing.assert_close(codes, one_hot @ theirs[3])
    torch.testing.assert_close(divergence, expected)
    weights = randn(13, 6, seed=5)
    ((codes * weights).sum() + 3 * divergence).backward()
    ((one_hot @ theirs[3] * weights).sum() + 3 * expected).backward()
    for name, own, other in zip(("rows", "weight", "bias", "entries"), mine, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, msg=name)


def test_gumbel_noise_samples_the_softmax() -> None:
    logits, n = torch.tensor([0.0, 1.0, -1.0, 2.0]), 40_000
    torch.manual_seed(0)
    _, indices, _ = gumbel_softmax(torch.zeros(n, 1), torch.zeros(4, 1), logits, torch.zeros(4, 1), torch.tensor(0.5))
    shares = torch.bincount(indices, minlength=4) / n
    torch.testing.assert_close(shares, torch.softmax(logits, 0), rtol=0, atol=0.01)


def test_without_noise_the_most_likely_is_chosen() -> None:
    rows, weight, bias = randn(50, 3), randn(9, 3, seed=1), randn(9, seed=2)
    _, indices, _ = gumbel_softmax(rows, weight, bias, randn(9, 2), torch.tensor(0.1), noise=False)
    assert torch.equal(indices, (rows @ weight.T + bias).argmax(1))
    assert torch.equal(indices, argmax_logits(rows, weight, bias))
    assert argmax_logits(rows[:0], weight, bias).shape == (0,)


def test_only_training_under_autocast_rounds_the_products() -> None:
    rows, weight, bias, entries = randn(64, 8), randn(16, 8, seed=1), torch.zeros(16), randn(16, 8, seed=2)
    plain = gumbel_softmax(rows, weight, bias, entries, torch.tensor(1.0), noise=False)[2]
    torch.manual_seed(0)
    with torch.autocast("cpu", torch.bfloat16):
        still = gumbel_softmax(rows, weight, bias, entries, torch.tensor(1.0), noise=False)[2]
        noisy = gumbel_softmax(rows, weight, bias, entries, torch.tensor(1.0))[2]
    assert torch.equal(plain, still)
    assert plain != noisy
    torch.testing.assert_close(plain, noisy, rtol=1e-2, atol=1e-2)


def test_the_temperature_follows_a_cosine_and_is_saved() -> None:
    config = GumbelQuantizer.Config(temperature=1.0, final_temperature=0.2, anneal_steps=4)
    quantizer, table = GumbelQuantizer(config, LearnedCodebook.Config(entries=6, width=3)), learned([[0.0] * 3] * 6)
    found = []
    for _ in range(6):
        quantizer(randn(1, 3, 2, 2), table)  # the upper grids of a step count for nothing
        quantizer.step_schedule()
        found.append(float(quantizer.temperature()))
    expected = [0.2 + 0.4 * (1 + math.cos(math.pi * step / 4)) for step in (0, 1, 2, 3, 4, 4)]
    assert found == pytest.approx(expected)
    other = GumbelQuantizer(config, LearnedCodebook.Config(entries=6, width=3))
    assert float(other.temperature()) == pytest.approx(1.0)
    other.load_state_dict(quantizer.state_dict())
    assert float(other.temperature()) == pytest.approx(0.2)


def test_gumbel_sharpness_scales_the_logits() -> None:
    codebook, grid = learned([[0.0, 1], [1, 0], [2, 2]]), randn(2, 2, 3, 4)
    made = []
    for sharpness, scale in ((4.0, 1.0), (1.0, 4.0)):
        config = LearnedCodebook.Config(entries=3, width=2)
        quantizer = GumbelQuantizer(GumbelQuantizer.Config(sharpness=sharpness), config)
        with torch.no_grad():
            quantizer.logits.weight.copy_(scale * randn(3, 2, seed=1))
            quantizer.logits.bias.copy_(scale * randn(3, seed=2))
        torch.manual_seed(5)
        made.append(quantizer(grid, codebook))
        assert torch.equal(made[-1].indices, made[0].indices)
        torch.testing.assert_close(
            made[-1].losses["quantizer/divergence"].value, made[0].losses["quantizer/divergence"].value
        )
    plain = GumbelQuantizer(GumbelQuantizer.Config(), LearnedCodebook.Config(entries=3, width=2))
    plain.load_state_dict(
        {**quantizer.state_dict(), "logits.weight": randn(3, 2, seed=1), "logits.bias": randn(3, seed=2)}
    )
    torch.manual_seed(5)
    assert not torch.equal(plain(grid, codebook).indices, made[0].indices)  # the noise counts for less


def test_gumbel_trains_encoder_and_codebook() -> None:
    quantizer = GumbelQuantizer(GumbelQuantizer.Config(), LearnedCodebook.Config(entries=8, width=3))
    table, features = learned(randn(8, 3).tolist()), randn(1, 3, 2, 2).requires_grad_()
    quantizer(features, table).quantized.square().sum().backward()
    assert features.grad is not None
    assert table.table.grad is not None
    assert all(value.ne(0).any() for value in (features.grad, table.table.grad, quantizer.logits.weight.grad))


def test_mixtures_of_entries_are_declared() -> None:
    config = GumbelQuantizer.Config(hard=False)
    quantizer = GumbelQuantizer(config, LearnedCodebook.Config(entries=8, width=3))
    table, features = learned(randn(8, 3).tolist()), randn(1, 3, 2, 2)
    assert not quantizer.exact
    assert not torch.equal(quantizer(features, table).quantized, quantizer(features, table).entries)
    made = quantizer.eval()(features, table)
    assert torch.equal(made.quantized, made.entries)


# --- the rotation trick -----------------------------------------------------------------------------------------


def test_the_rotation_by_its_matrix() -> None:
    """Fifty et al.: codes are q = λ R f; the gradient is that of a constant λ R, here written out d × d."""
    entries, features = randn(8, 5, seed=1), randn(1, 5, 2, 3).requires_grad_()
    config = NearestQuantizer.Config(gradient="rotation")
    made = NearestQuantizer(config, LearnedCodebook.Config())(features, learned(entries.tolist()))
    weights = randn(1, 5, 2, 3, seed=2)
    (made.quantized * weights).sum().backward()
    assert features.grad is not None
    for row, index, upstream, found in zip(
        flatten_grid(features.detach()),
        made.indices.flatten(),
        flatten_grid(weights),
        flatten_grid(features.grad),
        strict=True,
    ):
        e, q = row / row.norm(), entries[index] / entries[index].norm()
        r = (e + q) / (e + q).norm()
        matrix = entries[index].norm() / row.norm() * (torch.eye(5) - 2 * torch.outer(r, r) + 2 * torch.outer(q, e))
        torch.testing.assert_close(matrix @ row, entries[index])
        torch.testing.assert_close(found, matrix.T @ upstream)


def test_the_rotation_of_vectors_without_direction_is_finite() -> None:
    config = NearestQuantizer.Config(gradient="rotation")
    quantizer = NearestQuantizer(config, LearnedCodebook.Config())
    assert not quantizer.straight_through
    features = positions([0.0, 0.0], [1e-30, 0.0], [-1.0, 0.0]).requires_grad_()
    quantizer(features, learned([[1.0, 0.0]])).quantized.sum().backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()
    assert features.grad[..., 0].flatten().tolist() == [1.0, 1.0]


# --- the entropy term -------------------------------------------------------------------------------------------


def entropy_by_hand(rows: Tensor, entries: Tensor, temperature: float) -> Tensor:
    shares = torch.softmax(-torch.cdist(rows, entries).square() / temperature, 1)
    each = torch.special.entr(shares).sum(1).mean()
    return each - torch.special.entr(shares.mean(0)).sum()


@pytest.mark.parametrize("temperature", [0.5, 20.0])
def test_the_entropy_gap_and_its_gradients(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.ops.entropy.CPU_BUFFER", 9 * 4)
    values = [randn(14, 3).double(), randn(9, 3, seed=1).double()]
    mine, theirs = ([value.clone().requires_grad_() for value in values] for _ in range(2))
    gap, expected = entropy_gap(*mine, temperature), entropy_by_hand(*theirs, temperature)
    torch.testing.assert_close(gap.double(), expected, rtol=1e-4, atol=1e-5)
    (3 * gap).backward()
    (3 * expected).backward()
    for own, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_the_entropy_gap_at_its_ends() -> None:
    corners = torch.eye(4) * 100
    assert entropy_gap(corners, corners, 1.0) == pytest.approx(-math.log(4))  # sure, and all entries in use
    assert entropy_gap(corners[:1].repeat(4, 1), corners, 1.0) == pytest.approx(0)  # sure, and one entry in use
    assert entropy_gap(torch.zeros(4, 4), corners, 1e4) == pytest.approx(0)  # undecided
    far = (corners * 1e3).requires_grad_()
    entropy_gap(far, corners, 1e-3).backward()
    assert far.grad is not None
    assert far.grad.isfinite().all()


def test_the_entropy_of_signs_is_that_of_all_corners() -> None:
    values, point, temperature = 0.3 * randn(1, 3), 0.7, 0.8
    corners = point * torch.tensor(list(itertools.product([-1.0, 1.0], repeat=3)))
    shares = torch.softmax(-torch.cdist(values, corners).square() / temperature, 1)
    logits = 4 * point * values / temperature
    bits = torch.distributions.Bernoulli(logits=logits)
    assert torch.special.entr(shares).sum() == pytest.approx(float(bits.entropy().sum()), rel=1e-4)
    many = 0.3 * randn(20, 3, seed=1)
    sure = torch.distributions.Bernoulli(logits=4 * point * many / temperature)
    mean = torch.distributions.Bernoulli(probs=sure.probs.mean(0))
    expected = sure.entropy().sum(1).mean() - mean.entropy().sum()
    torch.testing.assert_close(binary_entropy_gap(many, point, temperature), expected)


# --- dot products -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("temperature", [0.5, 20.0])
def test_the_entropy_gap_of_products_and_its_gradients(temperature: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.ops.entropy.CPU_BUFFER", 9 * 4)
    values = [randn(14, 3).double(), randn(9, 3, seed=1).double()]
    mine, theirs = ([value.clone().requires_grad_() for value in values] for _ in range(2))
    shares = torch.softmax(theirs[0] @ theirs[1].T / temperature, 1)
    expected = torch.special.entr(shares).sum(1).mean() - torch.special.entr(shares.mean(0)).sum()
    gap = dot_entropy_gap(*mine, temperature)
    torch.testing.assert_close(gap.double(), expected, rtol=1e-4, atol=1e-5)
    (3 * gap).backward()
    (3 * expected).backward()
    for own, other in zip(mine, theirs, strict=True):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-5)


def test_index_backpropagation() -> None:
    """One-hot forwards, the softmax backwards: what the decoder and the three distances give features and entries."""
    features, table, outer = randn(1, 3, 2, 4), randn(7, 3, seed=1), randn(1, 3, 2, 4, seed=2)
    codebook = learned(table.tolist())
    quantizer = DotQuantizer(DotQuantizer.Config(entropy=0.0, commitment=0.5, index=2.0), codebook.config)
    mine, z, e = features.clone().requires_grad_(), features.clone().requires_grad_(), table.clone().requires_grad_()
    made = quantizer(mine, codebook)
    sum_losses({**made.losses, "decoder": Loss((made.quantized * outer).sum(), 1.0)}).backward()

    rows = flatten_grid(z)
    soft = torch.softmax(rows @ e.T, 1)
    hard = F.one_hot((rows @ e.T).argmax(1), 7).float()
    straight = (hard - soft.detach() + soft) @ e
    chosen = hard @ e
    loss = 2.0 * F.mse_loss(straight, rows) + F.mse_loss(chosen.detach(), rows)
    loss = loss + 0.5 * F.mse_loss(chosen, rows.detach()) + (straight * flatten_grid(outer)).sum()
    loss.backward()
    assert torch.equal(made.indices.flatten(), hard.argmax(1))
    torch.testing.assert_close(flatten_grid(made.quantized), chosen)
    torch.testing.assert_close(mine.grad, z.grad)
    torch.testing.assert_close(codebook.table.grad, e.grad)
    assert codebook.table.grad.abs().sum(1).gt(0).all()  # also of entries that nothing chose
    assert len(hard.argmax(1).unique()) < 7


def test_large_products_are_no_ties() -> None:
    """In single precision the softmax of these is 1 for both entries' neighbours; the products themselves differ."""
    codebook = learned([[1.0, 0.0], [1.0, 1e-3], [-1.0, 0.0]])
    features = positions([1e6, 1.0], [1e6, -1.0], [-1e6, 0.0])
    quantizer = DotQuantizer(DotQuantizer.Config(), codebook.config)
    assert quantizer.indices(features, codebook).flatten().tolist() == [0, 0, 2]
    assert quantizer.indices(features / 1e6, codebook).flatten().tolist() == [0, 0, 2]


@pytest.mark.parametrize("distance", ["l2", "cosine"])
def test_the_entropy_loss_of_nearest(distance: Any) -> None:
    table, features = learned(randn(8, 4, seed=1).tolist()), randn(2, 4, 2, 3).requires_grad_()
    table.distance = distance
    config = NearestQuantizer.Config(entropy=0.5, entropy_temperature=2.0)
    made = NearestQuantizer(config, LearnedCodebook.Config())(features, table)
    rows, entries = flatten_grid(features), table()
    if distance == "cosine":
        rows, entries = F.normalize(rows, dim=1), F.normalize(entries, dim=1)
    loss = made.losses["quantizer/entropy"]
    assert loss.weight == 0.5
    expected = entropy_by_hand(rows, entries, 2.0)
    torch.testing.assert_close(loss.value, expected, rtol=1e-4, atol=1e-5)
    targets = [features, table.table]
    own = torch.autograd.grad(loss.value, targets, retain_graph=True)
    for found, wanted in zip(own, torch.autograd.grad(expected, targets), strict=True):
        torch.testing.assert_close(found, wanted, rtol=1e-3, atol=1e-5)


# --- the sphere -------------------------------------------------------------------------------------------------


def test_the_sphere() -> None:
    table, features = learned([[3.0, 0.0], [0.0, 0.1]]), positions([9.0, 12.0], [4.0, 3.0]).requires_grad_()
    made = SphericalQuantizer(SphericalQuantizer.Config(of={"commitment": 0.5}), table.config)(features, table)
    assert made.indices.tolist() == [[[1, 0]]]
    assert flatten_grid(made.quantized).tolist() == [[0.0, 1.0], [1.0, 0.0]]
    # (0.6, 0.8) to (0, 1) and (0.8, 0.6) to (1, 0): squared 0.36 + 0.04 each, mean over positions and width
    for key, weight in (("quantizer/codebook", 1.0), ("quantizer/commitment", 0.5)):
        assert made.losses[key].value.item() == pytest.approx(0.2)
        assert made.losses[key].weight == weight
    upstream = randn(*made.quantized.shape)
    expected = torch.autograd.grad((F.normalize(features, dim=1) * upstream).sum(), features)[0]
    torch.testing.assert_close(torch.autograd.grad((made.quantized * upstream).sum(), features)[0], expected)


# --- several parts ----------------------------------------------------------------------------------------------

ROWS = [[0.0, 0.0], [1.0, 1.0], [0.0, 0.2], [0.0, -0.2]]


def test_products() -> None:
    table = learned(ROWS, parts=2)
    features = positions([0.9, 0.8, 0.1, 0.3]).requires_grad_()
    made = ProductQuantizer(ProductQuantizer.Config(of={"commitment": 0.25}), table.config)(features, table)
    assert made.indices.tolist() == [[[[1, 0]]]]
    assert made.quantized.flatten().tolist() == pytest.approx([1.0, 1.0, 0.0, 0.2])
    groups = [(0.01 + 0.04) / 2, (0.01 + 0.01) / 2]
    for key, weight in (("quantizer/codebook", 1.0), ("quantizer/commitment", 0.25)):
        assert made.losses[key].value.item() == pytest.approx(sum(groups) / 2)
        assert made.losses[key].weight == weight


def test_products_may_add_the_losses_of_the_groups() -> None:
    """VQCT's public code: both halves count in full, and the swapped weight is that of each half."""
    table = learned(ROWS, parts=2)
    features = positions([0.9, 0.8, 0.1, 0.3]).requires_grad_()
    config = ProductQuantizer.Config(of={"commitment": 0.25, "legacy": True}, reduce="sum")
    made = ProductQuantizer(config, table.config)(features, table)
    groups = [(0.01 + 0.04) / 2, (0.01 + 0.01) / 2]
    for key, weight in (("quantizer/codebook", 0.25), ("quantizer/commitment", 1.0)):
        assert made.losses[key].value.item() == pytest.approx(sum(groups))
        assert made.losses[key].weight == weight
    made.losses["quantizer/commitment"].value.backward()
    assert features.grad is not None  # 2 (feature - entry) / 2 within each group
    torch.testing.assert_close(features.grad.flatten(), torch.tensor([-0.1, -0.2, 0.1, 0.1]))


def test_residuals() -> None:
    table, features = learned(ROWS, parts=2), positions([1.1, 1.15], [0.1, -0.3]).requires_grad_()
    made = ResidualQuantizer(ResidualQuantizer.Config(), table.config)(features, table)
    assert made.indices.tolist() == [[[[1, 0], [0, 1]]]]
    assert flatten_grid(made.quantized).flatten().tolist() == pytest.approx([1.0, 1.2, 0.0, -0.2])
    first = (0.01 + 0.0225 + 0.01 + 0.09) / 4
    second = (0.01 + 0.0025 + 0.01 + 0.01) / 4
    for key in ("quantizer/codebook", "quantizer/commitment"):
        assert made.losses[key].value.item() == pytest.approx((first + second) / 2)
    made.losses["quantizer/commitment"].value.backward()
    assert table.table.grad is None  # what is left over holds earlier entries as constants
    # each part adds 2 (left over after it) / 4, halved by the mean over parts
    left = torch.tensor([[0.1, 0.15], [0.1, -0.3], [0.1, -0.05], [0.1, -0.1]]).view(2, 2, 2).sum(0)
    assert features.grad is not None
    torch.testing.assert_close(flatten_grid(features.grad), left / 4)


def test_a_looked_up_entry_has_other_parts_at_their_means() -> None:
    table = learned(ROWS, parts=2)
    summed = ResidualQuantizer(ResidualQuantizer.Config(), table.config).lookup_entries(table)
    torch.testing.assert_close(summed, torch.tensor([[0.0, 0.0], [1.0, 1.0], [0.5, 0.7], [0.5, 0.3]]))
    joined = ProductQuantizer(ProductQuantizer.Config(), table.config).lookup_entries(table)
    expected = [[0.0, 0.0, 0.0, 0.0], [1.0, 1.0, 0.0, 0.0], [0.5, 0.5, 0.0, 0.2], [0.5, 0.5, 0.0, -0.2]]
    torch.testing.assert_close(joined, torch.tensor(expected))


class Recorder(LearnedCodebook):
    """Keeps what it is shown."""

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        self.shown: list[Any] = []

    def init_from_features(self, rows: Tensor, part: int = 0) -> None:
        self.shown.append(("start", part, rows))

    def update(self, rows: Tensor, indices: Tensor, part: int = 0) -> Any:
        self.shown.append(("learn", part, rows, indices))
        return {}


@pytest.mark.parametrize("quantizer", [ProductQuantizer, ResidualQuantizer, SphericalQuantizer, GumbelQuantizer])
def test_a_codebook_gets_the_features_that_each_part_quantizes(quantizer: type[Quantizer]) -> None:
    parts = 3 if quantizer.multi_part else 1
    config = LearnedCodebook.Config(entries=4, width=2, parts=parts)
    made, table = quantizer(quantizer.Config(), config), Recorder(config)
    features = randn(1, quantizer.grid_width(config), 2, 2)
    made(features, table)
    assert table.shown == []
    result = made(features, table, update=True)
    assert [item[:2] for item in table.shown] == [(call, part) for part in range(parts) for call in ("start", "learn")]
    indices = result.indices.reshape(-1, parts)
    rows = flatten_grid(features)
    for part in range(parts):
        started, (_, _, learnt, chosen) = table.shown[2 * part : 2 * part + 2]
        expected = rows
        if quantizer is ProductQuantizer:
            expected = rows[:, 2 * part : 2 * part + 2]
        elif quantizer is ResidualQuantizer:
            expected = rows - sum(table()[4 * i + indices[:, i]] for i in range(part))
        elif quantizer is SphericalQuantizer:
            expected = F.normalize(rows, dim=1)
        torch.testing.assert_close(learnt, expected.detach())
        assert torch.equal(started[2], learnt)
        assert torch.equal(chosen, indices[:, part])
        assert not learnt.requires_grad


@pytest.mark.parametrize("quantizer", [ProductQuantizer, ResidualQuantizer, SphericalQuantizer, NearestQuantizer])
def test_entries_sampled_in_the_first_pass_are_used_in_it(quantizer: type[Quantizer]) -> None:
    parts = 2 if quantizer.multi_part else 1
    config = LearnedCodebook.Config(entries=8, width=2, parts=parts, init="features")
    made, table = quantizer(quantizer.Config(), config), LearnedCodebook(config)
    features = randn(1, quantizer.grid_width(config), 2, 4).requires_grad_()
    torch.manual_seed(0)
    result = made(features, table, update=True)
    loss = result.losses["quantizer/commitment"]
    assert len(result.indices.reshape(-1, parts)[:, 0].unique()) == 8  # each feature is an entry
    assert loss.value.item() == pytest.approx(0, abs=1e-12)
    (loss.value + result.losses["quantizer/codebook"].value + result.quantized.sum()).backward()


class Moving(LearnedCodebook):
    """Moves its table in place as soon as it has learnt, as codebooks of running means do."""

    def update(self, rows: Tensor, indices: Tensor, part: int = 0) -> Any:
        with torch.no_grad():
            self.table.mul_(0.9)
        return {}


@pytest.mark.parametrize(
    ("quantizer", "settings"),
    [
        (NearestQuantizer, {"entropy": 0.1, "gradient": "rotation"}),
        (SphericalQuantizer, {"of": {"entropy": 0.1}}),
        (ProductQuantizer, {"of": {"entropy": 0.1}}),
        (ResidualQuantizer, {"of": {"entropy": 0.1, "gradient": "rotation"}}),
        (GumbelQuantizer, {}),
        (GumbelQuantizer, {"hard": False}),
    ],
)
def test_a_table_may_be_updated_before_the_backward_pass(quantizer: type[Quantizer], settings: Any) -> None:
    config = LearnedCodebook.Config(entries=8, width=2, parts=2 if quantizer.multi_part else 1)
    made, table = quantizer(quantizer.Config(**settings), config), Moving(config)
    features = randn(1, quantizer.grid_width(config), 2, 4).requires_grad_()
    result = made(features, table, update=True)
    sum([loss.value for loss in result.losses.values()], result.quantized.sum() + result.entries.sum()).backward()
    assert features.grad is not None
    assert features.grad.isfinite().all()


# --- lattices ---------------------------------------------------------------------------------------------------


def test_the_points_of_a_lattice() -> None:
    """The first axis counts fastest; FSQ's levels, and two levels on both sides of 0."""
    lattice = LatticeCodebook(LatticeCodebook.Config(levels=(3, 4)))
    first = [-1.0, 0.0, 1.0]
    assert lattice().tolist() == [[x, y] for y in (-1.0, -0.5, 0.0, 0.5) for x in first]
    assert LatticeCodebook(LatticeCodebook.Config(levels=(2, 5)))().tolist()[:4] == [
        [-1.0, -1.0], [1.0, -1.0], [-1.0, -0.5], [1.0, -0.5],
    ]  # fmt: skip
    sphere = LatticeCodebook(LatticeCodebook.Config(levels=(2, 2, 2, 2), sphere=True))()
    torch.testing.assert_close(sphere.norm(dim=1), torch.ones(16))
    every = torch.arange(12)
    assert torch.equal(lattice.to_indices(lattice.to_digits(every)), every)


def test_a_lattice_projected_to_a_width() -> None:
    lattice = LatticeCodebook(LatticeCodebook.Config(levels=(3, 4), width=6))
    flat = LatticeCodebook(LatticeCodebook.Config(levels=(3, 4)))
    assert lattice.up is not None
    torch.testing.assert_close(lattice(), flat() @ lattice.up.weight.T + lattice.up.bias)


def test_bounded_and_rounded() -> None:
    """FSQ: tanh(z + shift) (L - 1)(1 + ε)/2 - offset, rounded, over ⌊L/2⌋."""
    lattice = LatticeCodebook(LatticeCodebook.Config(levels=(5, 4)))
    features = positions([0.0, 0.0], [9.0, 9.0], [-9.0, -9.0], [0.4, -0.3]).requires_grad_()
    made = ScalarQuantizer(ScalarQuantizer.Config(), lattice.config)(features, lattice)
    # 2.002 tanh(0.4) = 0.76; 1.5015 tanh(-0.3 + artanh(0.5/1.5015)) - 0.5 = -0.43
    assert flatten_grid(made.quantized).tolist() == [[0.0, 0.0], [1.0, 0.5], [-1.0, -1.0], [0.5, 0.0]]
    assert made.losses == {}
    made.quantized.sum().backward()
    shift = math.atanh(0.5 / 1.5015)
    slopes = [2.002 / 2 / math.cosh(0.4) ** 2, 1.5015 / 2 / math.cosh(-0.3 + shift) ** 2]
    assert features.grad is not None
    assert flatten_grid(features.grad)[3].tolist() == pytest.approx(slopes)


def test_signs_and_their_losses() -> None:
    lattice = LatticeCodebook(LatticeCodebook.Config(levels=(2, 2)))
    features = positions([0.3, -0.8], [-2.0, 0.1]).requires_grad_()
    quantizer = BinaryQuantizer(BinaryQuantizer.Config(entropy_temperature=1.0), lattice.config)
    made = quantizer(features, lattice)
    assert quantizer.straight_through
    assert flatten_grid(made.quantized).tolist() == [[1.0, -1.0], [-1.0, 1.0]]
    assert made.indices.tolist() == [[[1, 2]]]
    commitment = (0.49 + 0.04 + 1.0 + 0.81) / 4
    assert made.losses["quantizer/commitment"].value.item() == pytest.approx(commitment)
    torch.testing.assert_close(
        made.losses["quantizer/entropy"].value, binary_entropy_gap(flatten_grid(features), 1.0, 1.0)
    )


def test_signs_on_the_sphere() -> None:
    lattice = LatticeCodebook(LatticeCodebook.Config(levels=(2, 2), sphere=True))
    quantizer = BinaryQuantizer(BinaryQuantizer.Config(kind="bsq"), lattice.config)
    features = positions([3.0, -4.0]).requires_grad_()
    made = quantizer(features, lattice)
    half = math.sqrt(0.5)
    assert made.quantized.flatten().tolist() == pytest.approx([half, -half])
    commitment = ((0.6 - half) ** 2 + (0.8 - half) ** 2) / 2
    assert made.losses["quantizer/commitment"].value.item() == pytest.approx(commitment)
    assert not quantizer.straight_through


@pytest.mark.parametrize(
    ("quantizer", "levels", "sphere"),
    [("scalar", (4, 5, 3), False), ("scalar", (2, 7), False), ("binary", (2, 2, 2), False), ("bsq", (2, 2, 2), True)],
)
def test_lattices_between_linear_maps(quantizer: str, levels: tuple[int, ...], sphere: bool) -> None:
    """The network is wider than the lattice: both maps learn, codes are still entries to the bit."""
    kind = {"kind": "bsq"} if quantizer == "bsq" else {}
    settings = {
        "net": {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "lattice", "levels": levels, "width": 10, "sphere": sphere},
        "quantizer": {"name": "scalar" if quantizer == "scalar" else "binary", **kind},
    }
    torch.manual_seed(0)
    tokenizer = Tokenizer(build(TokenizerConfig, settings, "test"))
    images = randn(2, 3, 8, 8).tanh()
    output = tokenizer(images)
    made = output.levels[2]
    assert made.quantized.shape == (2, 10, 4, 4)
    assert torch.equal(tokenizer.quantizer.lookup(made.indices, tokenizer.codebook), made.quantized)
    torch.testing.assert_close(F.embedding(made.indices, tokenizer.codebook()), made.quantized.permute(0, 2, 3, 1))
    assert torch.equal(tokenizer.decode(tokenizer.encode(images)), output.images)
    made.quantized.square().sum().backward()
    for part in (tokenizer.quantizer, tokenizer.codebook):
        assert [parameter.grad is not None for parameter in part.parameters()] == [True, True]
    with torch.autocast("cpu", torch.bfloat16):
        half = tokenizer.quantizer(made.quantized.detach(), tokenizer.codebook)
    assert torch.equal(half.quantized, tokenizer.quantizer(made.quantized.detach(), tokenizer.codebook).quantized)


LATTICE = {"name": "lattice", "levels": [4, 4]}


@pytest.mark.parametrize(
    ("codebook", "quantizer", "message"),
    [
        ("learned", "scalar", "The quantizer 'scalar' rounds to the points of a lattice, but the codebook is "
         "'learned'; set model.codebook.name to: lattice."),
        ("learned", "binary", "The quantizer 'binary' rounds to the points of a lattice"),
        (LATTICE, "binary", "The quantizer 'binary' needs two levels an axis, got [4, 4]."),
        (LATTICE, "gumbel", "The quantizer 'gumbel' needs a table of entries, one logit each, and 'lattice' has none"),
        ({"name": "lattice", "levels": [2, 2]}, {"name": "binary", "kind": "bsq"},
         "of kind 'bsq' needs model.codebook.sphere true."),
        ({"name": "lattice", "levels": [2, 2], "sphere": True}, "binary", "needs model.codebook.sphere false."),
        ({"name": "lattice", "levels": [2, 2], "sphere": True}, "scalar", "needs model.codebook.sphere false"),
        ({"name": "lattice", "levels": [4, 2], "sphere": True}, "scalar", "sphere needs two levels on each axis"),
        ({"name": "lattice", "levels": [512, 513]}, "scalar", "levels give 262,656 entries; the most is 262,144"),
        ({"name": "learned", "parts": 2}, "spherical", "gives one index a position and the codebook has 2 parts; "
         "quantizers for several parts: product, residual."),
    ],
)  # fmt: skip
def test_incompatible_codebooks_are_refused(codebook: Any, quantizer: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught, torch.device("meta"):
        Tokenizer(build(TokenizerConfig, {"codebook": codebook, "quantizer": quantizer}, "test"))
    assert message in str(caught.value)
