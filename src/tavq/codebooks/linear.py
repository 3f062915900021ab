"""The codebook of SimVQ: a frozen random table and one learned linear map."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from tavq.codebooks.tables import TableConfig
from tavq.interfaces import Codebook, codebooks


@codebooks.register("linear")
class LinearCodebook(Codebook):
    """Entries e_k = W c_k: the c_k are random and frozen, W is trained, so that every step moves every entry.

    Source: SimVQ (Zhu et al., Addressing representation collapse in vector quantized models with one linear layer,
    2024): the table reparameterised by one matrix. All parts share the map.
    Differs from the paper: W has no bias, as the equation has none (the public code adds one).
    """

    generated = True

    class Config(TableConfig):
        """Size of the tables."""

        name: Literal["linear"] = "linear"

    base: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width = config.sizes, config.width
        # standard deviation d^-1/2, as in the public code: entries have a length of about 1 for any d
        self.register_buffer("base", torch.randn(self.size, config.width).mul_(config.width**-0.5))
        self.map = nn.Linear(config.width, config.width, bias=False)

    def forward(self) -> Float[Tensor, "k d"]:
        with torch.autocast(self.base.device.type, enabled=False):
            return self.map(self.base)
