"""The Gumbel-softmax quantizer of DALL-E and of taming's Gumbel-VQ: entries sampled from the logits of a layer."""

import math
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.core.errors import UsageError
from tavq.interfaces import Codebook, Loss, Quantized, Quantizer, quantizers
from tavq.ops.grids import flatten_grid, unflatten_grid
from tavq.ops.gumbel import argmax_logits, gumbel_softmax


@quantizers.register("gumbel")
class GumbelQuantizer(Quantizer):
    """Samples an entry for each feature from the softmax of its logits; in evaluation takes the most likely entry.

    Source: Gumbel-softmax (Jang et al., 2017), eqs. 1-2 and §2.2 for the straight-through form; as a quantizer
    DALL-E (Ramesh et al., 2021), §2.1, and taming-transformers: a 1 × 1 convolution to the logits, KL to the uniform
    choice with weight 5e-4 by default of its layer and 1e-8 in its model. The copy of it behind VQCT's table trains
    with mixtures: `divergence: 1e-8, hard: false`.
    Differs from the paper: the temperature follows DALL-E's cosine (1 to 1/16) over `anneal_steps`; the public code of
    taming samples in evaluation too.
    """

    class Config(NamedConfig):
        """Weight of the divergence, and the temperature schedule."""

        name: Literal["gumbel"] = "gumbel"
        divergence: float = Field(5e-4, ge=0, le=100)
        """Weight of KL(softmax(logits) ‖ uniform), which keeps all entries in use."""
        hard: bool = True
        """Use single entries in training too (straight-through); false: mixtures of entries weighted by softmax."""
        temperature: float = Field(1.0, ge=1e-3, le=100)
        """At the first step."""
        final_temperature: float = Field(1 / 16, ge=1e-3, le=100)
        anneal_steps: int = Field(150_000, ge=1)
        """Training steps until the final temperature, along half a cosine."""
        sharpness: float = Field(1.0, gt=0, le=1000)
        """Factor on the logits. At 1, as published, initial logits are lost in the noise, and the layer needs thousands
        of steps to rise above it; use 10 for runs of a few hundred steps."""

    straight_through = False
    idempotent = False
    order_sensitive = True
    stochastic = True
    calls: Tensor

    def __init__(self, config: Config, codebook: Any) -> None:
        super().__init__(config, codebook)
        sizes = getattr(codebook, "sizes", None)
        if sizes is None:
            raise UsageError(
                f"The quantizer 'gumbel' needs a table of entries, one logit each, and {codebook.name!r} has none; "
                "use another codebook, such as 'learned'."
            )
        self.exact = config.hard
        self.logits = nn.Linear(codebook.width, sum(sizes))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))  # training steps; a buffer, for resumed runs

    def temperature(self) -> Float[Tensor, ""]:
        """The temperature of the current step; a tensor on the device, as reading it would make a GPU wait."""
        progress = ((self.calls - 1).clamp(min=0) / self.config.anneal_steps).clamp(max=1)
        first, final = self.config.temperature, self.config.final_temperature
        return final + (first - final) / 2 * (1 + torch.cos(math.pi * progress))

    def step_schedule(self) -> None:
        self.calls += 1

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        return argmax_logits(flatten_grid(features), self.logits.weight, self.logits.bias).view(b, h, w)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        b, _, h, w = features.shape
        vectors = flatten_grid(features.float())
        if update:
            codebook.init_from_features(vectors.detach())
        hard, noise = self.config.hard or not self.training, self.training
        weight, bias = self.config.sharpness * self.logits.weight, self.config.sharpness * self.logits.bias
        temperature = self.temperature()
        quantized, chosen, divergence = gumbel_softmax(vectors, weight, bias, codebook(), temperature, hard, noise)
        indices = chosen.view(b, h, w)
        losses = {"quantizer/divergence": Loss(divergence, self.config.divergence)}
        if update:
            losses |= codebook.update(vectors.detach(), chosen)
        return Quantized(unflatten_grid(quantized, (b, h, w)), self.lookup(indices, codebook), indices, losses)
