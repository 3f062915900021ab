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
    """k entries of width d, initialised uniformly in [-1/k, 1/k].

    Source: VQ-VAE (van den Oord et al., 2017), eq. 1; initialisation as in the public VQ-GAN code.
    """

    class Config(NamedConfig):
        """Size of the table."""

        name: Literal["learned"] = "learned"
        entries: int = Field(1024, ge=1, le=2**20)
        width: int = Field(256, ge=1, le=4096)

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.size, self.width = config.entries, config.width
        self.table = nn.Parameter(torch.empty(config.entries, config.width).uniform_(-1, 1) / config.entries)

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table
