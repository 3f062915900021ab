"""Parameter counts of recipes, computed without allocating the parameters."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from tavq.interfaces import TextSource, codebooks
from tavq.nets.convnet import count_parameters
from tavq.nets.discriminators import DiscriminatorConfig, PatchDiscriminator
from tavq.recipes.schema import Recipe
from tavq.text.word_graph import WordGraph
from tavq.tokenizer import Tokenizer, TokenizerConfig

BERT, CLIP = 768, 512
"""Widths of the papers' text encoders."""

TOKENS = 49_408
"""Vocabulary of CLIP's text tower; no text store has more tokens."""

WORDS = 6_207
"""Words in VQCT's codebook."""


@dataclass
class PaperText:
    """A TextSource with the sizes of the papers' text encoders, to count parameters without a text store."""

    width: int

    def __contains__(self, key: str) -> bool:
        return False

    def vectors(self, key: str) -> Mapping[str, Any]:
        """No vectors: only sizes are needed."""
        return {}

    def vocabulary(self, granularity: str) -> tuple[Sequence[str], Any]:
        """CLIP's number of tokens."""
        return [""] * TOKENS, np.broadcast_to(np.float32(0), (TOKENS, self.width))

    def word_graph(self) -> WordGraph:
        """VQCT's number of words; the number of adjectives among them and of edges does not change any size."""
        words, half = tuple(str(index) for index in range(WORDS)), WORDS // 2
        edges, vectors = np.empty((0, 2), np.int64), np.broadcast_to(np.float32(0), (WORDS, self.width))
        ones = (1,) * WORDS
        return WordGraph(words[:half], words[half:], ones[:half], ones[half:], edges, edges[:, 0], vectors)


@dataclass(frozen=True)
class Sizes:
    """Parameter counts of a recipe's parts."""

    generator: int  # encoder, codebook, quantizer and decoder: what is shipped
    alignment: int  # aligner and hierarchy, in training only
    discriminator: int


class Counter:
    """Counts the parameters of recipes; parts that several recipes share are built once."""

    def __init__(self) -> None:
        self._generators: dict[str, tuple[int, int]] = {}
        self._discriminators: dict[DiscriminatorConfig, int] = {}

    def count(self, recipe: Recipe) -> Sizes:
        """The sizes of a recipe; if it reads text, with `PaperText`."""
        adversarial = recipe.train.adversarial
        generator, alignment = self._tokenizer(recipe.model)
        discriminator = self._discriminator(adversarial.discriminator) if adversarial else 0
        return Sizes(generator, alignment, discriminator)

    def _tokenizer(self, model: TokenizerConfig) -> tuple[int, int]:
        key = model.model_dump_json()
        if key not in self._generators:
            with torch.device("meta"):
                tokenizer = Tokenizer(model.resolve_config(_source(model)))
            counts = tokenizer.parameter_counts()
            if codebooks[model.codebook.name].generated:
                counts["codebook"] = tokenizer.codebook.size * tokenizer.codebook.width  # shipped as a table
            alignment = counts.get("aligner", 0) + counts.get("hierarchy", 0)
            self._generators[key] = sum(counts.values()) - alignment, alignment
        return self._generators[key]

    def _discriminator(self, config: DiscriminatorConfig) -> int:
        if config not in self._discriminators:
            self._discriminators[config] = count_parameters(PatchDiscriminator(config))
        return self._discriminators[config]


def _source(model: TokenizerConfig) -> TextSource | None:
    """CLIP's text if full texts or words are read, as in LG-VQ and VQCT; else BERT's, as in TA-VQ."""
    if not model.reads_text:
        return None
    clip = model.align is None or model.reads_full_text
    return PaperText(model.text_width or (CLIP if clip else BERT))
