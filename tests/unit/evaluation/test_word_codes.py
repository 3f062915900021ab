"""`word_code_lift` of a tokenizer whose aligner knows the words of its codes, and of one that knows nothing."""

from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.codebooks.learned import LearnedCodebook
from tavq.evaluation.word_codes import WordCodes
from tavq.evaluation.word_probe import WordProbe
from tavq.interfaces import Aligner, Quantized, TextFeatures, TextUnits
from tavq.quantizers.nearest import NearestQuantizer

WORDS = 4
"""Words, each with a vector of its own and a code of its own."""


class EntryAligner(Aligner):
    """Maps entry i to the vector of a word."""

    levels = (0, 2)
    entry_levels = {"words": 0}  # noqa: RUF012

    def __init__(self, words: list[int]) -> None:
        super().__init__()
        self.words = words

    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Any:
        raise AssertionError("nothing is trained here")

    def embed_images(self, levels: Mapping[int, Quantized]) -> Tensor:
        raise AssertionError("nothing is ranked here")

    def embed_text(self, text: TextFeatures) -> Tensor:
        raise AssertionError("nothing is ranked here")

    def embed_entries(self, entries: Tensor, granularity: str) -> Tensor:
        assert granularity == "words"
        return torch.eye(WORDS)[self.words]


def measured(aligner: Aligner | None) -> dict[str, float | None]:
    """48 images, each with the word `i % 4` and mostly the code of that word."""
    config = LearnedCodebook.Config(entries=WORDS, width=2)
    codebook = LearnedCodebook(config)
    codes, probe = WordCodes(found=1), WordProbe()
    for image in range(48):
        word = image % WORDS
        grid = torch.full((1, 4, 4), word)
        grid[0, 0] = torch.arange(WORDS)  # every code occurs in every image
        units = TextUnits(torch.eye(WORDS)[None, [word]], torch.ones(1, 1, dtype=torch.bool))
        codes.update([f"{image}.png"], grid, (WORDS,))
        probe.update([f"{image}.png"], grid, units)
    quantizer = NearestQuantizer(NearestQuantizer.Config(), config)
    found = codes.compute(aligner, quantizer, {0: codebook, 2: codebook}, probe)
    return {metric.key: metric.value for metric in found}


def test_the_nearest_code_has_the_lift_of_its_word() -> None:
    right, wrong = measured(EntryAligner([0, 1, 2, 3])), measured(EntryAligner([1, 2, 3, 0]))
    assert right["word_code_lift"] == pytest.approx((12 + 5 / 4) / ((12 + 5) / 4))
    assert wrong["word_code_lift"] == pytest.approx((5 / 4) / ((12 + 5) / 4))
    assert right["other_word/word_code_lift"] == wrong["word_code_lift"]


def test_without_an_aligner_there_is_no_value() -> None:
    assert measured(None) == {"word_code_lift": None, "other_word/word_code_lift": None}
