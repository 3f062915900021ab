"""The plain codebook: a table that the codebook loss trains."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor, nn

from tavq.core.config import NamedConfig
from tavq.interfaces import Codebook, codebooks
from tavq.ops.collective import drawn_rows


@codebooks.register("learned")
class LearnedCodebook(Codebook):
    """`parts` tables of entries of width d, moved by the codebook loss.

    Source: VQ-VAE (van den Oord et al., 2017), eq. 1.
    """

    class Config(NamedConfig):
        """Size of the tables and how they start."""

        name: Literal["learned"] = "learned"
        entries: int = Field(1024, ge=1, le=2**20)
        """Of each part."""
        width: int = Field(256, ge=1, le=4096)
        parts: int = Field(1, ge=1, le=64)
        """More than one for the quantizers that give several indices a position."""
        init: Literal["uniform", "features"] = "uniform"
        """`uniform` in [-1/k, 1/k] as in the public VQ-GAN code; `features`: rows drawn from the first training batch.

        The encoder's first features are far from [-1/k, 1/k], so that most uniform entries are never the nearest;
        short runs collapse onto a handful of entries and want `features`."""
        redraw_until: int = Field(0, ge=0)
        """With `features`: draw all entries anew at steps 2, 4, 8, ... up to this one, as the features move away from
        the first ones faster than a gradient can follow."""

    calls: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width = (config.entries,) * config.parts, config.width
        self.table = nn.Parameter(torch.empty(self.size, config.width).uniform_(-1, 1) / config.entries)
        self.register_buffer("calls", torch.zeros(config.parts, dtype=torch.int64))  # of `start`, kept for resuming

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table

    @torch.no_grad()
    def start(self, rows: Float[Tensor, "n d"], part: int = 0) -> None:
        """Takes features as entries where the settings ask for it; without repeats where there are k or more."""
        if self.config.init == "uniform":
            return
        self.calls[part] += 1
        calls = int(self.calls[part])
        if calls > 1 and (calls > self.config.redraw_until or calls & (calls - 1)):
            return
        self.table.split(self.sizes)[part].copy_(drawn_rows(rows, self.config.entries))
