"""The plain codebook: a table that the codebook loss trains."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from tavq.codebooks.tables import (
    InitConfig,
    init_table,
    keep_initial_entries,
    replace_rows,
    sample_initial_entries,
    sample_restarts,
)
from tavq.interfaces import Codebook, Losses, codebooks
from tavq.ops.collective import count_indices
from tavq.ops.waiting import HostCounts

DECAY = 0.99
"""Of the running counts that decide about restarts."""


@codebooks.register("learned")
class LearnedCodebook(Codebook):
    """`parts` tables of entries of width d, trained by the codebook loss.

    Source: VQ-VAE (van den Oord et al., 2017), eq. 1.
    """

    class Config(InitConfig):
        """Size of the tables, their initial values, and restarts of unused entries."""

        name: Literal["learned"] = "learned"

    calls: Tensor
    counts: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width = config.sizes, config.width
        self.table = nn.Parameter(init_table(config))
        # calls of init_from_features; a buffer, so that a resumed run continues to count
        self.register_buffer("calls", torch.zeros(config.parts, dtype=torch.int64))
        self.known_calls = HostCounts()
        if config.restart > 0:
            self.register_buffer("counts", torch.ones(self.size))

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table.view_as(self.table)  # keeps its values when `update` exchanges those of the parameter

    def keep_entries(self) -> None:
        keep_initial_entries(self.config, self.calls)

    def init_from_features(self, features: Float[Tensor, "n d"], part: int = 0) -> None:
        entries = sample_initial_entries(self.config, self.calls, self.known_calls, part, features)
        if entries is not None:  # through `data`, so that autograd does not see a change of what other parts saved
            self.table.data[self.config.part_slice(part)] = entries

    @torch.no_grad()
    def update(self, features: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        """Restart unused entries, if the settings say so."""
        if self.config.restart == 0:
            return {}
        rows = self.config.part_slice(part)
        counts = self.counts[rows].lerp_(count_indices(indices, self.config.entries), 1 - DECAY)
        restarts = sample_restarts(counts, self.config.restart, features)
        if restarts is not None:
            counts.masked_fill_(restarts.restarted, self.config.restart)
            self.table.data = replace_rows(self.table, rows, restarts.put_into(self.table[rows]))
        return {}
