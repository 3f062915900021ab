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
    TextUnits,
    aligners,
)
from tavq.ops.gradients import GradientTarget, route_gradient
from tavq.ops.transport import sinkhorn

Count = Annotated[int, Field(ge=1, le=4096)]


class MLP(nn.Sequential):
    """The paper's FNN: two layers with ReLU."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def pool(self, vectors: Float[Tensor, "b n _"]) -> Float[Tensor, "b _"]:
        """The mean of its outputs over positions; as the last layer is linear, it runs once, on the mean."""
        return self[2](self[1](self[0](vectors)).mean(1))


class LevelAligner(nn.Module):
    """The networks of one level: FNN_m, FNN_Σ, and the FNN that maps a sampled vector to the text's space."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.mean = MLP(width, width, width)
        self.variance = MLP(width, width, width)
        self.to_text = MLP(width, text_width, text_width)

    def gaussian(self, codes: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Mean and diagonal variance of an image's codes (eq. 4).

        Differs from the paper: it does not say how a grid becomes one Gaussian. Here both networks run at each position
        and their outputs are averaged, the variance after a softplus.
        """
        return self.mean.pool(codes), F.softplus(self.variance(codes)).mean(1)

    def sample(self, codes: Float[Tensor, "b n d"], samples: int) -> Float[Tensor, "b s t"]:
        """Sample m + Σ^½ ε from each image's Gaussian, mapped to the text's space (eq. 4)."""
        mean, variance = self.gaussian(codes)
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


def uniform_weights(mask: Bool[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Equal weights for all units, with sum 1, and 0 for padding; all 0 for an image without units."""
    weights = mask.float()
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


@aligners.register("ta")
class TransportAligner(Aligner):
    """Wasserstein distance between samples of each level's codes and samples of its granularity of text.

    The cost of a pair is the squared distance of the normalised vectors, 2 - 2 cos. The loss is the mean over the
    batch, to which images without text add 0.

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
        """False: transport between all positions and all units (the paper's "w/o sampling")."""
        multi_granularity: bool = True
        """False: align the token vectors of the full text with the deep level only (the text store then needs
        `--full-text`)."""
        gradient: GradientTarget = "encoder"
        """What the loss trains: the encoder (straight through), the chosen entries, or both."""
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
        self.networks = nn.ModuleDict(
            {_module_name(granularity): LevelAligner(width, text_width) for _, granularity, _ in parts}
        )

    def _network(self, granularity: str) -> LevelAligner:
        network = self.networks[_module_name(granularity)]
        assert isinstance(network, LevelAligner)
        return network

    def forward(self, levels: Mapping[int, Quantized], text: TextFeatures) -> Losses:
        losses = {}
        for level, granularity, weight in self.parts:
            distance = self._distance(levels[level], require_text(text, granularity), level, granularity)
            losses[f"align/{granularity}"] = Loss(distance, weight)
        return losses

    def _distance(self, quantized: Quantized, units: TextUnits, level: int, granularity: str) -> Float[Tensor, ""]:
        """Mean Wasserstein distance between the codes of a level and the units of its granularity (eq. 5)."""
        network = self._network(granularity)
        grid = route_gradient(quantized.quantized, quantized.entries, self.config.gradient)
        codes = grid.flatten(2).transpose(1, 2)
        with torch.autocast(codes.device.type, enabled=False):
            codes = codes.float()
            if self.config.sampling:
                samples = self.config.samples[2 - level]
                points, units = network.sample(codes, samples), sample_units(units, samples)
            else:
                points = network.to_text(network.mean(codes))
            cost = 2 - 2 * F.normalize(points, dim=-1) @ F.normalize(units.vectors.float(), dim=-1).transpose(1, 2)
            source = uniform_weights(torch.ones(points.shape[:2], dtype=torch.bool, device=points.device))
            target = uniform_weights(units.mask)
            return sinkhorn(cost, source, target, self.config.epsilon, self.config.iterations).mean()

    @torch.no_grad()
    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """The mean of each level's Gaussian in the text's space, normalised; all levels concatenated.

        Width e = t times the number of aligned levels; the dot product with `embed_text` is the mean cosine.
        """
        parts = []
        for level, granularity, _ in self.parts:
            network = self._network(granularity)
            codes = levels[level].quantized.flatten(2).transpose(1, 2).float()
            parts.append(F.normalize(network.to_text(network.mean.pool(codes)), dim=-1))
        return torch.cat(parts, dim=1) / len(parts) ** 0.5

    @torch.no_grad()
    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """The normalised mean of the normalised units of each granularity; all granularities concatenated."""
        parts = []
        for _, granularity, _ in self.parts:
            units = require_text(text, granularity)
            vectors = F.normalize(units.vectors.float(), dim=-1)
            parts.append(F.normalize((vectors * uniform_weights(units.mask)[:, :, None]).sum(1), dim=-1))
        return torch.cat(parts, dim=1) / len(parts) ** 0.5

    @torch.no_grad()
    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """Map each entry to the text's space like an image whose codes are all this entry."""
        if _module_name(granularity) not in self.networks:
            return None
        network = self._network(granularity)
        return network.to_text(network.mean(entries.float()))


def _module_name(granularity: str) -> str:
    """The key of a granularity in state dicts, where full text has kept its old name."""
    return "whole" if granularity == FULL_TEXT else granularity


def require_text(text: TextFeatures, granularity: str) -> TextUnits:
    """The units of a granularity, or a UsageError that says how to get them."""
    units = text[granularity]
    if units is None:
        raise UsageError(f"The text store has no {granularity!r} text; rebuild it with: tavq text DATA --full-text")
    return units
