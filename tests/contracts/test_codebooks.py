"""What every registered codebook does."""

from typing import Any

import pytest
import torch

from tavq.core.config import build
from tavq.interfaces import Codebook, codebooks
from tavq.tokenizer import Tokenizer, TokenizerConfig

pytestmark = pytest.mark.parametrize("name", codebooks)


def test_it_is_a_table_of_its_size(make: Any, name: str) -> None:
    codebook = make(codebook=name).codebook
    assert isinstance(codebook, Codebook)
    assert codebook().shape == (codebook.size, codebook.width)
    assert codebook().isfinite().all()


def test_its_settings_survive_as_plain_values(make: Any, name: str) -> None:
    config = make(codebook=name).config
    plain = config.model_dump(mode="json")
    assert plain["codebook"]["name"] == name
    assert set(plain["codebook"]) == set(codebooks[name].Config.model_fields)
    assert build(TokenizerConfig, plain, "test") == config


def test_one_seed_gives_one_table(make: Any, name: str) -> None:
    assert torch.equal(make(codebook=name).codebook(), make(codebook=name).codebook())


def test_every_number_gets_a_gradient_or_is_frozen(make: Any, name: str) -> None:
    codebook = make(codebook=name).codebook
    (codebook() * torch.randn(codebook.size, codebook.width)).sum().backward()
    for key, parameter in codebook.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.ne(0).any()), key


def test_the_state_is_the_table(make: Any, name: str, grid: Any) -> None:
    first, second = make(codebook=name, seed=1).codebook, make(codebook=name, seed=2).codebook
    first.start(grid(2, 3, 4, first.width).permute(0, 2, 3, 1).reshape(24, first.width))
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(), second())
    second.start(torch.ones(5, first.width))
    first.start(torch.ones(5, first.width))
    assert torch.equal(first(), second())


@pytest.mark.parametrize("rows", [1, 500])
def test_a_start_from_few_or_many_features_leaves_finite_entries(make: Any, name: str, rows: int) -> None:
    codebook = make(codebook=name).codebook
    codebook.start(torch.randn(rows, codebook.width))
    assert codebook().shape == (codebook.size, codebook.width)
    assert codebook().isfinite().all()


def test_it_can_be_built_without_memory(make: Any, name: str) -> None:
    config = make(codebook=name).config
    with torch.device("meta"):
        assert all(value.is_meta for value in Tokenizer(config).state_dict().values())
