"""The equations of the model by hand, on a few numbers, and the sizes that the papers give."""

from dataclasses import replace

import numpy as np
import ot
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor

from tavq.align.levels import MLP, LevelAligner
from tavq.align.ta import TransportAligner
from tavq.codebooks.learned import LearnedCodebook
from tavq.core.errors import UsageError
from tavq.interfaces import Loss, Quantized, TextFeatures, TextUnits, sum_losses
from tavq.losses import adaptive_weight, last_layer_gradient, reconstruction_losses
from tavq.nets.convnet import count_parameters
from tavq.quantizers.nearest import NearestQuantizer
from tavq.tokenizer import Tokenizer, TokenizerConfig

Array = NDArray[np.float64]

ONE = torch.ones(1, dtype=torch.bool)  # one image, with text


def codebook(rows: list[list[float]]) -> LearnedCodebook:
    made = LearnedCodebook(LearnedCodebook.Config(entries=len(rows), width=len(rows[0])))
    with torch.no_grad():
        made.table.copy_(torch.tensor(rows))
    return made


# --- VQ-VAE, eqs. 1-3 -------------------------------------------------------------------------------------------

FEATURES = torch.tensor([[[[0.2, 0.9]], [[0.4, 0.5]]]])  # two positions: (0.2, 0.4) and (0.9, 0.5)
ENTRIES = [[0.0, 0.0], [1.0, 1.0]]
# squared distances: 0.20 and 1.00 for the first position, 1.06 and 0.26 for the second
INDICES = [[[0, 1]]]
DISTANCE = (0.04 + 0.16 + 0.01 + 0.25) / 4  # mean over positions and width


@pytest.mark.parametrize(("legacy", "weights"), [(False, (1.0, 0.25)), (True, (0.25, 1.0))])
def test_the_losses_of_the_nearest_quantizer(legacy: bool, weights: tuple[float, float]) -> None:
    quantizer = NearestQuantizer(NearestQuantizer.Config(commitment=0.25, legacy=legacy), LearnedCodebook.Config())
    table, features = codebook(ENTRIES), FEATURES.clone().requires_grad_()
    made = quantizer(features, table)
    assert made.indices.tolist() == INDICES
    assert made.quantized.tolist() == [[[[0.0, 1.0]], [[0.0, 1.0]]]]
    assert [loss.weight for loss in made.losses.values()] == list(weights)
    assert list(made.losses) == ["quantizer/codebook", "quantizer/commitment"]
    for loss in made.losses.values():
        assert loss.value.item() == pytest.approx(DISTANCE)
    sum_losses(made.losses).backward()
    # 2 (e - f) / 4 for the entries, 2 (f - e) / 4 for the features, each with its weight
    difference = torch.tensor([[0.2, 0.4], [-0.1, -0.5]])
    torch.testing.assert_close(table.table.grad, -difference / 2 * weights[0])
    torch.testing.assert_close(features.grad, (difference / 2 * weights[1]).T[None, :, None])


def test_the_commitment_weight() -> None:
    made = NearestQuantizer(NearestQuantizer.Config(commitment=2), LearnedCodebook.Config())(
        FEATURES, codebook(ENTRIES)
    )
    assert sum_losses(made.losses).item() == pytest.approx(3 * DISTANCE)
    none = NearestQuantizer(NearestQuantizer.Config(commitment=0), LearnedCodebook.Config())
    silent = none(FEATURES, codebook(ENTRIES))
    assert sum_losses(silent.losses).item() == pytest.approx(DISTANCE)


# --- TA-VQ, eqs. 4-6 --------------------------------------------------------------------------------------------


def set_identity(network: MLP, bias: float) -> None:
    """x becomes relu(x) + bias."""
    with torch.no_grad():
        for layer in (network[0], network[2]):
            layer.weight.copy_(torch.eye(2))
            layer.bias.zero_()
        network[2].bias.fill_(bias)


def test_the_gaussian_of_an_image() -> None:
    level = LevelAligner(2, 2, standardize=False, center=False)
    set_identity(level.mean, 0.5)
    set_identity(level.variance, 0.0)
    set_identity(level.to_text, 0.0)
    mean, variance = level.gaussian(torch.tensor([[[1.0, -2.0], [3.0, 4.0]]]), ONE)
    # relu gives (1, 0) and (3, 4); softplus(0, 1, 3, 4) = 0.6931472, 1.3132617, 3.0485874, 4.0181499
    torch.testing.assert_close(mean, torch.tensor([[2.5, 2.5]]))
    torch.testing.assert_close(variance, torch.tensor([[2.1809245, 2.3556486]]))
    torch.manual_seed(0)
    drawn = level.sample(torch.tensor([[[1.0, -2.0], [3.0, 4.0]]]), 3, ONE)
    torch.manual_seed(0)
    noise = torch.randn(1, 3, 2)
    expected = 2.5 + torch.tensor([2.1809245, 2.3556486]).sqrt() * noise
    torch.testing.assert_close(drawn, expected.clamp(min=0))


def test_many_samples_have_the_moments_of_the_gaussian() -> None:
    level = LevelAligner(2, 2, standardize=False, center=False)
    set_identity(level.mean, 20.0)  # far from zero, where the relu of the last network cuts nothing
    set_identity(level.variance, 0.0)
    set_identity(level.to_text, 0.0)
    torch.manual_seed(0)
    drawn = level.sample(torch.zeros(1, 1, 2), 100_000, ONE)[0]
    assert drawn.mean(0).tolist() == pytest.approx([20.0, 20.0], abs=0.01)
    assert drawn.var(0).tolist() == pytest.approx([0.6931, 0.6931], rel=0.02)


def mlp(network: MLP, x: Array) -> Array:
    w1, b1, w2, b2 = (parameter.detach().double().numpy() for parameter in network.parameters())
    return np.maximum(x @ w1.T + b1, 0) @ w2.T + b2


def unit(x: Array) -> Array:
    return x / np.linalg.norm(x, axis=-1, keepdims=True)


def transport(points: Array, units: Array, epsilon: float, iterations: int) -> float:
    """The cost of POT's plan between equally weighted vectors."""
    cost = ((unit(points)[:, None] - unit(units)[None]) ** 2).sum(-1)
    weights = [np.full(size, 1 / size) for size in cost.shape]
    plan = ot.sinkhorn(*weights, cost, epsilon, method="sinkhorn", numItermax=iterations, stopThr=0, warn=False)
    return float((plan * cost).sum())


WIDTH, TEXT_WIDTH, IMAGES = 3, 4, 2
UNITS = {"words": (5, 3), "phrases": (2, 4), "sentences": (1, 2)}  # of each image


def aligner(**settings: object) -> TransportAligner:
    torch.manual_seed(1)
    literal = {"standardize": False, "center": False, **settings}
    made = TransportAligner(TransportAligner.Config.model_validate(literal), WIDTH, TEXT_WIDTH)
    with torch.no_grad():
        for parameter in made.parameters():
            parameter.mul_(3)  # away from the smallness of fresh layers, so that the costs differ
    return made


def levels() -> dict[int, Quantized]:
    generator = torch.Generator().manual_seed(2)
    made = {}
    for level, side in ((0, 4), (1, 3), (2, 2)):
        codes = torch.randn(IMAGES, WIDTH, side, side, generator=generator)
        made[level] = Quantized(codes, codes.clone(), torch.zeros(IMAGES, side, side, dtype=torch.long), {})
    return made


def text() -> TextFeatures:
    generator = torch.Generator().manual_seed(3)
    units = {}
    for granularity, counts in UNITS.items():
        mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        vectors = torch.randn(IMAGES, max(counts), TEXT_WIDTH, generator=generator)
        units[granularity] = TextUnits(vectors * mask[:, :, None], mask)
    return TextFeatures(**units, full_text=units["words"])


def flatten_positions(quantized: Quantized) -> Array:
    return quantized.quantized.double().flatten(2).transpose(1, 2).numpy()


def shuffled(count: int, shares: list[float]) -> list[int]:
    """The first positions of a Fisher-Yates shuffle of `count` things, one fraction of the rest a step."""
    places = list(range(count))
    for step, share in enumerate(shares[:count]):
        other = step + int(share * (count - step))
        places[step], places[other] = places[other], places[step]
    return places[: len(shares)]


def test_the_alignment_of_sampled_codes_and_units_by_hand() -> None:
    """Eqs. 4 and 5 in float64 with POT's plan, from the same random numbers, in the order sentence, phrase, word."""
    made, grids, words = aligner(samples=(3, 2, 4)), levels(), text()
    torch.manual_seed(4)
    losses = made(grids, words)
    torch.manual_seed(4)
    for level, (granularity, samples) in enumerate(zip(UNITS, (4, 2, 3), strict=True)):
        network, units = made.networks[granularity], words[granularity]
        assert isinstance(network, LevelAligner)
        assert units is not None
        noise = torch.randn(IMAGES, samples, WIDTH).double().numpy()
        shares = torch.rand(samples, IMAGES)
        values = []
        for image, rows in enumerate(flatten_positions(grids[level])):
            mean = mlp(network.mean, rows).mean(0)
            variance = np.log1p(np.exp(mlp(network.variance, rows))).mean(0)
            points = mlp(network.to_text, mean + np.sqrt(variance) * noise[image])
            standing = units.vectors[image][units.mask[image]].double().numpy()
            chosen = shuffled(len(standing), shares[:, image].tolist())
            values.append(transport(points, standing[chosen], 0.05, 50))
        assert losses[f"align/{granularity}"].value.item() == pytest.approx(np.mean(values), rel=1e-4)


def test_the_alignment_without_sampling_by_hand() -> None:
    """Every position against every unit."""
    made, grids, words = aligner(sampling=False, epsilon=0.1, iterations=20), levels(), text()
    losses = made(grids, words)
    for level, granularity in enumerate(UNITS):
        network, units = made.networks[granularity], words[granularity]
        assert isinstance(network, LevelAligner)
        assert units is not None
        values = [
            transport(
                mlp(network.to_text, mlp(network.mean, rows)),
                units.vectors[image][units.mask[image]].double().numpy(),
                0.1,
                20,
            )
            for image, rows in enumerate(flatten_positions(grids[level]))
        ]
        assert losses[f"align/{granularity}"].value.item() == pytest.approx(np.mean(values), rel=1e-4)


def test_the_objective_weights_words_phrases_and_sentences() -> None:
    """Eq. 6: α word, β phrase, γ sentence."""
    losses = aligner(word=0.5, phrase=2, sentence=7)(levels(), text())
    assert {key: loss.weight for key, loss in losses.items()} == {
        "align/words": 0.5,
        "align/phrases": 2,
        "align/sentences": 7,
    }
    values = {key: loss.value.item() for key, loss in losses.items()}
    expected = 0.5 * values["align/words"] + 2 * values["align/phrases"] + 7 * values["align/sentences"]
    assert sum_losses(losses).item() == pytest.approx(expected)


@pytest.mark.parametrize("path", ["encoder", "codebook", "both"])
def test_the_gradient_reaches_what_the_setting_says(path: str) -> None:
    made, words = aligner(gradient=path), text()
    table = codebook(torch.randn(8, WIDTH, generator=torch.Generator().manual_seed(5)).tolist())
    features = {level: quantized.quantized.clone().requires_grad_() for level, quantized in levels().items()}
    quantizer = NearestQuantizer(NearestQuantizer.Config(), LearnedCodebook.Config())
    grids = {level: quantizer(grid, table) for level, grid in features.items()}
    torch.manual_seed(6)
    sum_losses(made(grids, words)).backward()
    reaches = {"encoder": (True, False), "codebook": (False, True), "both": (True, True)}[path]
    for grid in features.values():
        assert (grid.grad is not None and bool(grid.grad.ne(0).any())) == reaches[0]
    assert (table.table.grad is not None) == reaches[1]
    if not reaches[1]:
        return
    # the entry's gradient is the sum of what its positions get, which straight-through hands to the encoder
    assert table.table.grad is not None
    expected = torch.zeros(8, WIDTH)
    for level, gradient in encoder_gradients(made, features, table, words).items():
        expected.index_add_(0, grids[level].indices.flatten(), gradient.permute(0, 2, 3, 1).reshape(-1, WIDTH))
    torch.testing.assert_close(table.table.grad, expected)


def encoder_gradients(
    made: TransportAligner, features: dict[int, Tensor], table: LearnedCodebook, words: TextFeatures
) -> dict[int, Tensor]:
    """The gradients that the setting `encoder` sends to the features, from the same samples."""
    twin = TransportAligner(made.config.model_copy(update={"gradient": "encoder"}), WIDTH, TEXT_WIDTH)
    twin.load_state_dict(made.state_dict())
    fresh = {level: grid.detach().clone().requires_grad_() for level, grid in features.items()}
    quantizer = NearestQuantizer(NearestQuantizer.Config(), LearnedCodebook.Config())
    grids = {level: quantizer(grid, table) for level, grid in fresh.items()}
    torch.manual_seed(6)
    found = torch.autograd.grad(sum_losses(twin(grids, words)), list(fresh.values()))
    return dict(zip(fresh, found, strict=True))


# --- VQ-GAN, eq. 7, and losses on pixels ------------------------------------------------------------------------


def test_the_adaptive_weight() -> None:
    pixels, adversary = torch.tensor([[3.0, 4.0]]), torch.tensor([[0.0, 2.5]])
    assert float(adaptive_weight(pixels, adversary)) == pytest.approx(5 / 2.5001)
    assert float(adaptive_weight(pixels, torch.zeros(1, 2))) == 1e4  # 5 / 1e-4, cut
    assert float(adaptive_weight(torch.zeros(1, 2), adversary)) == 0


def test_the_gradient_at_the_last_layer() -> None:
    weight = torch.tensor([[2.0]], requires_grad=True)
    images = (torch.tensor([1.0, 2.0, 3.0, 4.0]) @ torch.ones(4, 4) * weight).view(1, 1, 2, 2)
    found = last_layer_gradient(images, weight, torch.tensor([[[[1.0, 0.0], [0.0, 0.5]]]]))
    assert found.tolist() == [[15.0]]  # each number is 10 w
    assert last_layer_gradient(images, weight, torch.ones(1, 1, 2, 2)).tolist() == [[40.0]]  # the graph was kept


def test_the_pixel_losses() -> None:
    images, reference = torch.tensor([[[[1.0, -1.0], [0.5, 0.0]]]]), torch.tensor([[[[0.0, 1.0], [0.5, 0.5]]]])
    losses = reconstruction_losses(images, reference, l1=1.0, l2=4.0)
    assert losses["reconstruction/l1"].value == pytest.approx((1 + 2 + 0 + 0.5) / 4)
    assert losses["reconstruction/l2"].value == pytest.approx((1 + 4 + 0 + 0.25) / 4)
    assert [loss.weight for loss in losses.values()] == [1.0, 4.0]
    assert list(reconstruction_losses(images, reference, l1=0.0, l2=1.0)) == ["reconstruction/l2"]
    assert list(reconstruction_losses(images, reference, l1=1.0, l2=0.0)) == ["reconstruction/l1"]


def test_the_sum_of_weighted_losses() -> None:
    terms = {"a/b": Loss(torch.tensor(2.0), 0.5), "a/c": Loss(torch.tensor(3.0), 4.0)}
    assert float(sum_losses(terms)) == 13.0


# --- the whole --------------------------------------------------------------------------------------------------


def test_the_losses_of_the_hierarchy() -> None:
    settings = {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 16, "width": WIDTH},
        "quantizer": {"name": "nearest", "commitment": 0.5},
        "align": {"name": "ta", "phrase": 0},
        "hierarchy": {"weight": 0.125},
        "text_width": TEXT_WIDTH,
    }
    torch.manual_seed(0)
    tokenizer = Tokenizer(TokenizerConfig.model_validate(settings))
    output = tokenizer(torch.randn(IMAGES, 3, 16, 16), text())
    assert {key: loss.weight for key, loss in output.losses.items()} == {
        "quantizer/codebook": 1.0,
        "quantizer/commitment": 0.5,
        "quantizer/codebook/low": 0.125,
        "quantizer/commitment/low": 0.0625,
        "align/words": 0.001,
        "align/sentences": 0.001,
    }
    low = output.levels[0]
    assert low.indices.shape == (IMAGES, 16, 16)
    assert torch.equal(output.losses["quantizer/codebook/low"].value, low.losses["quantizer/codebook"].value)
    assert tokenizer.hierarchy is not None
    assert [name for name, _ in tokenizer.hierarchy.named_parameters()] == [
        "projections.low.weight",
        "projections.low.bias",
    ]


@pytest.fixture(scope="module")
def full_size() -> Tokenizer:
    config = TokenizerConfig.model_validate({"align": "ta", "text_width": 768})
    with torch.device("meta"):
        return Tokenizer(config)


def test_the_default_is_the_papers_network_of_72_million(full_size: Tokenizer) -> None:
    """VQ-GAN at f = 16: 72.1 M in generator and codebook of 1,024 entries, 256 wide."""
    counts = full_size.parameter_counts()
    assert full_size.entries == 1024
    assert full_size.codebook.width == 256
    assert counts["codebook"] == 1024 * 256
    assert round((counts["encoder"] + counts["decoder"] + counts["codebook"]) / 1e6, 1) == 72.1
    assert counts["hierarchy"] == (256 + 1) * 256 * 2  # from 256 channels at both upper stages
    # two networks d to d, one of them without its last bias, and one d to t, for each of three levels
    assert counts["aligner"] == 3 * (2 * 2 * (256 * 256 + 256) - 256 + (256 + 1) * 768 + (768 + 1) * 768)
    assert count_parameters(full_size) == sum(counts.values())


def test_the_three_grids_of_an_image_of_256_pixels(full_size: Tokenizer) -> None:
    assert full_size.factor == 16
    assert full_size.hierarchy is not None
    stages, deep = full_size.encoder(torch.empty(2, 3, 256, 256, device="meta"))
    upper = full_size.hierarchy(stages)
    assert [stage.shape[-1] for stage in stages] == [256, 128, 64, 32]
    assert {level: grid.shape for level, grid in upper.items()} == {0: (2, 256, 64, 64), 1: (2, 256, 32, 32)}
    assert deep.shape == (2, 256, 16, 16)
    assert full_size.decoder(deep).shape == (2, 3, 256, 256)


def test_the_full_text_is_aligned_with_the_deep_grid_only() -> None:
    """TA-VQ's ablation without multi-granularity."""
    made = aligner(multi_granularity=False, sentence=0.5, sampling=False)
    assert made.levels == (2,)
    losses = made(levels(), text())
    assert {key: loss.weight for key, loss in losses.items()} == {"align/full_text": 0.5}
    with pytest.raises(UsageError, match="--full-text"):
        made(levels(), replace(text(), full_text=None))
