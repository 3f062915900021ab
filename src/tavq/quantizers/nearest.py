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
    """Replaces each feature by the nearest entry; computed in float32 for any input.

    Source: VQ-VAE (van den Oord et al., 2017), eqs. 1-3; TA-VQ eqs. 1-2; for `entropy` MaskGIT and MAGVIT-2, see
    ops/entropy.
    Differs from the paper: squared norms are means over positions and width (as in all public code), not sums.
    """

    class Config(NamedConfig):
        """Weights of the losses, and the gradient that reaches the features."""

        name: Literal["nearest"] = "nearest"
        commitment: float = Field(0.25, ge=0, le=100)
        """ω: weight of the term that pulls features to their entries."""
        legacy: bool = False
        """Apply ω to the codebook term instead, as taming-transformers does by default; only for reproducing its
        results."""
        gradient: GradientEstimator = "straight-through"
        """How the decoder's gradient reaches the features: unchanged, or rotated and scaled (rotation trick)."""
        entropy: float = Field(0.0, ge=0, le=100)
        """Weight of the entropy loss, which is low for confident choices that use all entries; 0 is off."""
        entropy_temperature: float = Field(0.01, ge=1e-4, le=1e4)
        """Temperature of its softmax: choices are soft where squared distances differ by less than this."""

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        self.straight_through = config.gradient == "straight-through"
        self.codebook_weight, self.commitment_weight = 1.0, config.commitment
        if config.legacy:
            self.codebook_weight, self.commitment_weight = config.commitment, 1.0

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        return choose_entries(flatten_grid(features), codebook).view(b, h, w)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        if update:
            codebook.init_from_features(flatten_grid(features.detach().float()))
        return self.quantize(features, codebook, update)

    def quantize(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool) -> Quantized:
        """`forward` after `init_from_features`: quantizers that wrap this one call that hook themselves, before they
        compute a view of the entries."""
        features = features.float()
        b, _, h, w = features.shape
        indices = choose_entries(flatten_grid(features), codebook, exact=not self.training).view(b, h, w)
        entries = self.lookup(indices, codebook)
        quantized = ESTIMATORS[self.config.gradient].apply(features, entries.detach())
        losses = self._losses(features, entries, codebook)
        if update:
            losses |= codebook.update(flatten_grid(features.detach()), indices.flatten())
        return Quantized(quantized, entries, indices, losses)

    def _losses(self, features: Tensor, entries: Tensor, codebook: Codebook) -> Losses:
        losses: Losses = {}
        if entries.requires_grad:  # False for a frozen table and for one of running means, which no gradient reaches
            losses["quantizer/codebook"] = Loss(F.mse_loss(entries, features.detach()), self.codebook_weight)
        losses["quantizer/commitment"] = Loss(F.mse_loss(features, entries.detach()), self.commitment_weight)
        if self.config.entropy:
            gap = entropy_gap(*to_euclidean(flatten_grid(features), codebook), self.config.entropy_temperature)
            losses["quantizer/entropy"] = Loss(gap, self.config.entropy)
        return losses


def choose_entries(features: Float[Tensor, "n d"], codebook: Codebook, exact: bool = True) -> Int[Tensor, " n"]:
    """The index of the nearest entry of each feature by the codebook's own distance; see `find_nearest`."""
    return find_nearest(*to_euclidean(features, codebook), exact)


def to_euclidean(
    features: Float[Tensor, "n d"], codebook: Codebook
) -> tuple[Float[Tensor, "n d"], Float[Tensor, "k d"]]:
    """Features and entries whose Euclidean distances rank as the codebook's own distance does."""
    features, entries = features.float(), codebook().float()
    if codebook.distance == "cosine":  # of unit vectors the nearest has the highest cosine
        return F.normalize(features, dim=1), F.normalize(entries, dim=1)
    return features, entries
