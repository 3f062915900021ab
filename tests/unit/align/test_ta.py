"""The transport aligner's own settings, and the drawing of units."""

from typing import Any

import pytest
import torch

from tavq.align.levels import LevelAligner
from tavq.align.ta import TransportAligner, uniform_weights
from tavq.align.units import sample_units
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import Quantized, TextFeatures, TextUnits
from tavq.tokenizer import Tokenizer, TokenizerConfig

NET = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}


@pytest.mark.parametrize(
    ("settings", "levels", "networks"),
    [
        ({}, (0, 1, 2), ["words", "phrases", "sentences"]),
        ({"word": 0}, (1, 2), ["phrases", "sentences"]),
        ({"phrase": 0, "sentence": 0}, (0,), ["words"]),
        ({"multi_granularity": False, "word": 0}, (2,), ["whole"]),  # as in models of the version before
    ],
)
def test_a_level_of_weight_zero_is_not_built(settings: Any, levels: tuple[int, ...], networks: list[str]) -> None:
    aligner = TransportAligner(build(TransportAligner.Config, settings, "test"), 4, 5)
    assert aligner.levels == levels
    assert list(aligner.networks) == networks
    tokenizer = Tokenizer(
        build(
            TokenizerConfig,
            {
                "net": NET,
                "codebook": {"name": "learned", "entries": 8, "width": 4},
                "align": {"name": "ta", **settings},
                "text_width": 5,
            },
            "test",
        )
    )
    assert tokenizer.hierarchy is not None
    assert len(tokenizer.hierarchy.projections) == len(set(levels) - {2})
    assert set(tokenizer.quantize(torch.zeros(1, 3, 8, 8))) == {2, *levels}


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"word": 0, "phrase": 0, "sentence": 0}, "every weight is 0; set model.align to null"),
        ({"multi_granularity": False, "sentence": 0}, "every weight is 0; set model.align to null"),
        ({"samples": [0, 8, 16]}, "'samples.0' = 0"),
        ({"samples": [4, -8, 16]}, "'samples.1' = -8"),
        ({"samples": [4, 8, 10**9]}, "'samples.2' = 1000000000"),
        ({"samples": [4, 8]}, "'samples.2' is missing"),
        ({"word": -1}, "'word' = -1"),
        ({"epsilon": 0}, "'epsilon' = 0"),
        ({"epsilon": 1e-300}, "'epsilon' = 1e-300"),
        ({"iterations": 0}, "'iterations' = 0"),
        ({"gradient": "decoder"}, "'gradient' = 'decoder'"),
    ],
)
def test_settings_that_make_no_sense(settings: Any, message: str) -> None:
    with pytest.raises(UsageError) as caught:
        build(TransportAligner.Config, settings, "test")
    assert message in str(caught.value)


def test_the_smallest_epsilon_and_far_costs_stay_finite() -> None:
    aligner = TransportAligner(build(TransportAligner.Config, {"epsilon": 1e-6, "sampling": False}, "test"), 2, 2)
    units = TextUnits(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]]]), torch.ones(1, 2, dtype=torch.bool))
    codes = torch.randn(1, 2, 3, 3, requires_grad=True)
    grid = Quantized(codes, codes, torch.zeros(1, 3, 3, dtype=torch.long), {})
    for loss in aligner(dict.fromkeys(range(3), grid), TextFeatures(units, units, units)).values():
        assert loss.value.isfinite()


def test_a_variance_that_underflows_leaves_finite_gradients() -> None:
    level = LevelAligner(2, 2, standardize=False, center=False)
    torch.nn.init.constant_(level.variance[2].bias, -200.0)
    rows = torch.randn(1, 3, 2, requires_grad=True)
    level.sample(rows, 4, torch.ones(1, dtype=torch.bool)).sum().backward()
    for parameter in (rows, *level.parameters()):
        assert parameter.grad is not None
        assert parameter.grad.isfinite().all()


# --- drawing units ----------------------------------------------------------------------------------------------


def numbered(counts: list[int], padded: int) -> TextUnits:
    """Units whose one number is their place; padding holds -1."""
    mask = torch.arange(padded) < torch.tensor(counts)[:, None]
    return TextUnits(torch.arange(padded).float().expand(len(counts), -1).where(mask, -1.0)[:, :, None], mask)


def test_units_are_sampled_without_repeats_and_never_from_padding() -> None:
    units = numbered([6, 3, 1, 0], 8)
    for seed in range(50):
        torch.manual_seed(seed)
        drawn = sample_units(units, 3)
        assert drawn.mask.sum(1).tolist() == [3, 3, 1, 0]
        for row, mask, count in zip(drawn.vectors[:, :, 0], drawn.mask, [6, 3, 1, 0], strict=True):
            places = row[mask].tolist()
            assert len(set(places)) == len(places)
            assert all(0 <= place < count for place in places)


def test_units_are_sampled_uniformly() -> None:
    torch.manual_seed(0)
    units = numbered([5] * 4000, 7)
    drawn = sample_units(units, 2).vectors[:, :, 0].flatten().long()
    counts = torch.bincount(drawn, minlength=7)[:5].double() / 4000
    assert (counts - 0.4).abs().max() < 0.03  # 4 standard errors of 0.0077
    assert len(drawn) == int(torch.bincount(drawn)[:5].sum())


def test_all_units_are_taken_where_they_are_few() -> None:
    units = numbered([2, 3], 3)
    for samples in (3, 4):
        drawn = sample_units(units, samples)
        assert drawn.mask.sum(1).tolist() == [2, 3]
        for image in range(2):
            own = drawn.vectors[image][drawn.mask[image]]
            every = units.vectors[image][units.mask[image]]
            assert sorted(own.flatten().tolist()) == sorted(every.flatten().tolist())


def test_weights_are_uniform_over_units() -> None:
    mask = torch.tensor([[True, True, False, True, True], [False] * 5, [False, False, True, False, False]])
    assert uniform_weights(mask).tolist() == [[0.25, 0.25, 0, 0.25, 0.25], [0] * 5, [0, 0, 1, 0, 0]]


# --- standardized means, centered text, contrast ----------------------------------------------------------------


def grid(values: torch.Tensor) -> Quantized:
    """A grid [b d 1 1] of given vectors [b d]."""
    codes = values[:, :, None, None]
    return Quantized(codes, codes, torch.zeros(len(values), 1, 1, dtype=torch.long), {})


def sentences(vectors: torch.Tensor) -> TextFeatures:
    """One sentence an image [b t]; NaN for an image without text."""
    units = TextUnits(vectors[:, None].nan_to_num(), ~vectors[:, None].isnan().any(2))
    return TextFeatures(units, units, units)


def sentence_aligner(**settings: Any) -> TransportAligner:
    torch.manual_seed(3)
    config = {"word": 0, "phrase": 0, "sentence": 1.0, **settings}
    return TransportAligner(build(TransportAligner.Config, config, "test"), 3, 2).train()


def test_means_have_mean_0_and_variance_1_over_the_images_with_text() -> None:
    level = LevelAligner(3, 2, standardize=True, center=False).train()
    means = 1e-4 * torch.randn(6, 3, generator=torch.Generator().manual_seed(0)) + 0.01
    has_text = torch.tensor([True, True, False, True, True, True])
    found = level.standardized(means, has_text)
    torch.testing.assert_close(found[has_text].mean(0), torch.zeros(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(found[has_text].var(0, unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    without = level.standardized(means[has_text], has_text[has_text])
    torch.testing.assert_close(found[has_text], without)


def test_evaluation_uses_the_running_statistics() -> None:
    level = LevelAligner(3, 2, standardize=True, center=False).train()
    means = torch.randn(8, 3, generator=torch.Generator().manual_seed(1)) * 0.01 + 2
    for _ in range(200):
        in_training = level.standardized(means, torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(level.eval().standardized(means, None), in_training, atol=1e-3, rtol=1e-3)
    alone = level.standardized(means[:1], None)
    torch.testing.assert_close(alone, in_training[:1], atol=1e-3, rtol=1e-3)


def test_the_first_batches_set_the_running_statistics() -> None:
    """From their initial 0 and 1, statistics that move by a tenth a batch would be wrong for a hundred batches."""
    level = LevelAligner(3, 2, standardize=True, center=False).train()
    draw = torch.Generator().manual_seed(2)
    batches = [1e-3 * torch.randn(8, 3, generator=draw) + 2 for _ in range(3)]
    for batch in batches:
        level.standardized(batch, torch.ones(8, dtype=torch.bool))
    torch.testing.assert_close(level.running_mean, torch.stack(batches).mean((0, 1)))
    variances = torch.stack([batch.var(0, unbiased=False) for batch in batches])
    torch.testing.assert_close(level.running_variance, variances.mean(0))


def test_the_loss_depends_on_the_image_only_when_means_are_standardized() -> None:
    """The codes of two images differ by 1e-3: after standardizing they are far apart, before they are the same."""
    codes = torch.tensor([[1.0, 2.0, 3.0], [1.001, 1.999, 3.001], [0.999, 2.001, 2.999]])
    spread = {}
    for standardize in (True, False):
        aligner = sentence_aligner(standardize=standardize, center=False)
        network = aligner._network("sentences")
        means = network.mean.pool(codes[:, None])
        points = network.to_text(network.standardized(means, torch.ones(3, dtype=torch.bool)))
        spread[standardize] = float(points.detach().std(0).max())
    assert spread[True] > 30 * spread[False]


def test_text_is_centered_by_the_mean_unit_of_the_store() -> None:
    class Store:
        width = 2

        def __contains__(self, key: str) -> bool:
            return False

        def vectors(self, key: str) -> dict[str, Any]:
            raise KeyError(key)

        def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
            assert granularity == "sentences"
            return ["a", "b"], torch.tensor([[3.0, 0.0], [0.0, 0.5]]).numpy()

    aligner = sentence_aligner()
    aligner.load_vocabulary(Store())
    level = aligner._network("sentences")
    torch.testing.assert_close(level.text_mean, torch.tensor([0.5, 0.5]))
    torch.testing.assert_close(level.centered(torch.tensor([[0.0, 9.0]])), torch.tensor([[-0.5, 0.5]]))


def test_contrast_by_hand() -> None:
    """With one point and one unit an image, a transport cost is the cost of the pair."""
    aligner = sentence_aligner(contrast=0.5, center=False, standardize=False, sampling=False)
    codes = torch.randn(4, 3, generator=torch.Generator().manual_seed(5))
    texts = torch.randn(4, 2, generator=torch.Generator().manual_seed(6))
    texts[2] = torch.nan  # takes no part
    losses = aligner({2: grid(codes)}, sentences(texts))
    network = aligner._network("sentences")
    points = torch.nn.functional.normalize(network.to_text(network.mean(codes)), dim=1)
    kept = torch.tensor([0, 1, 3])
    cosines = points[kept] @ torch.nn.functional.normalize(texts[kept], dim=1).T
    scores = -(2 - 2 * cosines) / 0.5
    by_hand = sum(
        torch.nn.functional.cross_entropy(matrix, torch.arange(3), reduction="sum") for matrix in (scores, scores.T)
    )
    torch.testing.assert_close(losses["align/sentences_contrast"].value, by_hand / 8)
    torch.testing.assert_close(losses["align/sentences"].value, (2 - 2 * cosines.diagonal()).sum() / 4)


def test_the_plain_squared_distance() -> None:
    aligner = sentence_aligner(cost="squared", center=False, standardize=False, sampling=False)
    codes, texts = torch.randn(2, 3), 3 * torch.randn(2, 2)
    network = aligner._network("sentences")
    distance = (network.to_text(network.mean(codes)) - texts).square().sum(1).mean()
    torch.testing.assert_close(aligner({2: grid(codes)}, sentences(texts))["align/sentences"].value, distance)
