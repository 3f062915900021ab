"""The learned codebook: its two starts."""

import pytest
import torch

from tavq.codebooks.learned import LearnedCodebook


def made(entries: int, init: str, width: int = 2) -> LearnedCodebook:
    torch.manual_seed(0)
    return LearnedCodebook(
        LearnedCodebook.Config.model_validate({"entries": entries, "width": width, "init": init})
    ).train()


def test_the_uniform_init_is_that_of_the_public_code() -> None:
    """Uniform in [-1/k, 1/k], and features do not move it."""
    codebook = made(50, "uniform", width=100)
    table = codebook().detach().clone()
    assert float(table.abs().max()) <= 1 / 50
    assert float(table.var()) == pytest.approx((2 / 50) ** 2 / 12, rel=0.05)
    codebook.init_from_features(torch.ones(60, 100))
    assert torch.equal(codebook(), table)


def test_initialising_from_features_uses_each_at_most_once() -> None:
    codebook = made(10, "features")
    features = torch.arange(40.0).view(20, 2)
    codebook.init_from_features(features)
    taken = {tuple(row) for row in codebook().tolist()}
    assert len(taken) == 10
    assert taken <= {tuple(row) for row in features.tolist()}


def test_initialising_from_too_few_features_repeats_them() -> None:
    codebook = made(10, "features")
    codebook.init_from_features(torch.tensor([[1.0, 2.0], [3.0, 4.0]]))
    assert {tuple(row) for row in codebook().tolist()} == {(1.0, 2.0), (3.0, 4.0)}


def test_it_is_initialised_once_and_not_again_after_loading() -> None:
    codebook, loaded = made(4, "features"), made(4, "features")
    features = torch.arange(16.0).view(8, 2)
    codebook.init_from_features(features)
    table = codebook().detach().clone()
    codebook.init_from_features(features + 100)
    assert torch.equal(codebook(), table)
    loaded.load_state_dict(codebook.state_dict())
    loaded.init_from_features(features + 100)
    assert torch.equal(loaded(), table)


def test_entries_that_start_from_features_still_learn() -> None:
    codebook = made(4, "features")
    codebook.init_from_features(torch.arange(16.0).view(8, 2))
    codebook().sum().backward()
    assert codebook.table.grad is not None
    assert codebook.table.is_leaf


def test_normal_entries_have_variance_one() -> None:
    table = made(512, "normal", width=8)
    assert table().std().item() == pytest.approx(1, abs=0.05)
    before = table().detach().clone()
    table.init_from_features(torch.randn(600, 8))
    assert torch.equal(table(), before)
