"""Small parts of every registered kind, built by the tokenizer as a user's settings would build them.

A new part needs no line here unless it has a setting without a default, needs a certain codebook, or is by its nature
outside one of the rules; then it is named in one of the tables below.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.config import build
from tavq.interfaces import Codebook, Quantized, TextFeatures, TextUnits, codebooks, quantizers
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}
ENTRIES, WIDTH, TEXT_WIDTH = 24, 6, 5

CODEBOOK_SETTINGS: dict[str, dict[str, Any]] = {
    "fixed": {"sizes": [ENTRIES], "width": WIDTH},
    "transferred": {
        "width": WIDTH,
        "adjectives": ["red", "small", "old", "orange"],
        "nouns": ["car", "dog", "house", "tree", "orange"],
        "edges": 7,
        "word_width": TEXT_WIDTH,
    },
}
"""Settings of a codebook that has no `entries` and `width`."""

QUANTIZER_SETTINGS: dict[str, dict[str, Any]] = {}
"""Settings of a quantizer beside its defaults."""

QUANTIZER_OF: dict[str, str] = {"transferred": "product"}
"""The quantizer of a codebook that does not go with `nearest`."""

TOKENS = 7  # distinct tokens of the texts
LG = {"width": 8, "tokens": 6, "vocabulary": TOKENS}

ALIGNER_SETTINGS: dict[str, dict[str, Any]] = {"lg": LG, "lg+ta": {"lg": LG}}
"""Settings of an aligner beside its defaults."""

WITHOUT_NOISE: dict[str, dict[str, Any]] = {"ta": {"sampling": False}}
"""Settings under which an aligner draws nothing at random; {} where it never does."""

Make = Callable[..., Tokenizer]


class Source:
    """A text store's table of tokens, drawn once; it knows no image."""

    width = TEXT_WIDTH

    def __contains__(self, key: str) -> bool:
        return False

    def vectors(self, key: str) -> dict[str, Any]:
        raise KeyError(key)

    def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
        rows = torch.randn(TOKENS, TEXT_WIDTH, generator=torch.Generator().manual_seed(4))
        return [f"token {row}" for row in range(TOKENS)], rows.numpy()


def fields_of(codebook: str) -> set[str]:
    return set(codebooks[codebook].Config.model_fields)


def small_tokenizer(
    quantizer: str | None = None,
    codebook: str | None = None,
    align: str | None = None,
    seed: int = 0,
    **align_settings: Any,
) -> Tokenizer:
    """A small tokenizer of named parts from a seed."""
    quantizer = quantizer or QUANTIZER_OF.get(codebook or "", "nearest")
    table = {"name": codebook} if codebook else dict(quantizers[quantizer].compatible_codebook)
    sizes = {"entries": ENTRIES, "width": WIDTH} if "entries" in fields_of(table["name"]) else {}
    table = {**sizes, **CODEBOOK_SETTINGS.get(table["name"], {}), **table}
    values = {
        "net": NET,
        "codebook": table,
        "quantizer": {"name": quantizer, **QUANTIZER_SETTINGS.get(quantizer, {})},
        "align": {"name": align, **ALIGNER_SETTINGS.get(align, {}), **align_settings} if align else None,
        "text_width": TEXT_WIDTH if align else None,
    }
    torch.manual_seed(seed)
    tokenizer = Tokenizer(build(TokenizerConfig, values, "test"))
    if tokenizer.aligner is not None:
        tokenizer.aligner.load_vocabulary(Source())
    return tokenizer


@pytest.fixture(scope="module")
def chosen(request: pytest.FixtureRequest) -> list[str]:
    """The names that this file's tests will be run for: all, or those that -k chooses."""
    items = [item for item in request.session.items if isinstance(item, pytest.Function) and item.path == request.path]
    given = [item.callspec.params for item in items if hasattr(item, "callspec")]
    return sorted({params["name"] for params in given if "name" in params})


@pytest.fixture
def make() -> Make:
    """Builds a small tokenizer of named parts from a seed."""
    return small_tokenizer


@pytest.fixture
def grid() -> Callable[..., Tensor]:
    """Draws features [b d h w] from a seed."""

    def grid(b: int, h: int, w: int, width: int, seed: int = 1) -> Tensor:
        return torch.randn(b, width, h, w, generator=torch.Generator().manual_seed(seed))

    return grid


@pytest.fixture
def spread() -> Callable[[Codebook], None]:
    """Moves the parameters of a codebook apart: fresh tables are so tight that every feature has the same entry."""

    def spread(codebook: Codebook) -> None:
        generator = torch.Generator().manual_seed(2)
        with torch.no_grad():
            for parameter in codebook.parameters():
                parameter.copy_(torch.randn(parameter.shape, generator=generator))

    return spread


@pytest.fixture
def quantize_levels() -> Callable[[Tokenizer, dict[int, Tensor]], dict[int, Quantized]]:
    """Quantises a grid of features for each level that the aligner reads."""

    def quantize_levels(tokenizer: Tokenizer, features: dict[int, Tensor]) -> dict[int, Quantized]:
        assert tokenizer.aligner is not None
        return {level: tokenizer.quantizer(features[level], tokenizer.codebook) for level in tokenizer.aligner.levels}

    return quantize_levels


@pytest.fixture
def text() -> Callable[..., TextFeatures]:
    """Draws texts: `units` says how many stand in each image, at every granularity; the rest is padding."""

    def draw(units: list[int], padded: int, generator: torch.Generator) -> TextUnits:
        mask = torch.arange(padded) < torch.tensor(units)[:, None]
        vectors = torch.randn(len(units), padded, TEXT_WIDTH, generator=generator)
        return TextUnits(vectors * mask[:, :, None], mask)

    def text(units: list[int], padded: int = 4, seed: int = 3) -> TextFeatures:
        generator = torch.Generator().manual_seed(seed)
        tables = [draw(units, padded, generator) for _ in range(4)]
        ids = torch.randint(TOKENS, (len(units), padded), generator=generator)
        pooled = torch.randn(len(units), TEXT_WIDTH, generator=generator)  # also where no unit stands
        return TextFeatures(*tables[:3], replace(tables[3], ids=ids), pooled)

    return text
