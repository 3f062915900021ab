"""The kernel of the two best entries against float64, and the whole search through it."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tavq.ops.kernels import use_triton
from tavq.ops.nearest_entry import find_nearest

pytest.importorskip("triton", reason="Triton is not installed: pip install 'tavq[triton]'")
from tavq.ops.kernels.best_two import best_two

Interpreted = Callable[..., Any]
SHAPES = ((1, 1, 1), (1, 8, 3), (5, 3, 2), (65, 33, 64), (70, 16, 129), (64, 64, 200))
"""Features, width, entries: at, below and above the blocks of 64 x 64 x 32."""


def normal(*shape: int, seed: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def best_two_in_float64(features: Tensor, mean: Tensor, table: Tensor, bias: Tensor) -> tuple[Tensor, ...]:
    centred = features.double() - mean.double()
    scores = bias.double() - centred @ table.double().T
    both = torch.cat([scores, scores.new_full((len(scores), 1), torch.inf)], 1).topk(2, largest=False, sorted=True)
    return both.indices[:, 0], both.values[:, 0], both.values[:, 1], centred.norm(dim=1)


def check(found: tuple[Tensor, ...], expected: tuple[Tensor, ...]) -> None:
    assert torch.equal(found[0], expected[0])
    for part, exact in zip(found[1:], expected[1:], strict=True):
        assert part.dtype == torch.float32
        torch.testing.assert_close(part.double(), exact, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(("n", "d", "k"), SHAPES)
def test_indices_scores_and_norms_equal_float64(interpreted: Interpreted, n: int, d: int, k: int, splits: int) -> None:
    features, mean, table = normal(n, d, seed=n), normal(d, seed=1), normal(k, d, seed=k)
    bias = table.square().sum(1) / 2
    check(
        interpreted(best_two, features, mean, table, bias, False, splits),
        best_two_in_float64(features, mean, table, bias),
    )


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_features_of_any_dtype_and_strides_are_read_as_they_are(interpreted: Interpreted, dtype: torch.dtype) -> None:
    features, mean, table = normal(20, 40, seed=2).T.to(dtype), normal(20, seed=3) + 100, normal(50, 20, seed=4)
    features = features + 100 if dtype == torch.float64 else features
    bias = table.square().sum(1) / 2
    check(interpreted(best_two, features, mean, table, bias, False), best_two_in_float64(features, mean, table, bias))


@pytest.mark.parametrize("splits", [1, 2, 4])
def test_of_equal_scores_the_lower_index_wins_and_the_margin_is_zero(interpreted: Interpreted, splits: int) -> None:
    table = normal(90, 8, seed=5).repeat(3, 1)  # equal entries in one block and in others
    bias = table.square().sum(1) / 2
    index, best, second, _ = interpreted(best_two, normal(40, 8, seed=6), torch.zeros(8), table, bias, False, splits)
    assert (index < 90).all()
    assert torch.equal(best, second)


def test_padding_is_never_chosen(interpreted: Interpreted) -> None:
    table = normal(70, 8, seed=7)
    bias = (table.square().sum(1) / 2).masked_fill(torch.arange(70) % 3 > 0, torch.inf)
    index, _, second, _ = interpreted(best_two, normal(30, 8, seed=8), torch.zeros(8), table, bias, False)
    assert (index % 3 == 0).all()
    assert second.isfinite().all()
    only = bias.masked_fill(torch.arange(70) != 9, torch.inf)
    index, _, second, _ = interpreted(best_two, normal(30, 8, seed=8), torch.zeros(8), table, only, False)
    assert (index == 9).all()
    assert (second == torch.inf).all()


def brute_force(features: Tensor, entries: Tensor) -> Tensor:
    distances = (features.double()[:, None] - entries.double()).square().sum(2)
    return (distances == distances.amin(1, keepdim=True)).int().argmax(1)


@settings(max_examples=25)
@given(
    seed=st.integers(0, 2**31),
    n=st.integers(1, 70),
    d=st.integers(1, 40),
    k=st.integers(1, 140),
    steps=st.sampled_from([1.0, 4.0, 1e6]),
    dtype=st.sampled_from([torch.float32, torch.bfloat16, torch.float16]),
    cosine=st.booleans(),
    offset=st.sampled_from([0.0, 100.0]),
)
def test_the_search_equals_brute_force(
    interpreted: Interpreted,
    seed: int,
    n: int,
    d: int,
    k: int,
    steps: float,
    dtype: torch.dtype,
    cosine: bool,
    offset: float,
) -> None:
    """On lattices (coarse steps), where most features tie, and on directions, as codebooks compared by cosine."""
    features, entries = (((normal(size, d, seed=seed + i) * steps).round() / steps) for i, size in enumerate((n, k)))
    if cosine:
        features, entries = (torch.nn.functional.normalize(part, dim=1) for part in (features, entries))
    features, entries = (features + offset).to(dtype), entries + offset
    assert torch.equal(interpreted(find_nearest, features, entries), brute_force(features, entries))


def test_the_search_runs_through_the_kernel(interpreted: Interpreted) -> None:
    assert interpreted(use_triton, torch.device("cpu"))
    assert not use_triton(torch.device("cpu"))


def test_the_searchs_own_tests_pass_through_the_kernel() -> None:
    tests = Path(__file__).parents[1] / "test_nearest_entry.py"
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "ignore::RuntimeWarning"]
    chosen = ["-k", "brute_force or finite or view or autocast or lowest", str(tests)]  # what does not ask for the form
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    done = subprocess.run([*command, *chosen], env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stdout[-4000:]
