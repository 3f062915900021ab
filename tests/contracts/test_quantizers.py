"""What every registered quantizer does."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.config import build
from tavq.interfaces import Codebook, CodebookView, Loss, Quantized, Quantizer, quantizers, sum_losses
from tavq.tokenizer import TokenizerConfig

GRIDS = [(2, 3, 5), (1, 1, 1), (3, 1, 7), (1, 4, 4)]

pytestmark = pytest.mark.parametrize("name", quantizers)


@pytest.fixture
def parts(make: Any, spread: Any, name: str) -> tuple[Quantizer, Codebook, int]:
    """The quantizer, a codebook for it and the width of the grids that they take."""
    tokenizer = make(name)
    spread(tokenizer.codebook)
    return tokenizer.quantizer, tokenizer.codebook, tokenizer.quantizer.grid_width(tokenizer.config.codebook)


def indices_shape(shape: tuple[int, ...], codebook: Codebook) -> tuple[int, ...]:
    return shape if len(codebook.sizes) == 1 else (*shape, len(codebook.sizes))


@pytest.mark.parametrize("shape", GRIDS)
def test_indices_determine_the_quantized_grid(parts: Any, grid: Any, shape: tuple[int, int, int]) -> None:
    quantizer, codebook, width = parts
    made: Quantized = quantizer.train(quantizer.exact)(grid(*shape, width), codebook)
    assert made.indices.shape == indices_shape(shape, codebook)
    assert made.quantized.shape == made.entries.shape == (shape[0], width, *shape[1:])
    chosen = made.indices.reshape(-1, len(codebook.sizes))
    assert all(0 <= int(p.min()) <= int(p.max()) < k for p, k in zip(chosen.T, codebook.sizes, strict=True))
    assert torch.equal(quantizer.lookup(made.indices, codebook), made.quantized)
    assert torch.equal(made.entries, made.quantized)


@pytest.mark.parametrize("shape", GRIDS)
def test_quantizing_twice_changes_nothing(parts: Any, grid: Any, shape: tuple[int, int, int]) -> None:
    quantizer, codebook, width = parts
    if not quantizer.idempotent:
        pytest.skip("declared: codes are no fixed points")
    once = quantizer.eval()(grid(*shape, width), codebook)
    twice = quantizer(once.quantized.detach(), codebook)
    assert torch.equal(once.indices, twice.indices)
    assert torch.equal(once.quantized, twice.quantized)


def test_a_looked_up_entry_is_a_quantized_vector(parts: Any) -> None:
    """With several parts the mean over one part's entries is the mean code, whichever part it is."""
    quantizer, codebook, width = parts
    alone = quantizer.lookup_entries(codebook)
    assert alone.shape == (codebook.size, width)
    if len(codebook.sizes) == 1:
        every = torch.arange(codebook.size).view(1, 1, -1)
        torch.testing.assert_close(quantizer.lookup(every, codebook)[0, :, 0].T, alone)
    means = [part.mean(0) for part in alone.split(codebook.sizes)]
    for mean in means[1:]:
        torch.testing.assert_close(mean, means[0])


def test_inference_and_training_choose_the_same_indices(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    features = grid(2, 3, 5, width)
    for training in (True, False):
        quantizer.train(training)
        if training and quantizer.stochastic:
            continue
        made = quantizer(features, codebook)
        assert torch.equal(quantizer.indices(features, codebook), made.indices)


def test_an_image_is_quantized_independently_of_its_batch(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    features = grid(3, 2, 5, width)
    together = quantizer.eval().indices(features, codebook)
    alone = [quantizer.indices(features[i : i + 1], codebook) for i in range(3)]
    assert torch.equal(together, torch.cat(alone))


def test_half_precision_is_computed_in_float32(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    quantizer.eval()
    features = grid(4, 6, 7, width).bfloat16()
    full = quantizer(features.float(), codebook)
    for made in (quantizer(features, codebook), _under_autocast(quantizer, features, codebook)):
        assert made.quantized.dtype == torch.float32
        assert torch.equal(made.indices, full.indices)
        assert torch.equal(made.quantized, full.quantized)
        for key, loss in made.losses.items():
            assert loss.value.dtype == torch.float32
            assert torch.equal(loss.value, full.losses[key].value)


def _under_autocast(quantizer: Quantizer, features: Tensor, codebook: Codebook) -> Quantized:
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(quantizer.indices(features, codebook), quantizer(features, codebook).indices)
        return quantizer(features, codebook)


def test_the_gradient_goes_straight_through(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    if not quantizer.straight_through:
        pytest.skip("declared: has a gradient of its own")
    features = grid(2, 3, 5, width).requires_grad_()
    gradient = grid(2, 3, 5, width, seed=9)
    quantizer(features, codebook).quantized.backward(gradient)
    assert features.grad is not None
    assert torch.equal(features.grad, gradient)
    assert all(parameter.grad is None for parameter in codebook.parameters())


def test_entries_carry_the_gradient_of_the_codebook_only(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    features = grid(2, 3, 5, width).requires_grad_()
    entries = quantizer(features, codebook).entries
    if not entries.requires_grad:
        assert not any(parameter.requires_grad for parameter in codebook.parameters())
        return
    gradient = grid(2, 3, 5, width, seed=9)
    found = torch.autograd.grad(entries, [features, *codebook.parameters()], gradient, allow_unused=True)
    assert found[0] is None
    assert any(part is not None and part.ne(0).any() for part in found[1:])


def test_every_parameter_gets_a_gradient_or_is_frozen(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    made = quantizer.train()(grid(2, 3, 5, width), codebook)
    # Where codes carry a gradient of their own, the decoder's is part of what trains.
    objective = sum_losses(made.losses | {"decoder": Loss(made.quantized.square().sum(), 1.0)})
    if objective.requires_grad:
        objective.backward()
    for part in (quantizer, codebook):
        for key, parameter in part.named_parameters():
            assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.ne(0).any()), key


def test_its_losses_are_finite_and_named_by_their_room(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    for scale in (0.0, 1.0, 1e4):
        for key, loss in quantizer(scale * grid(2, 3, 5, width), codebook).losses.items():
            assert key.startswith(("quantizer/", "codebook/"))
            assert loss.value.shape == ()
            assert loss.value.isfinite()
            assert math.isfinite(loss.weight)
            assert loss.weight >= 0


def test_permuting_entries_permutes_the_indices_only(parts: Any, grid: Any) -> None:
    quantizer, codebook, width = parts
    if quantizer.order_sensitive:
        pytest.skip("declared: has entries in one order only")
    features = grid(8, 6, 7, width)
    generator = torch.Generator().manual_seed(4)
    orders = [torch.randperm(size, generator=generator) for size in codebook.sizes]
    starts = [sum(codebook.sizes[:i]) for i in range(len(orders))]
    rows = torch.cat([start + order for start, order in zip(starts, orders, strict=True)])
    permuted = quantizer.eval().indices(features, CodebookView(codebook, codebook()[rows]))
    expected = quantizer.indices(features, codebook)
    for order, found, wanted in zip(
        orders,
        permuted.reshape(-1, len(orders)).T,
        expected.reshape(-1, len(orders)).T,
        strict=True,
    ):
        assert torch.equal(order[found], wanted)
        assert len(wanted.unique()) > len(order) // 2  # else the test says nothing


def test_the_state_round_trips(make: Any, name: str, grid: Any) -> None:
    first, second = make(name, seed=1), make(name, seed=2)
    second.load_state_dict(first.state_dict())
    features = grid(2, 3, 5, first.quantizer.grid_width(first.config.codebook))
    made = [t.eval().quantizer(features, t.codebook) for t in (first, second)]
    assert torch.equal(made[0].indices, made[1].indices)
    assert torch.equal(made[0].quantized, made[1].quantized)


def test_its_settings_survive_as_plain_values(make: Any, name: str) -> None:
    config = make(name).config
    plain = config.model_dump(mode="json")
    assert plain["quantizer"]["name"] == name
    assert set(plain["quantizer"]) == set(quantizers[name].Config.model_fields)
    assert build(TokenizerConfig, plain, "test") == config


def test_a_tokenizer_encodes_and_decodes_with_it(make: Any, spread: Any, name: str, grid: Any) -> None:
    tokenizer = make(name).eval()
    spread(tokenizer.codebook)
    images = grid(2, 8, 12, 3).tanh()
    indices = tokenizer.encode(images)
    assert indices.shape == indices_shape((2, 2, 3), tokenizer.codebook)
    assert torch.equal(tokenizer.decode(indices), tokenizer(images).images)
    assert torch.equal(tokenizer(images).levels[2].indices, indices)
