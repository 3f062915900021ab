"""The quantizer of DALL-E's and taming's Gumbel-VQ: entries drawn by a linear layer's logits."""

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
    """Each feature becomes an entry drawn from the softmax of its logits; in evaluation the likeliest, without noise.

    Source: Gumbel-softmax (Jang et al., 2017), eqs. 1-2 and §2.2 for the straight-through form; as a quantizer
    DALL-E (Ramesh et al., 2021), §2.1, and taming-transformers: a 1 × 1 convolution to the logits, KL to the uniform
    choice with weight 5e-4.
    Differs from the paper: the temperature falls by DALL-E's cosine (1 to 1/16) over `anneal_steps` of the settings;
    the public code of taming draws with noise in evaluation too.
    """

    class Config(NamedConfig):
        """The divergence's weight, and the temperature over the course of the training."""

        name: Literal["gumbel"] = "gumbel"
        divergence: float = Field(5e-4, ge=0, le=100)
        """Weight of KL(softmax(logits) ‖ uniform), which keeps entries in use."""
        hard: bool = True
        """In training too, codes are single entries (straight-through); False: the softmax's mixture of entries."""
        temperature: float = Field(1.0, ge=1e-3, le=100)
        """At the first step."""
        final_temperature: float = Field(1 / 16, ge=1e-3, le=100)
        anneal_steps: int = Field(150_000, ge=1)
        """Training steps until the final temperature, along half a cosine."""

        sharpness: float = Field(1.0, gt=0, le=1000)
        """Factor on the logits. At 1, as published, an even start is lost in the noise, and the layer's weights need
        thousands of steps to rise above it; a run of some hundred wants 10."""

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
                f"The quantizer 'gumbel' has a logit for each entry, and the codebook {codebook.name!r} has no entries "
                "of its own; use another, such as 'learned'."
            )
        self.exact = config.hard
        self.logits = nn.Linear(codebook.width, sum(sizes))
        self.register_buffer("calls", torch.zeros((), dtype=torch.int64))  # training passes, kept for resuming

    def temperature(self) -> Float[Tensor, ""]:
        """That of the training pass begun last; stays on the device, as reading it would halt a GPU."""
        share = ((self.calls - 1).clamp(min=0) / self.config.anneal_steps).clamp(max=1)
        first, final = self.config.temperature, self.config.final_temperature
        return final + (first - final) / 2 * (1 + torch.cos(math.pi * share))

    def step_schedule(self) -> None:
        self.calls += 1

    def indices(self, features: Float[Tensor, "b d h w"], codebook: Codebook) -> Int[Tensor, "b h w"]:
        b, _, h, w = features.shape
        return argmax_logits(flatten_grid(features), self.logits.weight, self.logits.bias).view(b, h, w)

    def forward(self, features: Float[Tensor, "b d h w"], codebook: Codebook, update: bool = False) -> Quantized:
        b, _, h, w = features.shape
        rows = flatten_grid(features.float())
        if update:
            codebook.init_from_features(rows.detach())
        logits, temperature = self.logits, self.temperature()
        hard, noise = self.config.hard or not self.training, self.training
        weight, bias = self.config.sharpness * logits.weight, self.config.sharpness * logits.bias
        codes, chosen, divergence = gumbel_softmax(rows, weight, bias, codebook(), temperature, hard, noise)
        indices = chosen.view(b, h, w)
        losses = {"quantizer/divergence": Loss(divergence, self.config.divergence)}
        if update:
            losses |= codebook.update(rows.detach(), chosen)
        return Quantized(unflatten_grid(codes, (b, h, w)), self.lookup(indices, codebook), indices, losses)
