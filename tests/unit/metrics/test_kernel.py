"""The kernel distance against torchmetrics, by hand, and its standard error against many repetitions."""

import pytest
import torch
from torch import Tensor
from torchmetrics.image.kid import maximum_mean_discrepancy, poly_mmd

from tavq.metrics import kernel
from tavq.metrics.kernel import kernel_distance, unbiased_mmd


def rows(count: int, width: int, seed: int, shift: float = 0) -> Tensor:
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed)) + shift


def test_one_subset_equals_torchmetrics() -> None:
    a, b = rows(40, 12, 0).double(), rows(40, 12, 1, 0.3).double()
    k_aa, k_ab, k_bb = ((x @ y.T / 12 + 1) ** 3 for x, y in ((a, a), (a, b), (b, b)))
    expected = float(maximum_mean_discrepancy(k_aa, k_ab, k_bb))
    assert expected > 0.01
    assert unbiased_mmd(a, b) == pytest.approx(expected, rel=1e-9)
    assert unbiased_mmd(a, b) == pytest.approx(float(poly_mmd(a, b)), rel=1e-9)


def test_by_hand() -> None:
    a, b = torch.tensor([[1.0, 1.0], [1.0, -1.0]]), torch.tensor([[2.0, 0.0], [0.0, 0.0]])
    # k(a1, a2) = (0 / 2 + 1)^3 = 1; k(b1, b2) = 1; k(a, b1) = (2 / 2 + 1)^3 = 8, k(a, b2) = 1
    assert unbiased_mmd(a, b) == pytest.approx(1 + 1 - 2 * (8 + 8 + 1 + 1) / 4)


def test_subsets_average_to_the_full_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    a, b = rows(60, 8, 2), rows(50, 8, 3, 0.4)
    value, error = kernel_distance(a, b)
    whole = unbiased_mmd(a, b)
    assert abs(value - whole) < error / 2
    assert kernel_distance(a, b) == (value, error)
    monkeypatch.setattr(kernel, "SUBSET", 10)
    small, _ = kernel_distance(a, b)
    assert abs(small - whole) < error  # unbiased: its mean does not follow the size


def test_the_standard_error_equals_that_of_repetitions(monkeypatch: pytest.MonkeyPatch) -> None:
    found = [kernel_distance(rows(120, 6, 2 * seed, 0), rows(120, 6, 2 * seed + 1, 0.5)) for seed in range(60)]
    values, errors = torch.tensor(found).unbind(1)
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.25)
    monkeypatch.setattr(kernel, "SUBSET", 30)
    found = [kernel_distance(rows(120, 6, 2 * seed, 0), rows(120, 6, 2 * seed + 1, 0.5)) for seed in range(60)]
    assert float(torch.tensor(found)[:, 1].mean()) == pytest.approx(float(values.std()), rel=0.25)


def test_equal_distributions_are_at_zero() -> None:
    value, error = kernel_distance(rows(400, 6, 0), rows(400, 6, 1))
    assert abs(value) < 3 * error
    assert kernel_distance(rows(400, 6, 0), rows(300, 6, 1, 0.3))[0] > 5 * error
