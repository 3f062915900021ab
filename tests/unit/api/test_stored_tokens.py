"""Tokens that were made before, and the codebooks that they fit."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from tavq.api.stored_tokens import StoredTokens, open_tokens
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.token_file import Tokens
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 8, "multipliers": [1, 1], "blocks": 1, "attention": False}
FITTING = torch.full((3, 2, 2, 2), 15, dtype=torch.int32)


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    """Of two parts with 16 entries each."""
    parts = {"codebook": {"name": "learned", "entries": 16, "width": 6, "parts": 2}, "quantizer": {"name": "product"}}
    made = Tokenizer(build(TokenizerConfig, {"net": NET, **parts}, "test"))
    assert tuple(made.codebook.sizes) == (16, 16)
    return made


@pytest.fixture
def shards() -> StoredTokens:
    """As of a folder of shards, whose readers check every index against the entries of its part."""
    shapes = np.full((3, 2), 2)
    return StoredTokens(
        "tokens", ["a", "b", "c"], shapes, lambda start, stop: FITTING[start:stop], None, (16, 16), True
    )


def test_shards_fit_a_codebook_of_the_same_parts_alone(tokenizer: Tokenizer, shards: StoredTokens) -> None:
    shards.check_codebook(tokenizer)
    for entries, named in (((32,), "with 32 codebook"), ((16, 8), r"with 16 \+ 8 codebook")):
        with pytest.raises(UsageError, match=named):
            replace(shards, entries=entries).check_codebook(tokenizer)


@pytest.mark.parametrize("entries", [None, 32])
def test_a_file_that_knows_the_sum_of_the_parts_is_checked_index_by_index(
    tokenizer: Tokenizer, entries: int | None
) -> None:
    found = open_tokens(Tokens(FITTING, ("a", "b", "c"), entries))
    found.check_codebook(tokenizer)
    assert found.read(1, 3).shape == (2, 2, 2, 2)
    with pytest.raises(UsageError, match="cannot be decoded"):
        open_tokens(Tokens(FITTING + 1, ("a", "b", "c"), entries)).check_codebook(tokenizer)


def test_a_file_of_another_size_is_refused(tokenizer: Tokenizer) -> None:
    with pytest.raises(UsageError, match="with 31 codebook entries, but this one has 16"):
        open_tokens(Tokens(FITTING, ("a", "b", "c"), 31)).check_codebook(tokenizer)
