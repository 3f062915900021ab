"""The aligner of TA-VQ: pulls codes of three levels towards words, phrases and sentences by sampled transport.

Source: TA-VQ (arXiv 2503.01261), §4.1, eqs. 4-6, and its supplement for the sample counts.
"""

from collections.abc import Mapping
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import (
    DEEP,
    FULL_TEXT,
    GRANULARITIES,
    Aligner,
    Loss,
    Losses,
    Quantized,
    TextFeatures,
    TextSource,
    TextUnits,
    aligners,
)
from tavq.ops.collective import all_gather, all_gather_with_gradient, largest, own_rows
from tavq.ops.gradients import GradientTarget, route_gradient
from tavq.ops.transport import sinkhorn

Count = Annotated[int, Field(ge=1, le=4096)]

STATISTICS_RATE = 0.1
"""How far the running statistics of the means move towards those of a batch; the first batch sets them."""

VARIANCE_FLOOR = 1e-12
"""Added to the variance of the means, which is as small as 1e-9 at the start: the usual 1e-5 would hide it."""

NEVER = -1e30
"""Score of a text that no image may be matched with."""


class MLP(nn.Sequential):
    """The paper's FNN: two layers with ReLU."""

    def __init__(self, width: int, hidden: int, out: int, last_bias: bool = True) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out, bias=last_bias))

    def pool(self, vectors: Float[Tensor, "b n _"]) -> Float[Tensor, "b _"]:
        """The mean of its outputs over positions; as the last layer is linear, it runs once, on the mean."""
        return self[2](self[1](self[0](vectors)).mean(1))


class LevelAligner(nn.Module):
    """The networks of one level: FNN_m, FNN_Σ, and the FNN that maps a sampled vector to the text's space.

    Args:
        width: d, the width of a code.
        text_width: t, the width of the text encoder's vectors.
        standardize: whether means are standardized over images; see `standardized`.
        center: whether text units are centered; see `centered`.
    """

    running_mean: Tensor
    running_variance: Tensor
    batches: Tensor
    text_mean: Tensor

    def __init__(self, width: int, text_width: int, standardize: bool, center: bool) -> None:
        super().__init__()
        self.standardize, self.center = standardize, center
        # a constant added to every mean is standardized away, so that a bias would never learn
        self.mean = MLP(width, width, width, last_bias=not standardize)
        self.variance = MLP(width, width, width)
        self.to_text = MLP(width, text_width, text_width)
        if standardize:
            self.register_buffer("running_mean", torch.zeros(width))
            self.register_buffer("running_variance", torch.ones(width))
            self.register_buffer("batches", torch.zeros(()))
        if center:
            self.register_buffer("text_mean", torch.zeros(text_width))

    def gaussian(
        self, codes: Float[Tensor, "b n d"], has_text: Bool[Tensor, " b"]
    ) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Mean and diagonal variance of an image's codes (eq. 4).

        Differs from the paper: how a grid becomes one Gaussian is unstated; here both networks act on each position
        and their outputs are averaged, the variance after a softplus. The means are standardized where the settings
        ask for it.
        """
        return self.standardized(self.mean.pool(codes), has_text), F.softplus(self.variance(codes)).mean(1)

    def standardized(self, means: Float[Tensor, "b d"], has_text: Bool[Tensor, " b"] | None) -> Float[Tensor, "b d"]:
        """Each dimension of the means with mean 0 and variance 1 over images; the means as they are if it is off.

        In training by the batch of all processes, without images that have no text, and the running statistics follow
        it; in evaluation, and where `has_text` is None, by the running statistics.

        Differs from the paper: averaged over positions the means differ by far less between images than the noise that
        is added to them, so that without this an image hardly enters the loss.
        """
        if not self.standardize:
            return means
        by_running = (means - self.running_mean) / (self.running_variance + VARIANCE_FLOOR).sqrt()
        if has_text is None or not self.training:
            return by_running
        counted = all_gather(has_text[:, None].float())[:, 0] > 0
        batch = all_gather_with_gradient(means)[counted]
        if len(batch) < 2:  # a single image has no variance
            return by_running
        mean, variance = batch.mean(0), batch.var(0, unbiased=False)
        with torch.no_grad():
            # A variance of 1e-5 would take a hundred batches to leave the 1 that it starts at.
            rate = (1 / (self.batches + 1)).clamp(min=STATISTICS_RATE)
            self.running_mean.lerp_(mean, rate)
            self.running_variance.lerp_(variance, rate)
            self.batches += 1
        return (means - mean) / (variance + VARIANCE_FLOOR).sqrt()

    def centered(self, vectors: Float[Tensor, "*b t"]) -> Float[Tensor, "*b t"]:
        """Unit vectors of text units less the mean of the store's; the vectors as they are if it is off."""
        return F.normalize(vectors, dim=-1) - self.text_mean if self.center else vectors

    def sample(
        self, codes: Float[Tensor, "b n d"], samples: int, has_text: Bool[Tensor, " b"]
    ) -> Float[Tensor, "b s t"]:
        """`samples` draws m + Σ^½ ε of each image's Gaussian, in the text's space (eq. 4)."""
        mean, variance = self.gaussian(codes, has_text)
        noise = torch.randn(mean.shape[0], samples, mean.shape[1], device=mean.device, dtype=mean.dtype)
        # at a variance that underflows to 0 the gradient of the root would be infinite
        return self.to_text(mean[:, None] + (variance + 1e-12).sqrt()[:, None] * noise)


def sample_units(units: TextUnits, samples: int) -> TextUnits:
    """Sample units of each image without replacement; all of them, and padding, if there are fewer than `samples`.

    Differs from the paper, which samples from the discrete distribution over units and does not say whether one unit
    can be sampled twice.
    """
    b, m = units.mask.shape
    count = units.mask.sum(1)
    order = units.mask.byte().argsort(dim=1, descending=True, stable=True)  # positions of units, then of padding
    order = F.pad(order, (0, max(samples - m, 0)))
    # the first steps of a Fisher-Yates shuffle: always b x samples random numbers, so that padding changes no sample
    for step, fraction in enumerate(torch.rand(samples, b, device=units.mask.device)):
        remaining = (count - step).clamp(min=1)
        other = (step + torch.minimum((fraction * remaining).long(), remaining - 1))[:, None]
        here = order[:, step : step + 1].clone()
        order[:, step : step + 1] = order.gather(1, other)
        order.scatter_(1, other, here)
    vectors = units.vectors if m else units.vectors.new_zeros(b, 1, units.vectors.shape[2])
    chosen = order[:, :samples, None].expand(-1, -1, vectors.shape[2])
    return TextUnits(vectors.gather(1, chosen), torch.arange(samples, device=count.device) < count[:, None])


def pad_to_longest(units: TextUnits) -> TextUnits:
    """The units with padding up to the longest text of all processes, so that they can be gathered."""
    m = units.mask.shape[1]
    more = largest(m, units.mask.device) - m
    return TextUnits(F.pad(units.vectors, (0, 0, 0, more)), F.pad(units.mask, (0, more)))


def uniform_weights(mask: Bool[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Equal weights for all units, with sum 1, and 0 for padding; all 0 for an image without units."""
    weights = mask.float()
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


@aligners.register("ta")
class TransportAligner(Aligner):
    """Wasserstein distance between samples of each level's codes and samples of its granularity of text.

    An image without text adds nothing; the loss is the mean over the batch. The defaults go beyond the paper where its
    literal form leaves the image out of the loss (docs/ta-vq.md): means are standardized and text is centered. The
    literal form is `standardize: false, center: false`.

    Args:
        config: the settings below.
        width: d, the width of a code.
        text_width: t, the width of the text encoder's vectors.
    """

    class Config(NamedConfig):
        """What the paper varies, and choices that it leaves open."""

        name: Literal["ta"] = "ta"
        word: float = Field(0.001, ge=0, le=1000)
        """α: weight of words on the shallowest level; 0 turns the level off."""
        phrase: float = Field(0.001, ge=0, le=1000)
        """β: weight of phrases on the middle level."""
        sentence: float = Field(0.001, ge=0, le=1000)
        """γ: weight of sentences (or of the full text) on the deep level."""
        samples: tuple[Count, Count, Count] = (4, 8, 16)
        """Samples per level, in the order of the paper's supplement: sentence, phrase, word."""
        sampling: bool = True
        """False: transport between all positions and all units (the paper's "w/o sampling"), without Gaussians."""
        multi_granularity: bool = True
        """False: align the token vectors of the full text with the deep level only (the text store then needs
        `--full-text`)."""
        gradient: GradientTarget = "encoder"
        """What the loss trains: the encoder (straight through), the chosen entries, or both."""
        cost: Literal["cosine", "squared"] = "cosine"
        """Cost of a pair: 2 - 2 cos, the squared distance of the normalized vectors, or the plain squared distance.
        The paper says squared Euclidean; the plain one gives the encoder a larger gradient."""
        standardize: bool = True
        """Standardize the means of the Gaussians over images; beyond the paper. Not used without sampling."""
        center: bool = True
        """Subtract the text store's mean unit of each granularity from its units; beyond the paper."""
        contrast: float | None = Field(None, ge=1e-3, le=100)
        """Temperature of a contrastive loss over the transport costs of all image-text pairs of the batch, which
        counts with the weight of its level; null is off. Beyond the paper."""
        epsilon: float = Field(0.05, ge=1e-6, le=10)
        """Strength of the entropy in Sinkhorn-Knopp."""
        iterations: int = Field(50, ge=1, le=10000)

        @model_validator(mode="after")
        def _check(self) -> "TransportAligner.Config":
            if not (self.sentence or (self.multi_granularity and (self.word or self.phrase))):
                raise ValueError("every weight is 0; set model.align to null to train without alignment")
            return self

    @classmethod
    def reads_full_text(cls, config: Config) -> bool:
        return not config.multi_granularity

    def __init__(self, config: Config, width: int, text_width: int) -> None:
        super().__init__()
        self.config = config
        weights = (config.word, config.phrase, config.sentence)
        if config.multi_granularity:
            parts = [(level, GRANULARITIES[level], weights[level]) for level in range(3) if weights[level] > 0]
        else:
            parts = [(DEEP, FULL_TEXT, config.sentence)]
        self.parts = parts
        self.levels = tuple(level for level, _, _ in parts)
        self.entry_levels = {granularity: level for level, granularity, _ in parts}
        self.batchwise = config.contrast is not None or (config.standardize and config.sampling)
        standardize = config.standardize and config.sampling
        center = config.center and config.multi_granularity  # a store has no mean vector of full texts
        self.networks = nn.ModuleDict(
            {
                _module_name(granularity): LevelAligner(width, text_width, standardize, center)
                for _, granularity, _ in parts
            }
        )

    def load_vocabulary(self, source: TextSource) -> None:
        """Take the mean unit vector of each granularity from the text store."""
        for _, granularity, _ in self.parts:
            network = self._network(granularity)
            if network.center:
                _, vectors = source.vocabulary(granularity)
                units = F.normalize(torch.tensor(vectors).float(), dim=1)
                if len(units):  # a store of one-word texts has no phrases
                    network.text_mean.copy_(units.mean(0))

    def _network(self, granularity: str) -> LevelAligner:
        network = self.networks[_module_name(granularity)]
        assert isinstance(network, LevelAligner)
        return network

    @property
    def gradient_targets(self) -> frozenset[str]:
        return frozenset({self.config.gradient})

    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Losses:
        losses = {}
        for level, granularity, weight in self.parts:
            points, units = self._points(levels[level], require_text(text, granularity), level)
            losses[f"align/{granularity}"] = Loss(self._transport(points, units).mean(), weight)
            if self.config.contrast is not None:
                losses[f"align/{granularity}_contrast"] = Loss(self._contrast(points, units), weight)
        return losses

    def _points(self, quantized: Quantized, units: TextUnits, level: int) -> tuple[Float[Tensor, "b s t"], TextUnits]:
        """Points of a level's codes in the text's space, and the text units they are transported to."""
        network = self._network(self.parts[self.levels.index(level)][1])
        codes = route_gradient(quantized.quantized, quantized.entries, self.config.gradient).flatten(2).transpose(1, 2)
        with torch.autocast(codes.device.type, enabled=False):
            codes = codes.float()
            if self.config.sampling:
                samples = self.config.samples[2 - level]
                points = network.sample(codes, samples, units.mask.any(1))
                units = sample_units(units, samples)
            else:
                points = network.to_text(network.mean(codes))
            return points, TextUnits(network.centered(units.vectors.float()), units.mask)

    def _transport(self, points: Float[Tensor, "b s t"], units: TextUnits) -> Float[Tensor, " b"]:
        """The Wasserstein distance of each image's points to its own units (eq. 5)."""
        with torch.autocast(points.device.type, enabled=False):
            if self.config.cost == "squared":
                cost = torch.cdist(points, units.vectors, compute_mode="donot_use_mm_for_euclid_dist").square()
            else:
                cost = 2 - 2 * F.normalize(points, dim=-1) @ F.normalize(units.vectors, dim=-1).transpose(1, 2)
            source = uniform_weights(torch.ones(points.shape[:2], dtype=torch.bool, device=points.device))
            return sinkhorn(cost, source, uniform_weights(units.mask), self.config.epsilon, self.config.iterations)

    def _contrast(self, points: Float[Tensor, "b s t"], units: TextUnits) -> Float[Tensor, ""]:
        """Cross-entropy of finding each image's text, and each text's image, in the batch of all processes.

        The score of a pair is minus its transport cost over the temperature. Images without text take no part.
        """
        assert self.config.contrast is not None
        b, units = len(points), pad_to_longest(units)
        texts = TextUnits(all_gather_with_gradient(units.vectors), all_gather(units.mask.flatten(1).float()) > 0)
        count = len(texts.mask)
        pairs = TextUnits(texts.vectors.repeat(b, 1, 1), texts.mask.repeat(b, 1))
        costs = self._transport(points.repeat_interleave(count, dim=0), pairs).view(b, count)
        present = texts.mask.any(1)
        scores = all_gather_with_gradient(-costs / self.config.contrast)
        scores = scores.masked_fill(~(present[:, None] & present[None]), NEVER)
        rows = own_rows(b)
        own = torch.arange(rows.start, rows.stop, device=points.device)
        own = own[present[own]]  # may be empty: the process still takes part in the gathered gradient
        to_text = F.cross_entropy(scores[own], own, reduction="sum")
        to_image = F.cross_entropy(scores.T[own], own, reduction="sum")
        return (to_text + to_image) / (2 * b)

    @torch.no_grad()
    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """The mean of each level's Gaussian in the text's space, normalised; all levels concatenated.

        Width e = t times the number of aligned levels; the dot product with `embed_text` is the mean cosine.
        """
        parts = []
        for level, granularity, _ in self.parts:
            network = self._network(granularity)
            codes = levels[level].quantized.flatten(2).transpose(1, 2).float()
            means = network.standardized(network.mean.pool(codes), None)
            parts.append(F.normalize(network.to_text(means), dim=-1))
        return torch.cat(parts, dim=1) / len(parts) ** 0.5

    @torch.no_grad()
    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """The normalised mean of the normalised units of each granularity; all granularities concatenated."""
        parts = []
        for _, granularity, _ in self.parts:
            units = require_text(text, granularity)
            vectors = F.normalize(self._network(granularity).centered(units.vectors.float()), dim=-1)
            parts.append(F.normalize((vectors * uniform_weights(units.mask)[:, :, None]).sum(1), dim=-1))
        return torch.cat(parts, dim=1) / len(parts) ** 0.5

    @torch.no_grad()
    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """Map each entry to the text's space like an image whose codes are all this entry."""
        if _module_name(granularity) not in self.networks:
            return None
        network = self._network(granularity)
        return network.to_text(network.standardized(network.mean(entries.float()), None))


def _module_name(granularity: str) -> str:
    """The key of a granularity in state dicts, where full text has kept its old name."""
    return "whole" if granularity == FULL_TEXT else granularity


def require_text(text: TextFeatures, granularity: str) -> TextUnits:
    """The units of a granularity, or a UsageError that says how to get them."""
    units = text[granularity]
    if units is None:
        raise UsageError(f"The text store has no {granularity!r} text; rebuild it with: tavq text DATA --full-text")
    return units
