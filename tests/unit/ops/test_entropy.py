"""The entropy terms over the features of several processes."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.ops import collective, entropy


def drawn(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def corners(features: Tensor) -> Tensor:
    return entropy.binary_entropy_gap(features, 1.0, 2.0)


def table(features: Tensor) -> Tensor:
    return entropy.entropy_gap(features, drawn(6, 3, seed=1), 2.0)


@pytest.mark.parametrize("gap", [corners, table])
def test_two_processes_with_half_a_batch_equal_one(
    gap: Callable[[Tensor], Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Values and gradients, once the gradients are averaged over processes."""
    whole = drawn(20, 3, seed=0).requires_grad_()
    expected = gap(whole)
    expected.backward()
    halves = [half.detach().requires_grad_() for half in whole.split(10)]
    sent: list[Tensor] = []

    def record(values: Tensor) -> Tensor:
        sent.append(values.clone())
        return values

    monkeypatch.setattr(collective, "all_reduce_sum", record)
    for half in halves:
        gap(half.detach())
    monkeypatch.setattr(collective, "world_size", lambda: 2)
    monkeypatch.setattr(collective, "rank", lambda: 0)  # each has half of the batch, so that it does not matter which
    made = []
    for half, other in zip(halves, reversed(sent), strict=True):
        monkeypatch.setattr(collective, "all_reduce_sum", lambda values, other=other: values + other)
        made.append(gap(half))
        made[-1].backward()
    torch.testing.assert_close(torch.stack(made).mean(), expected)
    assert whole.grad is not None
    gradients: list[Any] = [half.grad for half in halves]
    torch.testing.assert_close(torch.cat(gradients) / 2, whole.grad)


def test_no_matrix_of_features_and_entries_is_kept() -> None:
    features, entries = drawn(64, 3, seed=0).requires_grad_(), drawn(50, 3, seed=1).requires_grad_()
    kept: list[int] = []

    def note(value: Tensor) -> Tensor:
        kept.append(value.numel())
        return value

    with torch.autograd.graph.saved_tensors_hooks(note, lambda value: value):
        entropy.entropy_gap(features, entries, 1.0)
    assert kept
    assert max(kept) < 64 * 50 / 2
