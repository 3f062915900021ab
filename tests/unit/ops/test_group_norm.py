"""Group normalization with SiLU: the bits of the two operations in turn, in less memory and time."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tavq.ops import group_norm
from tavq.ops.group_norm import group_norm_silu

GROUPS, EPS = 4, 1e-6


def in_turn(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return F.silu(F.group_norm(x, GROUPS, weight, bias, EPS))


def with_gradients(function: object, *arguments: Tensor, slope: Tensor) -> list[Tensor]:
    own = [argument.detach().requires_grad_() for argument in arguments]
    result = function(*own)  # type: ignore[operator]
    return [result.detach(), *torch.autograd.grad(result, own, slope)]


def ours(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    return group_norm_silu(x, GROUPS, weight, bias, EPS)


def values(*shape: int, seed: int, dtype: torch.dtype = torch.float32, last: bool = False) -> Tensor:
    drawn = torch.randn(shape, generator=torch.Generator().manual_seed(seed)).to(dtype)
    return drawn.contiguous(memory_format=torch.channels_last) if last else drawn


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("slope_last", [False, True])
@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (1, 8, 1, 1), (3, 8, 1, 7)])
def test_bits_and_gradients_are_those_of_the_operations_in_turn(
    dtype: torch.dtype, last: bool, slope_last: bool, shape: tuple[int, ...]
) -> None:
    x, slope = values(*shape, seed=0, dtype=dtype, last=last), values(*shape, seed=1, dtype=dtype, last=slope_last)
    weight, bias = values(8, seed=2), values(8, seed=3)
    expected = with_gradients(in_turn, x, weight, bias, slope=slope)
    for found, wanted in zip(with_gradients(ours, x, weight, bias, slope=slope), expected, strict=True):
        assert torch.equal(found, wanted)
        assert found.stride() == wanted.stride()
    before = x.clone()
    with torch.no_grad():
        assert torch.equal(ours(x, weight, bias), expected[0])
    assert torch.equal(x, before)


@pytest.mark.parametrize(("chunk", "last"), [(64, True), (8, False), (1 << 17, True)])
def test_large_maps_in_bf16_have_gradients_nearer_to_float64(
    monkeypatch: pytest.MonkeyPatch, chunk: int, last: bool
) -> None:
    monkeypatch.setattr(group_norm, "SLOW", 100)
    monkeypatch.setattr(group_norm, "CHUNK", chunk)
    shape = (2, 8, 9, 11)
    x = values(*shape, seed=0, dtype=torch.bfloat16, last=True)
    slope = values(*shape, seed=1, dtype=torch.bfloat16, last=last)
    weight, bias = values(8, seed=2), values(8, seed=3)
    exact = with_gradients(in_turn, x.double(), weight.double(), bias.double(), slope=slope.double())
    pairs = zip(
        with_gradients(ours, x, weight, bias, slope=slope),
        with_gradients(in_turn, x, weight, bias, slope=slope),
        exact,
        strict=True,
    )
    for found, plain, wanted in pairs:
        assert found.dtype == plain.dtype
        error, allowed = ((result.double() - wanted).norm() / wanted.norm() for result in (found, plain))
        assert error <= 1.1 * allowed


def test_only_what_needs_a_gradient_gets_one() -> None:
    x, weight, bias = values(2, 8, 4, 4, seed=0).requires_grad_(), values(8, seed=2), values(8, seed=3)
    ours(x, weight, bias).sum().backward()
    assert x.grad is not None
    assert weight.grad is None


def test_training_keeps_the_input_alone() -> None:
    kept: list[tuple[int, ...]] = []
    x, weight, bias = values(2, 8, 4, 4, seed=0).requires_grad_(), values(8, seed=2), values(8, seed=3)
    with torch.autograd.graph.saved_tensors_hooks(lambda saved: kept.append(tuple(saved.shape)) or saved, lambda s: s):
        ours(x, weight, bias)
    assert kept.count((2, 8, 4, 4)) == 1


@pytest.mark.parametrize("trained", [False, True])
@pytest.mark.parametrize("last", [False, True])
@pytest.mark.parametrize("shape", [(2, 8, 6, 5), (2, 8, 1, 1), (1, 8, 1, 1), (3, 8, 1, 7)])
def test_strides_are_those_of_the_operations_in_turn(trained: bool, last: bool, shape: tuple[int, ...]) -> None:
    """A map of one position has two forms at once, and the next convolution sums in the order that strides name."""
    form = torch.channels_last if last else torch.contiguous_format
    x = torch.empty(shape, memory_format=form).copy_(values(*shape, seed=0)).requires_grad_(trained)
    arguments = values(8, seed=1), values(8, seed=2)
    assert ours(x, *arguments).stride() == in_turn(x, *arguments).stride()
