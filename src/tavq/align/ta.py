"""The aligner of TA-VQ: pulls codes of three levels towards words, phrases and sentences by sampled transport.

Source: TA-VQ (arXiv 2503.01261), §4.1, eqs. 4-6, and its supplement for the sample counts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, model_validator
from torch import Tensor, nn

from tavq.align.levels import LevelAligner, center_units, sample_points
from tavq.align.units import draw_fractions, take_units
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
from tavq.ops.waiting import constant

Count = Annotated[int, Field(ge=1, le=4096)]

NEVER = -1e30
"""Score of a text that no image may be matched with."""


def pad_to_longest(units: TextUnits) -> TextUnits:
    """The units with padding up to the longest text of all processes, so that they can be gathered."""
    m = units.mask.shape[1]
    more = largest(m, units.mask.device) - m
    return TextUnits(F.pad(units.vectors, (0, 0, 0, more)), F.pad(units.mask, (0, more)))


def uniform_weights(mask: Bool[Tensor, "*b m"]) -> Float[Tensor, "*b m"]:
    """Equal weights for all units, with sum 1, and 0 for padding; all 0 for an image without units."""
    weights = mask.float()
    return weights / weights.sum(-1, keepdim=True).clamp(min=1)


@dataclass(frozen=True)
class Matched:
    """Points of codes in the text's space and the units they are transported to, padded to the same number a level."""

    points: Float[Tensor, "l b s t"]
    weights: Float[Tensor, "l s"]  # of the points, with sum 1; 0 for padding
    vectors: Float[Tensor, "l b m t"]
    mask: Bool[Tensor, "l b m"]


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
        with torch.autocast(levels[DEEP].quantized.device.type, enabled=False):
            texts = [require_text(text, granularity) for _, granularity, _ in self.parts]
            codes = [self._codes(levels[level]) for level in self.levels]
            matched = [self._sampled(codes, texts)] if self.config.sampling else self._all_positions(codes, texts)
            found = torch.cat([self._losses(part) for part in matched]).unbind()
        losses = {}
        for (_, granularity, weight), values in zip(self.parts, found, strict=True):
            for name, value in zip(("", "_contrast"), values.unbind(), strict=False):
                losses[f"align/{granularity}{name}"] = Loss(value, weight)
        return losses

    def _codes(self, quantized: Quantized) -> Float[Tensor, "b n d"]:
        grid = route_gradient(quantized.quantized, quantized.entries, self.config.gradient)
        return grid.flatten(2).transpose(1, 2).float()

    def _sampled(self, codes: Sequence[Tensor], texts: Sequence[TextUnits]) -> Matched:
        """Samples of every level's codes and of its text."""
        networks = [self._network(granularity) for _, granularity, _ in self.parts]
        samples = [self.config.samples[2 - level] for level in self.levels]
        most, device = max(samples), codes[0].device
        noise, fractions = [], []
        for grid, units, count in zip(codes, texts, samples, strict=True):
            drawn = torch.randn(len(grid), count, grid.shape[2], device=device)
            noise.append(F.pad(drawn, (0, 0, 0, most - count)))
            fractions.append(draw_fractions(units, count))
        vectors, mask = take_units(texts, samples, fractions)
        points = sample_points(networks, codes, torch.stack(noise), mask[:, :, 0])
        weights = tuple(float(place < count) / count for count in samples for place in range(most))
        return Matched(
            points,
            constant(weights, device, torch.float32).view(-1, most),
            center_units(networks, vectors.float()),
            mask,
        )

    def _all_positions(self, codes: Sequence[Tensor], texts: Sequence[TextUnits]) -> list[Matched]:
        """Every position of a level and every unit of its text, level by level: their numbers differ too much."""
        found = []
        for grid, units, (_, granularity, _) in zip(codes, texts, self.parts, strict=True):
            network = self._network(granularity)
            points, vectors = network.to_text(network.mean(grid)), network.centered(units.vectors.float())
            weights = uniform_weights(torch.ones(1, points.shape[1], dtype=torch.bool, device=points.device))
            found.append(Matched(points[None], weights, vectors[None], units.mask[None]))
        return found

    def _losses(self, matched: Matched) -> Float[Tensor, "l _"]:
        """The mean distance of images to their own text, by level, and beside it the contrastive loss if it is on."""
        if self.config.contrast is None:
            return self._transport(matched).mean(1)[:, None]
        costs, mask = self._transport_pairs(matched)
        own = costs.diagonal(own_rows(costs.shape[1]).start, 1, 2)
        return torch.stack([own.mean(1), self._contrast(costs, mask.any(2))], 1)

    def _transport(self, matched: Matched) -> Float[Tensor, "l b"]:
        """The Wasserstein distance of each image's points to its own units (eq. 5)."""
        cost = self._cost(matched.points, matched.vectors)
        return self._sinkhorn(cost, matched.weights[:, None], uniform_weights(matched.mask))

    def _transport_pairs(self, matched: Matched) -> tuple[Float[Tensor, "l b c"], Bool[Tensor, "l c m"]]:
        """The distances of each image's points to the units of every text of all processes, and the masks of these."""
        units = TextUnits(matched.vectors.transpose(0, 1).flatten(1, 2), matched.mask.transpose(0, 1).flatten(1, 2))
        levels, b, s, _ = matched.points.shape
        if not self.config.sampling:
            units = pad_to_longest(units)
        vectors = all_gather_with_gradient(units.vectors).unflatten(1, (levels, -1)).transpose(0, 1)  # [l c m t]
        mask = (all_gather(units.mask.float()) > 0).unflatten(1, (levels, -1)).transpose(0, 1)
        cost = self._cost(matched.points.flatten(1, 2), vectors.flatten(1, 2)).view(levels, b, s, *mask.shape[1:])
        weights, target = matched.weights[:, None, None], uniform_weights(mask)[:, None]
        return self._sinkhorn(cost.transpose(2, 3), weights, target), mask

    def _cost(self, points: Float[Tensor, "*l s t"], vectors: Float[Tensor, "*l m t"]) -> Float[Tensor, "*l s m"]:
        if self.config.cost == "squared":
            return torch.cdist(points, vectors, compute_mode="donot_use_mm_for_euclid_dist").square()
        cosines = F.normalize(points, dim=-1) @ F.normalize(vectors, dim=-1).transpose(-2, -1)
        return torch.rsub(cosines, 2, alpha=2)

    def _sinkhorn(
        self, cost: Float[Tensor, "*l s m"], source: Float[Tensor, "*_ s"], target: Float[Tensor, "*_ m"]
    ) -> Float[Tensor, "*l"]:
        *shape, s, m = cost.shape
        problems = (
            cost.reshape(-1, s, m),
            source.expand(*shape, s).reshape(-1, s),
            target.expand(*shape, m).reshape(-1, m),
        )
        return sinkhorn(*problems, self.config.epsilon, self.config.iterations).view(shape)

    def _contrast(self, costs: Float[Tensor, "l b c"], present: Bool[Tensor, "l c"]) -> Float[Tensor, " l"]:
        """Cross-entropy of finding each image's text, and each text's image, in the batch of all processes.

        The score of a pair is minus its transport cost over the temperature. Images without text take no part.
        """
        assert self.config.contrast is not None
        b, rows = costs.shape[1], own_rows(costs.shape[1])
        scores = all_gather_with_gradient((-costs / self.config.contrast).transpose(0, 1)).transpose(0, 1)
        scores = scores.masked_fill(~(present[:, :, None] & present[:, None]), NEVER)
        to_text, to_image = (scores.log_softmax(axis).diagonal(0, 1, 2)[:, rows] for axis in (2, 1))
        return torch.where(present[:, rows], to_text + to_image, 0).sum(1) / (-2 * b)

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
