"""The plain codebook: a table that the codebook loss trains."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tavq.codebooks.tables import StartedConfig, fresh, replaced, restarted, started
from tavq.interfaces import Codebook, Losses, codebooks
from tavq.ops.collective import count_indices

DECAY = 0.99
"""Of the running counts that a restart looks at."""


@codebooks.register("learned")
class LearnedCodebook(Codebook):
    """`parts` tables of entries of width d, moved by the codebook loss.

    Source: VQ-VAE (van den Oord et al., 2017), eq. 1.
    """

    class Config(StartedConfig):
        """Size of the tables, how they start, and what becomes of unused entries."""

        name: Literal["learned"] = "learned"

    calls: Tensor
    counts: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width = config.sizes, config.width
        self.table = nn.Parameter(fresh(config))
        self.register_buffer("calls", torch.zeros(config.parts, dtype=torch.int64))  # calls of init_from_features
        if config.restart > 0:
            self.register_buffer("counts", torch.ones(self.size))

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table.view_as(self.table)  # keeps its numbers when `update` exchanges those of the parameter

    def init_from_features(self, rows: Float[Tensor, "n d"], part: int = 0) -> None:
        """Takes features as entries where the settings ask for it."""
        entries = started(self.config, self.calls, part, rows)
        if entries is not None:  # through `data`: what other parts keep for backward has not changed
            self.table.data[self.config.rows_of(part)] = entries

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        """Restarts unused entries where the settings ask for it."""
        if self.config.restart == 0:
            return {}
        place = self.config.rows_of(part)
        running = self.counts[place].lerp_(count_indices(indices, self.config.entries), 1 - DECAY)
        found = restarted(running, self.config.restart, rows)
        if found is not None:
            running[found[0]] = self.config.restart
            self.table.data = replaced(self.table, place.start + found[0], found[1])
        return {}
