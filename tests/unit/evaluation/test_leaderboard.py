"""Changed codes, the length of a code, and which words are recognised."""

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor
from torch.nn.functional import normalize

from tavq.api import build_text_store, make_scenes
from tavq.core.config import build
from tavq.data.folder import FolderDataset
from tavq.evaluation import leaderboard
from tavq.evaluation.leaderboard import (
    CHANGED,
    COMMONEST,
    MAX_WORDS,
    RAREST,
    measure_cost,
    perturb,
    recognise_words,
)
from tavq.interfaces import Aligner, Losses, TextFeatures
from tavq.metrics.zero_shot import zero_shot_words
from tavq.tokenizer import Tokenizer, TokenizerConfig


@given(st.integers(1, 4), st.integers(1, 5), st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(0, 99))
def test_changed_codes_are_other_entries_of_the_same_part(b: int, side: int, sizes: list[int], seed: int) -> None:
    draw = torch.Generator().manual_seed(seed)
    parts = [torch.randint(size, (b, side, side), generator=draw) for size in sizes]
    indices = torch.stack(parts, -1) if len(sizes) > 1 else parts[0]
    keys = [str(number) for number in range(b)]
    changed = perturb(indices, sizes, keys, share=1.0)
    assert changed.shape == indices.shape
    for part, size in enumerate(sizes):
        before, after = (grid[..., part] if len(sizes) > 1 else grid for grid in (indices, changed))
        assert (after >= 0).all()
        assert (after < size).all()
        assert (after != before).all() if size > 1 else torch.equal(after, before)
    assert torch.equal(perturb(indices, sizes, keys, share=0.0), indices)
    assert torch.equal(perturb(indices[-1:], sizes, keys[-1:], share=1.0), changed[-1:])  # no other image matters


def test_a_tenth_is_changed_and_every_other_entry_is_as_likely() -> None:
    indices = torch.zeros(4, 100, 100, dtype=torch.long)
    changed = perturb(indices, (5,), ["a", "b", "c", "d"])
    assert (changed != 0).double().mean().item() == pytest.approx(CHANGED, abs=0.01)
    shares = torch.bincount(changed.flatten(), minlength=5)[1:] / (changed != 0).sum()
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.02, rtol=0)


@pytest.mark.parametrize(
    ("codebook", "quantizer", "tokens", "bits"),
    [
        ({"name": "learned", "entries": 12, "width": 4}, {"name": "nearest"}, 16, 16 * math.log2(12)),
        ({"name": "learned", "entries": 12, "width": 4, "parts": 3}, {"name": "residual"}, 48, 48 * math.log2(12)),
    ],
)
def test_the_length_of_a_code(codebook: dict, quantizer: dict, tokens: int, bits: float) -> None:
    settings = {"net": {"channels": 8, "multipliers": [1, 1], "blocks": 1, "attention": False}}
    config = build(TokenizerConfig, {**settings, "codebook": codebook, "quantizer": quantizer}, "test")
    tokenizer = Tokenizer(config).eval()
    images = torch.zeros(2, 3, 8, 8)
    with torch.no_grad():
        found = {metric.key: metric.value for metric in measure_cost(tokenizer, images, tokenizer.encode(images))}
    assert found["tokens"] == tokens
    assert found["bits"] == pytest.approx(bits)
    assert min(found["encoded_per_second"] or 0, found["decoded_per_second"] or 0) > 0


class WordsAligner(Aligner):
    """Embeds a text as the mean of its words' vectors."""

    levels = (2,)

    def forward(self, levels: Any, text: TextFeatures) -> Losses:
        return {}

    def embed_images(self, levels: Any) -> Tensor:
        raise NotImplementedError

    def embed_text(self, text: TextFeatures) -> Tensor:
        return normalize(text.words.vectors.mean(1), dim=1)


def test_frequent_words_are_recognised_in_the_images_that_have_text(tmp_path: Path) -> None:
    data = FolderDataset(make_scenes(tmp_path / "scenes", images=60, size=32))
    store = build_text_store(data.folder)
    names, vectors = store.vocabulary("words")
    rows = {name: normalize(torch.tensor(vectors[row]), dim=0) for row, name in enumerate(names)}
    keys = ["without a text", *(record.file_name for record in data)]
    own = [torch.zeros(store.width), *(sum(rows[word] for word in set(store.units(key)["words"])) for key in keys[1:])]
    aligner = WordsAligner()
    aligner.anchor = torch.nn.Parameter(torch.zeros(1))
    seen: list[Tensor] = []
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(leaderboard, "zero_shot_words", lambda *given: seen.extend(given) or zero_shot_words(*given))
        metric, chance = recognise_words(aligner, normalize(torch.stack(own), dim=1), keys, store)
    images, words, present = seen
    assert len(images) == len(present) == 60  # the image without a text is left out
    assert len(words) == present.shape[1] <= MAX_WORDS
    shares = present.double().mean(0)
    assert (shares >= RAREST).all()
    assert (shares <= COMMONEST).all()
    assert metric.value is not None
    assert metric.value > 0.9  # each image is the sum of its own words
    assert chance.value == pytest.approx(0.5, abs=0.1)
