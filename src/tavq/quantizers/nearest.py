"""The quantizer of VQ-VAE and VQ-GAN: the nearest entry, with a straight-through gradient."""

from typing import Any, Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, Loss, Losses, Quantized, Quantizer, quantizers
from tavq.ops.entropy import entropy_gap
from tavq.ops.gradients import ESTIMATORS, GradientEstimator
from tavq.ops.grids import flatten_grid
from tavq.ops.nearest_entry import find_nearest


@quantizers.register("nearest")
class NearestQuantizer(Quantizer):
    """Each feature becomes the entry at the least Euclidean distance; computed in fp32 whatever the input.

    Source: VQ-VAE (van den Oord et al., 2017), eqs. 1-3; TA-VQ eqs. 1-2; for `entropy` MaskGIT and MAGVIT-2, see
    ops/entropy.
    Differs from the paper: squared norms are means over positions and width (as in all public code), not sums.
    """

    class Config(NamedConfig):
        """Weights of the terms, the gradient of the codes, and the swapped form of one public release."""

        name: Literal["nearest"] = "nearest"
        commitment: float = Field(0.25, ge=0, le=100)
        """ω of the objective: how strongly features are held to their entries."""
        legacy: bool = False
        """Apply ω to the codebook term instead, as taming-transformers does unless told otherwise; only to
        reproduce its numbers."""
        gradient: GradientEstimator = "straight-through"
        """How the decoder's gradient reaches the features: as it is, or turned and scaled as the features are."""
        entropy: float = Field(0.0, ge=0, le=100)
        """Weight of the entropy term, which asks for confident choices that use all entries; 0 leaves it out."""
        entropy_temperature: float = Field(0.01, ge=1e-4, le=1e4)
        """A choice is soft where squared distances differ by less than this."""

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        weights = (1.0, config.commitment)
        self.straight_through = config.gradient == "straight-through"
        self.codebook_weight, self.commitment_weight = weights[::-1] if config.legacy else weights

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        return choose(flatten_grid(features), codebook).view(b, h, w)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        if update:
            codebook.init_from_features(flatten_grid(features.detach().float()))
        return self.quantize(features, codebook, update)

    def quantize(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool) -> Quantized:
        """`forward` for a codebook that was shown the features already: quantizers that wrap it start it themselves,
        before they compute a view of its entries."""
        features = features.float()
        indices = self.indices(features, codebook)
        entries = self.lookup(indices, codebook)
        codes = ESTIMATORS[self.config.gradient].apply(features, entries.detach())
        losses = self._losses(features, entries, codebook)
        if update:
            losses |= codebook.update(flatten_grid(features.detach()), indices.flatten())
        return Quantized(codes, entries, indices, losses)

    def _losses(self, features: Tensor, entries: Tensor, codebook: Codebook) -> Losses:
        losses: Losses = {}
        if entries.requires_grad:  # a table that is frozen, or moved by running means, gains nothing from it
            losses["quantizer/codebook"] = Loss(F.mse_loss(entries, features.detach()), self.codebook_weight)
        losses["quantizer/commitment"] = Loss(F.mse_loss(features, entries.detach()), self.commitment_weight)
        if self.config.entropy:
            gap = entropy_gap(*comparable(flatten_grid(features), codebook), self.config.entropy_temperature)
            losses["quantizer/entropy"] = Loss(gap, self.config.entropy)
        return losses


def choose(rows: Float[Tensor, "n d"], codebook: Codebook) -> Int[Tensor, " n"]:
    """The nearest entry of each row, by the codebook's own distance."""
    return find_nearest(*comparable(rows, codebook))


def comparable(rows: Float[Tensor, "n d"], codebook: Codebook) -> tuple[Float[Tensor, "n d"], Float[Tensor, "k d"]]:
    """Rows and entries whose Euclidean distances rank as the codebook's own distance does."""
    rows, entries = rows.float(), codebook().float()
    if codebook.distance == "cosine":  # of unit vectors the nearest has the highest cosine
        return F.normalize(rows, dim=1), F.normalize(entries, dim=1)
    return rows, entries
