"""The language-guided aligner's own settings, which words it masks, and what it takes from a text store."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy import stats

from tavq.align.lg import LGAligner, semantic_loss
from tavq.align.lg_ta import JointAligner
from tavq.codebooks.learned import LearnedCodebook
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import Quantized, TextFeatures, TextUnits, sum_losses
from tavq.ops.masking import mask_least_noise, sample_mask_ratios
from tavq.quantizers.nearest import NearestQuantizer
from tavq.tokenizer import Tokenizer, TokenizerConfig

SMALL = {"width": 8, "tokens": 5, "vocabulary": 6}
NET = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}


class Store:
    """A source of six tokens."""

    width = 4

    def __init__(self, tokens: int = 6) -> None:
        self.rows = np.arange(tokens * 4, dtype=np.float16).reshape(tokens, 4)
        self.rows.flags.writeable = False  # as a mapped file's are

    def __contains__(self, key: str) -> bool:
        return False

    def vectors(self, key: str) -> dict[str, Any]:
        raise KeyError(key)

    def vocabulary(self, granularity: str) -> tuple[list[str], np.ndarray]:
        if granularity != "tokens":
            raise UsageError(f"no {granularity}")
        return [str(row) for row in range(len(self.rows))], self.rows


def made(**settings: Any) -> LGAligner:
    torch.manual_seed(0)
    return LGAligner(build(LGAligner.Config, {**SMALL, **settings}, "test"), 3, 4)


def texts(counts: list[int], padded: int, ids: bool = True, pooled: bool = True) -> TextFeatures:
    generator = torch.Generator().manual_seed(1)
    mask = torch.arange(padded) < torch.tensor(counts)[:, None]
    vectors = torch.randn(len(counts), padded, 4, generator=generator)
    numbers = torch.randint(6, mask.shape, generator=generator)
    whole = TextUnits(vectors, mask, numbers if ids else None)
    split = TextUnits(vectors, mask)
    return TextFeatures(
        split, split, split, whole, torch.randn(len(counts), 4, generator=generator) if pooled else None
    )


def grids(images: int) -> dict[int, Quantized]:
    codes = torch.randn(images, 3, 2, 3, generator=torch.Generator().manual_seed(2))
    return {2: Quantized(codes, codes, torch.zeros(images, 2, 3, dtype=torch.long), {})}


@pytest.mark.parametrize(
    ("settings", "losses", "parts"),
    [
        ({}, {"semantic", "masked", "relation"}, {"tower", "filler", "to_words"}),
        ({"masked": 0}, {"semantic", "relation"}, {"tower", "to_words"}),
        ({"semantic": 0, "relation": 0}, {"masked"}, {"tower", "filler"}),
        ({"semantic": 0, "masked": 0}, {"relation"}, {"tower", "to_words"}),
    ],
)
def test_a_loss_of_weight_zero_is_not_built(settings: Any, losses: set[str], parts: set[str]) -> None:
    aligner = made(**settings)
    assert {key.removeprefix("align/") for key in aligner(grids(2), texts([3, 2], 3))} == losses
    assert {name for name, _ in aligner.named_children()} == parts
    assert (aligner.fill_words(grids(2), texts([3, 2], 3), torch.rand(2, 3), 1) is None) == ("filler" not in parts)
    assert (aligner.relations(grids(2), texts([3, 2], 3)) is None) == ("to_words" not in parts)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"semantic": 0, "masked": 0, "relation": 0}, "every weight is 0; set model.align to null"),
        ({"heads": 3}, "heads 3 must divide width 8"),
        ({"tokens": 0}, "'tokens' = 0"),
        ({"masked": -1}, "'masked' = -1"),
        ({"gradient": "decoder"}, "'gradient' = 'decoder'"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        made(**settings)
    assert message in str(caught.value)


def test_heads_must_divide_the_text_width() -> None:
    with pytest.raises(UsageError, match="heads 8 must divide the text width, 4, too"):
        made(heads=8)


def test_the_hierarchy_is_not_built() -> None:
    align = {"name": "lg", **SMALL}
    codebook = {"name": "learned", "entries": 8, "width": 4}
    config = {"net": NET, "codebook": codebook, "align": align, "text_width": 4}
    tokenizer = Tokenizer(build(TokenizerConfig, config, "test"))
    assert set(tokenizer.quantize(torch.zeros(1, 3, 8, 8))) == {2}
    assert tokenizer.hierarchy is not None
    assert not list(tokenizer.hierarchy.parameters())


# --- text -------------------------------------------------------------------------------------------------------


def test_the_vocabulary_comes_from_the_store() -> None:
    align = {"name": "lg", "width": 8}
    config = build(TokenizerConfig, {"net": NET, "align": align}, "test").resolve_config(Store())
    assert (config.text_width, config.align.vocabulary) == (4, 6)
    tokenizer = Tokenizer(config)
    tokenizer.load_vocabulary(Store())
    assert tokenizer.aligner.filler.table.tolist() == Store().rows.tolist()
    assert tokenizer.aligner.matches_vocabulary(Store())
    assert not tokenizer.aligner.matches_vocabulary(Store(5))
    both = build(TokenizerConfig, {"net": NET, "align": {"name": "lg+ta", "lg": {"width": 8}}}, "test").resolve_config(
        Store()
    )
    assert both.align.lg.vocabulary == 6


def test_a_store_without_full_text_is_refused_before_training() -> None:
    class Split(Store):
        def vocabulary(self, granularity: str) -> tuple[list[str], np.ndarray]:
            raise UsageError("The text store holds no token-level text; rebuild it with: tavq text DIR --full-text")

    for align in ("lg", "lg+ta", {"name": "ta", "multi_granularity": False}):
        config = build(TokenizerConfig, {"net": NET, "align": align}, "test")
        assert config.reads_full_text
        with pytest.raises(UsageError, match=r"rebuild it with: tavq text DIR --full-text"):
            config.resolve_config(Split())
        with pytest.raises(UsageError, match=r"needs encoded text; make it with: tavq text DIR --full-text"):
            config.resolve_config(None)
    assert not build(TokenizerConfig, {"net": NET, "align": "ta"}, "test").resolve_config(Split()).reads_full_text


def test_texts_without_what_it_reads_are_refused_in_one_line() -> None:
    lacking = {
        "'full_text'": TextFeatures(*[texts([2], 2).words] * 3),
        "has no token ids": texts([2], 2, ids=False),
        "no vectors of full texts": texts([2], 2, pooled=False),
    }
    for message, text in lacking.items():
        with pytest.raises(UsageError, match=f"{message}.*tavq text DATA --full-text"):
            made()(grids(1), text)
    assert made().fill_words(grids(1), lacking["has no token ids"], torch.rand(1, 2), 1) is None


def test_only_the_first_tokens_are_used() -> None:
    long = texts([9, 4], 9)
    assert long.full_text is not None
    cut = TextUnits(long.full_text.vectors[:, :5], long.full_text.mask[:, :5], long.full_text.ids[:, :5])
    values = []
    for whole in (long.full_text, cut):
        torch.manual_seed(3)
        text = TextFeatures(long.words, long.words, long.words, whole, long.pooled)
        values.append([loss.value.item() for loss in made()(grids(2), text).values()])
    assert values[0] == values[1]


# --- masking ----------------------------------------------------------------------------------------------------


def test_mask_ratios_follow_the_truncated_gaussian() -> None:
    torch.manual_seed(4)
    shares = sample_mask_ratios(4000, torch.device("cpu")).double().numpy()
    assert 0.1 <= shares.min() < shares.max() <= 0.3
    expected = stats.truncnorm((0.1 - 0.5) / 0.1, (0.3 - 0.5) / 0.1, loc=0.5, scale=0.1)
    assert stats.kstest(shares, expected.cdf).pvalue > 0.01


def test_the_requested_number_of_words_is_masked_and_never_padding() -> None:
    mask = torch.arange(6) < torch.tensor([6, 4, 1, 0])[:, None]
    for seed in range(20):
        noise = torch.rand(4, 6, generator=torch.Generator().manual_seed(seed))
        masked = mask_least_noise(noise, mask, torch.tensor([2, 5, 1, 1]))
        assert masked.sum(1).tolist() == [2, 4, 1, 0]
        assert not (masked & ~mask).any()
        assert noise[0][masked[0]].max() < noise[0][~masked[0]].min()


def test_a_masked_word_is_hidden_from_the_predictor() -> None:
    """What the word filler says of a masked word does not depend on the vector that stood there."""
    aligner, words = made(), texts([5, 5], 5)
    aligner.filler.table.copy_(torch.randn(6, 4, generator=torch.Generator().manual_seed(5)))
    noise = torch.rand(2, 5, generator=torch.Generator().manual_seed(6))
    masked = mask_least_noise(noise, words.full_text.mask, torch.tensor([2, 2]))
    other = TextUnits(words.full_text.vectors + 5 * masked[:, :, None], words.full_text.mask, words.full_text.ids)
    inner = aligner._tokens(words)
    moved = aligner._tokens(TextFeatures(words.words, words.words, words.words, other, words.pooled))
    visual = aligner.tower(grids(2)[2].quantized)
    first, second = (aligner.filler(found, masked, visual) for found in (inner, moved))
    assert torch.equal(first, second)
    assert not torch.equal(first, aligner.filler(inner, masked, visual.flip(0)))  # but on the image
    assert not torch.equal(inner.vectors, moved.vectors)


def test_prediction_learns_the_words_of_an_image() -> None:
    """Each image's codes tell its one word; after some steps the masked word is read off them."""
    torch.manual_seed(7)
    aligner = made(semantic=0, relation=0, masked=1.0, tokens=1)
    aligner.filler.table.copy_(torch.randn(6, 4))
    codes = torch.randn(6, 3, 2, 2) * 2
    levels = {2: Quantized(codes, codes, torch.zeros(6, 2, 2, dtype=torch.long), {})}
    whole = TextUnits(torch.zeros(6, 1, 4), torch.ones(6, 1, dtype=torch.bool), torch.arange(6)[:, None])
    text = TextFeatures(whole, whole, whole, whole)
    optimiser = torch.optim.Adam(aligner.parameters(), 3e-3)
    for _ in range(300):
        optimiser.zero_grad()
        sum_losses(aligner(levels, text)).backward()
        optimiser.step()
    predicted, truth, owner = aligner.fill_words(levels, text, torch.rand(6, 1), 1)
    assert truth.tolist() == owner.tolist() == list(range(6))
    assert (predicted == truth).float().mean() > 0.8


# --- gradients --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", ["encoder", "codebook", "both"])
def test_the_gradient_arrives_where_the_setting_says(path: str) -> None:
    codebook = LearnedCodebook(LearnedCodebook.Config(entries=8, width=3))
    with torch.no_grad():
        codebook.table.copy_(torch.randn(8, 3, generator=torch.Generator().manual_seed(8)))
    features = grids(2)[2].quantized.clone().requires_grad_()
    quantized = NearestQuantizer(NearestQuantizer.Config(), LearnedCodebook.Config())(features, codebook)
    aligner = made(gradient=path)
    aligner.filler.table.copy_(torch.randn(6, 4, generator=torch.Generator().manual_seed(9)))
    sum_losses(aligner({2: quantized}, texts([4, 3], 4))).backward()
    reached = (features.grad is not None and bool(features.grad.ne(0).any()), codebook.table.grad is not None)
    assert reached == {"encoder": (True, False), "codebook": (False, True), "both": (True, True)}[path]


# --- several processes ------------------------------------------------------------------------------------------


def test_two_processes_contrast_the_images_of_both(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each process gets the loss and the gradient of its images among the texts of all."""
    generator = torch.Generator().manual_seed(10)
    images, words = (torch.randn(4, 5, generator=generator) for _ in range(2))
    present = torch.tensor([True, False, True, True])
    whole = images.clone().requires_grad_()
    expected = semantic_loss(whole, words, present)
    (gradient,) = torch.autograd.grad(expected[present].sum(), whole)
    every = {1: present[:, None].float(), 5: torch.nn.functional.normalize(words, dim=1)}
    monkeypatch.setattr("tavq.align.lg.all_gather", lambda rows: every[rows.shape[1]])
    for part in (slice(0, 2), slice(2, 4)):
        own = images[part].clone().requires_grad_()
        found = semantic_loss(own, words[part], present[part])
        torch.testing.assert_close(found[present[part]], expected[part][present[part]])
        (its,) = torch.autograd.grad(found[present[part]].sum(), own)
        torch.testing.assert_close(its, gradient[part])


# --- with the other ---------------------------------------------------------------------------------------------


def test_both_aligners_give_what_each_gives_alone() -> None:
    torch.manual_seed(0)
    settings = {"lg": {**SMALL, "semantic": 0.5}, "ta": {"word": 0, "sentence": 0.25}}
    both = JointAligner(build(JointAligner.Config, settings, "test"), 3, 4)
    assert both.levels == (1, 2)
    levels = {level: grids(2)[2] for level in both.levels}
    text = texts([3, 2], 3)
    torch.manual_seed(1)
    together = both(levels, text)
    torch.manual_seed(1)
    alone = {**both.lg(levels, text), **both.ta(levels, text)}
    assert list(together) == ["align/semantic", "align/masked", "align/relation", "align/phrases", "align/sentences"]
    assert {key: (loss.value.item(), loss.weight) for key, loss in together.items()} == {
        key: (loss.value.item(), loss.weight) for key, loss in alone.items()
    }
    similarity = both.embed_images(levels) @ both.embed_text(text).T
    parts = [part.embed_images(levels) @ part.embed_text(text).T for part in (both.lg, both.ta)]
    torch.testing.assert_close(similarity, sum(parts) / 2)
    entries = torch.randn(7, 3)
    assert both.embed_entries(entries, "words") is None
    assert torch.equal(both.embed_entries(entries, "phrases"), both.ta.embed_entries(entries, "phrases"))
