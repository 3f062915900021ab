"""One pass over a split with a small tokenizer whose metrics are known."""

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from tavq.codebooks.learned import LearnedCodebook
from tavq.core.errors import DataError, TrainingError, UsageError
from tavq.evaluation.tokenizer import _mean_unit, evaluate
from tavq.interfaces import Aligner, Batch, Codebook, Quantized, TextFeatures, TextUnits
from tavq.metrics.images import l1, ms_ssim
from tavq.nets.features.extractors import FeatureNetwork
from tavq.quantizers.nearest import NearestQuantizer


class GrayCodebook(Codebook):
    """A fixed table."""

    def __init__(self, entries: Tensor) -> None:
        super().__init__()
        self.entries, self.sizes, self.width = entries, (len(entries),), entries.shape[1]

    def forward(self) -> Tensor:
        return self.entries


class GrayTokenizer(torch.nn.Module):
    """Each 8 x 8 patch becomes one of 16 grays; entry i is (gray i, gray i squared)."""

    def __init__(self, aligner: "MeanAligner | None" = None) -> None:
        super().__init__()
        self.grays = torch.linspace(-1.1, 1, 16)
        self.aligner = aligner
        self.entries = torch.stack([self.grays, self.grays**2], dim=1)
        self.codebook = GrayCodebook(self.entries)
        self.quantizer = NearestQuantizer(NearestQuantizer.Config(), LearnedCodebook.Config())
        self.codebooks = {2: self.codebook}

    def quantize(self, images: Tensor) -> dict[int, Quantized]:
        patches = torch.nn.functional.avg_pool2d(images.mean(dim=1), 8)
        indices = (patches[..., None] - self.grays).abs().argmin(dim=-1)
        codes = self.entries[indices].permute(0, 3, 1, 2)
        return {2: Quantized(codes, codes, indices, {})}

    def decode(self, indices: Tensor) -> Tensor:
        patches = self.grays[indices][:, None].expand(-1, 3, -1, -1)
        return torch.nn.functional.interpolate(patches, scale_factor=8.0)


class MeanAligner(Aligner):
    """Embeds images and texts as the directions of their means; a text without sentences is 0."""

    levels = (2,)

    def forward(self, levels: Any, text: TextFeatures) -> Any:
        raise AssertionError("nothing is trained here")

    def embed_images(self, levels: Mapping[int, Quantized]) -> Tensor:
        return normalize(levels[2].entries.mean(dim=(2, 3)), dim=1)

    def embed_text(self, text: TextFeatures) -> Tensor:
        mask = text.sentences.mask[:, :, None]
        mean = (text.sentences.vectors * mask).sum(dim=1) / mask.sum(dim=1)  # NaN where an image has no sentence
        return mean / mean.norm(dim=1, keepdim=True)

    def embed_entries(self, entries: Tensor, granularity: str) -> None:
        return None


class Colours(FeatureNetwork):
    name = "colours"
    width = 3
    sha256 = "ab" * 32

    def stages(self, images: Tensor) -> list[Tensor]:
        return [images]


def batches(count: int = 24, size: int = 32, texts: bool = True, batch: int = 10, silent: int = 0) -> list[Batch]:
    """Images of one gray each; their sentences are the mean code of that gray, twice, and padding."""
    generator = torch.Generator().manual_seed(0)
    gray = torch.rand(count, generator=generator) * 1.8 - 0.9
    images = gray[:, None, None, None] + 0.05 * torch.randn(count, 3, size, size, generator=generator)
    images = images.clamp(-1, 1)
    made = []
    for start in range(0, count, batch):
        part = slice(start, min(start + batch, count))
        text = None
        if texts:
            codes = torch.stack([gray[part], gray[part] ** 2], dim=1)
            vectors = torch.stack([codes + 0.01, codes - 0.01, torch.full_like(codes, math.nan)], dim=1)
            mask = torch.tensor([True, True, False]).repeat(len(codes), 1)
            mask[-start % 3 :: 3, 1] = False  # every third has one sentence only
            mask[: max(0, silent - start)] = False
            units = TextUnits(torch.where(mask[:, :, None], vectors, 0), mask)
            text = TextFeatures(units, units, units)
        made.append(Batch(images[part], tuple(f"{i}.png" for i in range(part.start, part.stop)), text))
    return made


def evaluated(*arguments: Any) -> dict[str, Any]:
    """Values by key, the details and the intervals of an evaluation."""
    found = evaluate(*arguments)
    values = {metric.key: metric.value for metric in found.metrics}
    intervals = {metric.key: metric.interval for metric in found.metrics if metric.interval is not None}
    return {**values, **found.details, "intervals": intervals}


def test_everything_is_measured_in_one_pass() -> None:
    seen: list[int] = []
    tokenizer = GrayTokenizer(MeanAligner())
    result = evaluated(tokenizer, iter(batches()), [Colours()], seen.append)
    assert seen == [10, 20, 24]
    assert result["images"] == 24
    assert result["size"] == [32, 32]
    images = torch.cat([b.images for b in batches()])
    rebuilt = tokenizer.decode(tokenizer.quantize(images)[2].indices).clamp(-1, 1)
    assert result["l1"] == pytest.approx(l1(rebuilt, images).mean().item())
    used = len(tokenizer.quantize(images)[2].indices.unique())
    assert result["dead_deep"] == 16 - used
    distances = torch.cdist(tokenizer.entries.double(), tokenizer.entries.double()).fill_diagonal_(torch.inf)
    assert result["spacing_deep"] == pytest.approx(float(distances.amin(1).median()) / 2**0.5)
    assert result["scale_deep"] == pytest.approx(tokenizer.entries.square().mean().sqrt().item())
    assert result["feature_weights"] == {"colours": "ab" * 32}
    assert result["code_text_cosine"] > 0.75 > 0.5 > result["shuffled/code_text_cosine"]
    assert result["retrieval/candidates"] == 24
    assert result["probe_code_text_cosine"] > 0.95
    json.dumps(result, allow_nan=False)


class Heads(Colours):
    """Weighted colours as stages."""

    name = "heads"

    @property
    def heads(self) -> list[Tensor]:
        return [torch.tensor([1.0, 2.0, 3.0])]

    def stages(self, images: Tensor) -> list[Tensor]:
        return [images]


def test_large_images_and_learned_distances_have_their_metrics() -> None:
    tokenizer, large = GrayTokenizer(), batches(5, size=176, texts=False, batch=2)
    result = evaluated(tokenizer, large, [Colours(), Heads()])
    images = torch.cat([batch.images for batch in large])
    rebuilt = tokenizer.decode(tokenizer.quantize(images)[2].indices).clamp(-1, 1)
    assert result["ms_ssim"] == pytest.approx(ms_ssim(rebuilt, images).mean().item())
    squares = (normalize(rebuilt, dim=1) - normalize(images, dim=1)).square().mean(dim=(2, 3))
    expected = (squares * torch.tensor([1.0, 2.0, 3.0])).sum(dim=1).mean()
    assert result["distance_heads"] == pytest.approx(float(expected), rel=1e-4)
    assert evaluate(tokenizer, large, [Colours()])["kid_colours"].standard_error > 0
    assert "fd_heads" not in result
    assert result["feature_weights"].keys() == {"colours", "distance_heads"}
    assert evaluated(tokenizer, batches(5, texts=False))["ms_ssim"] is None


def test_reconstructions_are_clamped() -> None:
    black = [Batch(torch.full((1, 3, 32, 32), -1.0), ("a",))]  # the nearest gray is -1.1 or -0.96
    tokenizer = GrayTokenizer()
    tokenizer.grays = torch.cat([torch.tensor([-1.01]), torch.full((15,), 5.0)])
    assert evaluated(tokenizer, black)["psnr"] == pytest.approx(100)


def test_the_loaders_order_does_not_matter() -> None:
    tokenizer = GrayTokenizer(MeanAligner())
    forward, backward = evaluated(tokenizer, batches()), evaluated(tokenizer, batches()[::-1])
    for key in ("psnr", "ssim", "code_text_cosine", "probe_code_text_cosine"):
        assert forward[key] == pytest.approx(backward[key], rel=1e-9), key
    ranked = [key for key in forward if key.startswith("probe_retrieval/")]
    assert len(ranked) == 9
    assert [forward[key] for key in ranked] == [backward[key] for key in ranked]


def test_without_text_or_aligner_values_are_none_not_nan() -> None:
    silent = evaluated(GrayTokenizer(MeanAligner()), batches(texts=False))
    assert [silent[key] for key in ("code_text_cosine", "code_text_gap", "probe_code_text_cosine")] == [None] * 3
    assert not [key for key in silent if "retrieval" in key]
    assert silent["images_with_text"] == 0
    plain = evaluated(GrayTokenizer(), batches())
    assert plain["code_text_cosine"] is None
    assert plain["probe_code_text_cosine"] > 0.95
    nothing = evaluated(GrayTokenizer(MeanAligner()), [], [Colours()])
    assert nothing["images"] == 0
    assert nothing["psnr"] is None
    for result in (silent, plain, nothing):
        json.dumps(result, allow_nan=False)


def test_images_without_sentences_do_not_count_as_text() -> None:
    result = evaluated(GrayTokenizer(MeanAligner()), batches(silent=5))
    assert result["images_with_text"] == 19
    assert result["retrieval/candidates"] == 19
    json.dumps(result, allow_nan=False)
    whole = batches(batch=24)[0]
    units = whole.text.sentences
    rest = TextUnits(units.vectors[5:], units.mask[5:])
    speaking = Batch(whole.images[5:], whole.keys[5:], TextFeatures(rest, rest, rest))
    alone = evaluated(GrayTokenizer(MeanAligner()), [speaking])
    for key in ("code_text_cosine", "shuffled/code_text_cosine", "probe_code_text_cosine"):
        assert result[key] == pytest.approx(alone[key], abs=1e-6), key


def test_sizes_must_agree() -> None:
    with pytest.raises(UsageError, match=r"got \(32, 32\) and \(40, 40\)"):
        evaluated(GrayTokenizer(), [*batches(10), *batches(10, size=40)])


def test_padding_does_not_count_in_a_mean_sentence() -> None:
    vectors = torch.tensor([[[2.0, 4.0], [4.0, 0.0], [math.nan, 9.0]], [[5.0, 6.0], [9.0, 9.0], [9.0, 9.0]]])
    mask = torch.tensor([[True, True, False], [True, False, False]])
    assert _mean_unit(TextUnits(vectors, mask)).tolist() == [[3.0, 2.0], [5.0, 6.0]]


def test_a_broken_tokenizer_is_named_as_such() -> None:
    tokenizer = GrayTokenizer()
    tokenizer.grays = torch.full((16,), math.nan)
    with pytest.raises(TrainingError, match=r"reconstructions are not finite.*earlier checkpoint"):
        evaluated(tokenizer, batches(texts=False))
    aligned = GrayTokenizer(MeanAligner())
    aligned.entries = torch.full((16, 2), math.nan)
    with pytest.raises(TrainingError, match="aligned codes are not finite"):
        evaluated(aligned, batches())


def test_every_value_that_has_an_interval_lies_in_it() -> None:
    result = evaluated(GrayTokenizer(MeanAligner()), batches(200), [Colours()])
    ends = result["intervals"]
    named = {"psnr", "ssim", "l1", "l2", "perplexity_deep", "code_text_cosine", "shuffled/code_text_cosine"}
    named |= {"code_text_gap"}
    recalls = [f"{way}/recall@{k}" for way in ("image_to_text", "text_to_image") for k in (1, 5, 10)]
    named |= {f"{space}retrieval/{recall}" for space in ("", "probe_") for recall in recalls}
    relations = {"probe_word_code_mse", "random_position/probe_word_code_mse"}
    assert ends.keys() == named | relations | {"probe_code_text_cosine"}
    for name, (low, high) in ends.items():
        assert low <= result[name] <= high, name


def test_intervals_are_over_images_not_batches() -> None:
    tokenizer = GrayTokenizer(MeanAligner())
    whole = evaluated(tokenizer, batches(200, batch=200))
    images = torch.cat([b.images for b in batches(200)])
    values = l1(tokenizer.decode(tokenizer.quantize(images)[2].indices).clamp(-1, 1), images)
    low, high = whole["intervals"]["l1"]
    assert high - low == pytest.approx(2 * 1.96 * values.std().item() / 200**0.5, rel=0.1)
    for batch in (7, 64):
        parts = evaluated(tokenizer, batches(200, batch=batch))
        assert parts["intervals"]["l1"] == pytest.approx([low, high], rel=1e-9)
    small = evaluated(tokenizer, batches(1))
    assert small["intervals"] == {}


def test_an_image_that_comes_twice_is_refused() -> None:
    made = batches()
    with pytest.raises(DataError, match=r"34 images were measured and 24 of them differ by key"):
        evaluated(GrayTokenizer(), [*made, made[0]])


def test_the_pixel_hash_of_the_protocol_does_not_depend_on_order() -> None:
    protocols = [
        evaluated(GrayTokenizer(), made)["protocol"] for made in (batches(), batches()[::-1], batches(batch=1))
    ]
    assert protocols[0] == protocols[1] == protocols[2]
    assert protocols[0]["images"]["count"] == 24
    assert protocols[0]["reconstructions"] == {"range": [-1, 1], "clamped": True, "rounded_to_8_bits": False}
    assert protocols[0]["intervals"]["resamples"] == 1000
    changed = batches()
    changed[1].images[3, 0, 0, 0] += 2 / 255  # one byte of one image
    assert evaluated(GrayTokenizer(), changed)["protocol"]["images"]["sha256"] != protocols[0]["images"]["sha256"]
    names = [replace(batch, keys=tuple(f"other/{key}" for key in batch.keys)) for batch in batches()]
    assert evaluated(GrayTokenizer(), names)["protocol"]["images"]["sha256"] != protocols[0]["images"]["sha256"]
