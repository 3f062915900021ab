"""What every registered codebook does."""

from typing import Any

import pytest
import torch

from tavq.core.config import build
from tavq.interfaces import Codebook, codebooks
from tavq.tokenizer import Tokenizer, TokenizerConfig

pytestmark = pytest.mark.parametrize("name", codebooks)


def test_it_is_a_table_of_its_size(make: Any, name: str) -> None:
    tokenizer = make(codebook=name)
    codebook = tokenizer.codebook
    assert (tokenizer.config.codebook.width, tokenizer.config.codebook.parts) == (codebook.width, len(codebook.sizes))
    assert codebook.size == sum(codebook.sizes)
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


def test_every_parameter_gets_a_gradient_or_is_frozen(make: Any, name: str) -> None:
    codebook = make(codebook=name).codebook
    entries = codebook()
    if entries.requires_grad:
        (entries * torch.randn(codebook.size, codebook.width)).sum().backward()
    for key, parameter in codebook.named_parameters():
        assert not parameter.requires_grad or (parameter.grad is not None and parameter.grad.ne(0).any()), key


def test_the_state_is_the_table(make: Any, name: str, grid: Any) -> None:
    first, second = make(codebook=name, seed=1).codebook, make(codebook=name, seed=2).codebook
    features = grid(2, 3, 4, first.width).permute(0, 2, 3, 1).reshape(24, first.width)

    def shown(codebook: Codebook) -> Any:
        torch.manual_seed(6)
        for part, size in enumerate(codebook.sizes):
            codebook.init_from_features(features, part)
            codebook.update(features, torch.arange(24) % size, part)
        return codebook()

    shown(first)
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(), second())
    assert torch.equal(shown(first), shown(second))


def test_an_update_changes_its_own_part_only(make: Any, name: str) -> None:
    codebook = make(codebook=name).codebook
    before = codebook().detach().clone().split(codebook.sizes)
    codebook.init_from_features(torch.randn(40, codebook.width), 0)
    codebook.update(torch.randn(40, codebook.width), torch.arange(40) % codebook.sizes[0], 0)
    for part in range(1, len(codebook.sizes)):
        assert torch.equal(codebook().split(codebook.sizes)[part], before[part])


def test_it_can_be_frozen(make: Any, name: str) -> None:
    """A frozen tokenizer that is not in training never moves."""
    tokenizer = make(codebook=name).eval().requires_grad_(False)
    before = {key: value.clone() for key, value in tokenizer.state_dict().items()}
    tokenizer(torch.rand(2, 3, 16, 16))
    assert all(torch.equal(before[key], value) for key, value in tokenizer.state_dict().items())


@pytest.mark.parametrize("count", [1, 500])
def test_initialising_from_few_or_many_features_gives_finite_entries(make: Any, name: str, count: int) -> None:
    codebook = make(codebook=name).codebook
    codebook.init_from_features(torch.randn(count, codebook.width))
    codebook.update(torch.randn(count, codebook.width), torch.arange(count) % codebook.sizes[0])
    assert codebook().shape == (codebook.size, codebook.width)
    assert codebook().isfinite().all()


def test_it_can_be_built_without_memory(make: Any, name: str) -> None:
    config = make(codebook=name).config
    with torch.device("meta"):
        assert all(value.is_meta for value in Tokenizer(config).state_dict().values())
