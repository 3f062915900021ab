"""The quantizer of VQ-VAE and VQ-GAN: the nearest entry, with a straight-through gradient."""

from typing import Any, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, Loss, Losses, Quantized, Quantizer, as_grid, as_rows, quantizers
from tavq.ops.nearest import nearest


class StraightThrough(torch.autograd.Function):
    """The entries in value, the features in gradient.

    `features + (entries - features).detach()` has the same gradient but rounds: decoding the indices would then
    differ from the reconstruction in the last bits.
    """

    @staticmethod
    def forward(ctx: Any, features: Tensor, entries: Tensor) -> Tensor:
        return entries.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Tensor, None]:
        return gradients[0], None


@quantizers.register("nearest")
class NearestQuantizer(Quantizer):
    """Each feature becomes the entry at the least Euclidean distance; computed in fp32 whatever the input.

    Source: VQ-VAE (van den Oord et al., 2017), eqs. 1-3; TA-VQ eqs. 1-2.
    Differs from the paper: squared norms are means over positions and width (as in all public code), not sums.
    """

    class Config(NamedConfig):
        """Weight of the commitment term, and the swapped form of one public release."""

        name: Literal["nearest"] = "nearest"
        commitment: float = Field(0.25, ge=0, le=100)
        """ω of the objective: how strongly features are held to their entries."""
        legacy: bool = False
        """Apply ω to the codebook term instead, as taming-transformers does unless told otherwise; only to
        reproduce its numbers."""

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        weights = (1.0, config.commitment)
        self.codebook_weight, self.commitment_weight = weights[::-1] if config.legacy else weights

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        return choose(as_rows(features), codebook).view(b, h, w)

    def lookup(self, indices: Int[Tensor, "b h w"], codebook: Codebook) -> Float[Tensor, "b d h w"]:
        return as_grid(F.embedding(indices.flatten(), codebook()), indices.shape)

    def alone(self, codebook: Codebook) -> Float[Tensor, "k d"]:
        return codebook()

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, learn: bool = False) -> Quantized:
        features = features.float()
        rows = as_rows(features.detach())
        if learn:
            codebook.start(rows)
        indices = self.indices(features, codebook)
        entries = self.lookup(indices, codebook)
        codes = StraightThrough.apply(features, entries.detach())
        losses: Losses = {}
        if entries.requires_grad:  # a table that is frozen, or moved by running means, gains nothing from it
            losses["quantizer/codebook"] = Loss(F.mse_loss(entries, features.detach()), self.codebook_weight)
        losses["quantizer/commitment"] = Loss(F.mse_loss(features, entries.detach()), self.commitment_weight)
        if learn:
            losses |= codebook.learn(rows, indices.flatten())
        return Quantized(codes, entries, indices, losses)


def choose(rows: Float[Tensor, "n d"], codebook: Codebook) -> Int[Tensor, " n"]:
    """The nearest entry of each row, by the codebook's own distance."""
    rows, entries = rows.float(), codebook().float()
    if codebook.distance == "cosine":  # of unit vectors the nearest has the highest cosine
        rows, entries = F.normalize(rows, dim=1), F.normalize(entries, dim=1)
    return nearest(rows, entries)
