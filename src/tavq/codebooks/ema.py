"""The codebook of running means: each entry follows the mean of the features that choose it."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.codebooks.tables import StartedConfig, fresh, replaced, restarted, started
from tavq.interfaces import Codebook, Losses, codebooks
from tavq.ops.collective import count_indices, sum_by_index

SMOOTHING = 1e-5
"""Added to every count, as in the public VQ-VAE code: an entry that nothing chooses keeps its sum over a count that
does not reach 0."""


@codebooks.register("ema")
class EMACodebook(Codebook):
    """A table without a gradient: N_k ← γ N_k + (1 - γ) n_k, m_k ← γ m_k + (1 - γ) Σ features, e_k = m_k / N_k.

    Source: VQ-VAE (van den Oord et al., 2017), appendix A.1.
    Differs from the paper: counts are smoothed (Laplace), as in the authors' public code, and start at 1.
    """

    class Config(StartedConfig):
        """Size of the tables, how they start and how fast they follow."""

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
        self.register_buffer("table", fresh(config))
        self.register_buffer("counts", torch.ones(self.size))
        self.register_buffer("sums", self.table.clone())
        self.register_buffer("calls", torch.zeros(config.parts, dtype=torch.int64))  # calls of init_from_features

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table

    def init_from_features(self, rows: Float[Tensor, "n d"], part: int = 0) -> None:
        """Takes features as entries where the settings ask for it."""
        entries = started(self.config, self.calls, part, rows)
        if entries is not None:
            place = self.config.rows_of(part)
            self.table.data[place] = entries  # through `data`: what other parts keep for backward has not changed
            self.sums[place], self.counts[place] = entries, 1

    @torch.no_grad()
    def update(self, rows: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        """Moves every entry to its running mean, then restarts unused ones where the settings ask for it."""
        k, place, share = self.config.entries, self.config.rows_of(part), 1 - self.config.decay
        running = self.counts[place].lerp_(count_indices(indices, k), share)
        total = self.sums[place].lerp_(sum_by_index(rows.float(), indices, k), share)
        number = running.sum()
        smoothed = (running + SMOOTHING) / (number + k * SMOOTHING) * number
        entries = total / smoothed[:, None]
        found = restarted(running, self.config.restart, rows)
        if found is not None:
            entries[found[0]] = found[1]
            running[found[0]] = self.config.restart
            total[found[0]] = found[1] * self.config.restart
        self.table = replaced(self.table, place, entries)
        return {}
