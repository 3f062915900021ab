"""The quantizer of IBQ: the entry of the largest dot product, with gradients to all entries through its softmax."""

from typing import Literal

import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, Loss, Losses, Quantized, Quantizer, quantizers
from tavq.ops.entropy import dot_entropy_gap
from tavq.ops.grids import flatten_grid, unflatten_grid
from tavq.ops.gumbel import argmax_logits, gumbel_softmax


@quantizers.register("dot")
class DotQuantizer(Quantizer):
    """Takes the entry e with the largest z·e for each feature z; distances play no part.

    The choice is one-hot with the gradient of softmax(z·e), so that every entry and the feature learn from the decoder
    in each step (index backpropagation). The index is the argmax of the products themselves: their softmax has ties
    where they are large.

    Source: IBQ (Shi et al., 2024), §3.2, eqs. 3-5, and its public code, whose three squared distances and whose weight
    and temperature of the entropy are the defaults.
    """

    class Config(NamedConfig):
        """Weights of the losses."""

        name: Literal["dot"] = "dot"
        commitment: float = Field(0.25, ge=0, le=100)
        """Weight of the term that pulls entries to their features; the one that pulls features to entries has 1."""
        index: float = Field(1.0, ge=0, le=100)
        """Weight of the squared distance between feature and quantized vector, with gradients through the softmax."""
        entropy: float = Field(0.05, ge=0, le=100)
        """Weight of the entropy loss, which is low for confident choices that use all entries; 0 is off."""
        entropy_temperature: float = Field(0.01, ge=1e-4, le=1e4)
        """Temperature of its softmax."""

    straight_through = False
    idempotent = False

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        entries = codebook().float()
        return argmax_logits(flatten_grid(features), entries, entries.new_zeros(len(entries))).view(b, h, w)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        b, _, h, w = features.shape
        vectors = flatten_grid(features.float())
        if update:
            codebook.init_from_features(vectors.detach())
        entries = codebook().float()
        bias, temperature = entries.new_zeros(len(entries)), entries.new_ones(())
        soft, chosen, _ = gumbel_softmax(vectors, entries, bias, entries, temperature, noise=False)
        indices = chosen.view(b, h, w)
        losses = self._losses(vectors, soft, F.embedding(chosen, entries), entries)
        if update:
            losses |= codebook.update(vectors.detach(), chosen)
        return Quantized(unflatten_grid(soft, (b, h, w)), self.lookup(indices, codebook), indices, losses)

    def _losses(self, vectors: Tensor, soft: Tensor, chosen: Tensor, entries: Tensor) -> Losses:
        """The losses.

        Args:
            vectors: the features.
            soft: their entries, with gradients through the softmax.
            chosen: their entries, with gradients to them alone.
            entries: all entries.
        """
        losses: Losses = {
            "quantizer/index": Loss(F.mse_loss(soft, vectors), self.config.index),
            "quantizer/commitment": Loss(F.mse_loss(vectors, chosen.detach()), 1.0),
        }
        if chosen.requires_grad:
            losses["quantizer/codebook"] = Loss(F.mse_loss(chosen, vectors.detach()), self.config.commitment)
        if self.config.entropy:
            gap = dot_entropy_gap(vectors, entries, self.config.entropy_temperature)
            losses["quantizer/entropy"] = Loss(gap, self.config.entropy)
        return losses
