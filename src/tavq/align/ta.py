"""TA-VQ's alignment: codes of three levels drawn towards words, phrases and sentences by sampled transport.

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
    """The paper's FNN: a two-layer perceptron with ReLU."""

    def __init__(self, width: int, hidden: int, out: int) -> None:
        super().__init__(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, out))

    def pooled(self, rows: Float[Tensor, "b n _"]) -> Float[Tensor, "b _"]:
        """The mean of its outputs over positions; the last layer is linear, so it acts once on the mean."""
        return self[2](self[1](self[0](rows)).mean(1))


class LevelAligner(nn.Module):
    """The networks of one level: FNN_m, FNN_Σ, and the FNN that carries a drawn vector to the text's space."""

    def __init__(self, width: int, text_width: int) -> None:
        super().__init__()
        self.mean = MLP(width, width, width)
        self.variance = MLP(width, width, width)
        self.to_text = MLP(width, text_width, text_width)

    def gaussian(self, rows: Float[Tensor, "b n d"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b d"]]:
        """Mean and diagonal variance of an image's codes (eq. 4).

        Differs from the paper: how a grid becomes one Gaussian is unstated; here both networks act on each position
        and their outputs are averaged, the variance after a softplus.
        """
        return self.mean.pooled(rows), F.softplus(self.variance(rows)).mean(1)

    def sample(self, rows: Float[Tensor, "b n d"], samples: int) -> Float[Tensor, "b s t"]:
        """`samples` draws m + Σ^½ ε of each image's Gaussian, in the text's space (eq. 4)."""
        mean, variance = self.gaussian(rows)
        noise = torch.randn(mean.shape[0], samples, mean.shape[1], device=mean.device, dtype=mean.dtype)
        # a variance that underflows to 0 would have an infinite slope under the root
        return self.to_text(mean[:, None] + (variance + 1e-12).sqrt()[:, None] * noise)


def draw_units(units: TextUnits, samples: int) -> TextUnits:
    """`samples` units of each image drawn without replacement; all of them, and padding, where there are fewer.

    Differs from the paper, which draws from the discrete distribution over units and does not say whether a unit
    may come twice.
    """
    b, m = units.mask.shape
    count = units.mask.sum(1)
    order = units.mask.byte().argsort(dim=1, descending=True, stable=True)  # places of units that stand, then padding
    order = F.pad(order, (0, max(samples - m, 0)))
    # The first steps of a shuffle: always b x samples random numbers, so that padding never changes a draw.
    for step, share in enumerate(torch.rand(samples, b, device=units.mask.device)):
        room = (count - step).clamp(min=1)
        other = (step + torch.minimum((share * room).long(), room - 1))[:, None]
        here = order[:, step : step + 1].clone()
        order[:, step : step + 1] = order.gather(1, other)
        order.scatter_(1, other, here)
    vectors = units.vectors if m else units.vectors.new_zeros(b, 1, units.vectors.shape[2])
    chosen = order[:, :samples, None].expand(-1, -1, vectors.shape[2])
    return TextUnits(vectors.gather(1, chosen), torch.arange(samples, device=count.device) < count[:, None])


def uniform(mask: Bool[Tensor, "b m"]) -> Float[Tensor, "b m"]:
    """Equal weights over the units that stand, summing to 1 (or all 0 where none stands)."""
    weights = mask.float()
    return weights / weights.sum(1, keepdim=True).clamp(min=1)


@aligners.register("ta")
class TransportAligner(Aligner):
    """Wasserstein distance between samples of each level's codes and samples of its granularity of text.

    The cost of a pair is the squared distance of the normalised vectors, 2 - 2 cos. An image without text adds
    nothing; the loss is the mean over the batch.

    Args:
        config: the settings below.
        width: d, the width of a code.
        text_width: t, the width of the text encoder's vectors.
    """

    class Config(NamedConfig):
        """Everything the paper varies, and the choices its text leaves open."""

        name: Literal["ta"] = "ta"
        word: float = Field(0.001, ge=0, le=1000)
        """α: weight of words against the low level; 0 leaves the level out."""
        phrase: float = Field(0.001, ge=0, le=1000)
        """β: weight of phrases against the middle level."""
        sentence: float = Field(0.001, ge=0, le=1000)
        """γ: weight of sentences (or of the whole text) against the deep level."""
        samples: tuple[Count, Count, Count] = (4, 8, 16)
        """Draws a level, written as in the paper's supplement: sentence, phrase, word."""
        sampling: bool = True
        """False: transport between all positions and all units (the paper's "w/o sampling")."""
        multi_granularity: bool = True
        """False: align the token vectors of the full text with the deep level only (the text store then needs
        `--full-text`)."""
        gradient: GradientTarget = "encoder"
        """Where the loss goes: straight through to the encoder, to the chosen entries, or to both."""
        epsilon: float = Field(0.05, ge=1e-6, le=10)
        """Strength of the entropy in Sinkhorn-Knopp."""
        iterations: int = Field(50, ge=1, le=10000)

        @model_validator(mode="after")
        def _some_level(self) -> "TransportAligner.Config":
            if not (self.sentence or (self.multi_granularity and (self.word or self.phrase))):
                raise ValueError("every weight is 0; leave model.align out (null) to train without alignment")
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
        return {
            f"align/{granularity}": Loss(self._distance(levels[level], required(text, granularity), level), weight)
            for level, granularity, weight in self.parts
        }

    def _distance(self, quantized: Quantized, units: TextUnits, level: int) -> Float[Tensor, ""]:
        """Mean Wasserstein distance of a level's codes to its units (eq. 5)."""
        network = self._network(self.parts[self.levels.index(level)][1])
        rows = route_gradient(quantized.quantized, quantized.entries, self.config.gradient).flatten(2).transpose(1, 2)
        with torch.autocast(rows.device.type, enabled=False):
            rows = rows.float()
            if self.config.sampling:
                samples = self.config.samples[2 - level]
                points, units = network.sample(rows, samples), draw_units(units, samples)
            else:
                points = network.to_text(network.mean(rows))
            cost = 2 - 2 * F.normalize(points, dim=-1) @ F.normalize(units.vectors.float(), dim=-1).transpose(1, 2)
            source = uniform(torch.ones(points.shape[:2], dtype=torch.bool, device=points.device))
            target = uniform(units.mask)
            return sinkhorn(cost, source, target, self.config.epsilon, self.config.iterations).mean()

    @torch.no_grad()
    def embed_images(self, levels: Mapping[int, Quantized]) -> Float[Tensor, "b e"]:
        """The mean of each level's Gaussian in the text's space, normalised, all levels side by side.

        Width e = t times the number of aligned levels; the dot product with `embed_text` is the mean cosine.
        """
        parts = []
        for level, granularity, _ in self.parts:
            network = self._network(granularity)
            rows = levels[level].quantized.flatten(2).transpose(1, 2).float()
            parts.append(F.normalize(network.to_text(network.mean.pooled(rows)), dim=-1))
        return torch.cat(parts, dim=1) / len(parts) ** 0.5

    @torch.no_grad()
    def embed_text(self, text: TextFeatures) -> Float[Tensor, "b e"]:
        """The mean of each granularity's normalised units, normalised, all granularities side by side."""
        parts = []
        for _, granularity, _ in self.parts:
            units = required(text, granularity)
            vectors = F.normalize(units.vectors.float(), dim=-1)
            parts.append(F.normalize((vectors * uniform(units.mask)[:, :, None]).sum(1), dim=-1))
        return torch.cat(parts, dim=1) / len(parts) ** 0.5

    @torch.no_grad()
    def embed_entries(self, entries: Float[Tensor, "k d"], granularity: str) -> Float[Tensor, "k t"] | None:
        """Each entry carried to the text's space as if a whole image were made of it."""
        if _module_name(granularity) not in self.networks:
            return None
        network = self._network(granularity)
        return network.to_text(network.mean(entries.float()))


def _module_name(granularity: str) -> str:
    """The key of a granularity in state dicts, where full text has kept its old name."""
    return "whole" if granularity == FULL_TEXT else granularity


def required(text: TextFeatures, granularity: str) -> TextUnits:
    """The units of a granularity, or the error that says how to get them."""
    units = text[granularity]
    if units is None:
        raise UsageError(f"The text store holds no {granularity!r} text; rebuild it with: tavq text DATA --full-text")
    return units
