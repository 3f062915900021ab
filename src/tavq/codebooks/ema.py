"""The EMA codebook: each entry follows the running mean of the features that choose it."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.codebooks.tables import (
    InitConfig,
    init_table,
    keep_initial_entries,
    replace_rows,
    sample_initial_entries,
    sample_restarts,
)
from tavq.interfaces import Codebook, Losses, codebooks
from tavq.ops.collective import count_indices, sum_by_index
from tavq.ops.waiting import HostCounts

SMOOTHING = 1e-5
"""Added to every count, as in the public VQ-VAE code, so that the count of an unused entry never reaches 0."""


@codebooks.register("ema")
class EMACodebook(Codebook):
    """A table without a gradient: N_k ← γ N_k + (1 - γ) n_k, m_k ← γ m_k + (1 - γ) Σ features, e_k = m_k / N_k.

    Source: VQ-VAE (van den Oord et al., 2017), appendix A.1.
    Differs from the paper: counts have Laplace smoothing, as in the authors' public code, and start at 1.
    """

    class Config(InitConfig):
        """Size of the tables, their initial values, and the decay of the running means."""

        name: Literal["ema"] = "ema"
        decay: float = Field(0.99, ge=0, lt=1)
        """γ of the running counts and sums."""

    calls: Tensor
    table: Tensor
    counts: Tensor
    sums: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width = config.sizes, config.width
        self.register_buffer("table", init_table(config))
        self.register_buffer("counts", torch.ones(self.size))
        self.register_buffer("sums", self.table.clone())
        # calls of init_from_features; a buffer, so that a resumed run continues to count
        self.register_buffer("calls", torch.zeros(config.parts, dtype=torch.int64))
        self.known_calls = HostCounts()

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table

    def keep_entries(self) -> None:
        keep_initial_entries(self.config, self.calls)

    def init_from_features(self, features: Float[Tensor, "n d"], part: int = 0) -> None:
        entries = sample_initial_entries(self.config, self.calls, self.known_calls, part, features)
        if entries is not None:
            rows = self.config.part_slice(part)
            self.table.data[rows] = entries  # through `data`: autograd must not see a change of what other parts saved
            self.sums[rows], self.counts[rows] = entries, 1

    @torch.no_grad()
    def update(self, features: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        """Move every entry to its running mean, then restart unused ones, if the settings say so."""
        k, rows, weight = self.config.entries, self.config.part_slice(part), 1 - self.config.decay
        counts = self.counts[rows].lerp_(count_indices(indices, k), weight)
        sums = self.sums[rows].lerp_(sum_by_index(features.float(), indices, k), weight)
        total = counts.sum()
        smoothed = (counts + SMOOTHING) / (total + k * SMOOTHING) * total
        entries = sums / smoothed[:, None]
        restarts = sample_restarts(counts, self.config.restart, features)
        if restarts is not None:
            entries = restarts.put_into(entries)
            # as if the entry had been chosen just often enough by features at this point
            counts.masked_fill_(restarts.restarted, self.config.restart)
            sums.copy_(restarts.put_into(sums, self.config.restart))
        self.table = replace_rows(self.table, rows, entries)
        return {}
