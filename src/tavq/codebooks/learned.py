"""The plain codebook: a table that the codebook loss trains."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, codebooks


@codebooks.register("learned")
class LearnedCodebook(Codebook):
    """k entries of width d, moved by the codebook loss.

    Source: VQ-VAE (van den Oord et al., 2017), eq. 1.
    """

    class Config(NamedConfig):
        """Size of the table and how it starts."""

        name: Literal["learned"] = "learned"
        entries: int = Field(1024, ge=1, le=2**20)
        width: int = Field(256, ge=1, le=4096)
        init: Literal["uniform", "features"] = "uniform"
        """`uniform` in [-1/k, 1/k] as in the public VQ-GAN code; `features`: rows drawn from the first training batch.

        The encoder's first features are far from [-1/k, 1/k], so that most uniform entries are never the nearest;
        short runs collapse onto a handful of entries and want `features`."""

    started: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.size, self.width = config.entries, config.width
        self.table = nn.Parameter(torch.empty(config.entries, config.width).uniform_(-1, 1) / config.entries)
        self.register_buffer("started", torch.tensor(config.init == "uniform"))

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table

    @torch.no_grad()
    def start(self, rows: Float[Tensor, "n d"]) -> None:
        """Takes the first features as entries, once; a feature comes twice only where there are fewer than k."""
        if bool(self.started):
            return
        n = len(rows)
        chosen = (
            torch.randperm(n, device=rows.device)
            if n >= self.size
            else torch.randint(n, (self.size,), device=rows.device)
        )
        self.table.copy_(rows[chosen[: self.size]])
        self.started.fill_(True)
