"""The codebook of CVQ: entries that are rarely chosen are moved to features of the batch."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from tavq.codebooks.anchors import closest, contrast, drawn
from tavq.codebooks.tables import TableConfig, replaced, uniform
from tavq.interfaces import Codebook, Distance, Loss, Losses, codebooks
from tavq.ops.collective import all_gather, broadcast_first, count_indices

NEGLIGIBLE = 1e-20
"""An entry's way to its anchor that no float32 entry can show; an entry chosen a twentieth as often as the mean of all
has a shorter one. Such entries need no anchor."""


@codebooks.register("anchored")
class AnchoredCodebook(Codebook):
    """A table that the codebook loss trains, whose unused entries are anchored to features at every step.

    With the running usage p_k of entry k, e_k ← (1 - a_k) e_k + a_k · anchor_k where
    a_k = exp(-10 K p_k / (1 - decay) - 0.001): an entry never chosen moves almost to its anchor, one chosen as often as
    the others stays.

    Source: CVQ (Zheng & Vedaldi, Online Clustered Codebook, ICCV 2023), the running-average update of
    the usage and its decay; the contrastive term as in the public code.
    Differs from the paper: anchors are drawn only for entries that would move, and a pool draws without repeats.
    """

    class Config(TableConfig):
        """Size of the tables, the distance, and how anchors are found."""

        name: Literal["anchored"] = "anchored"
        distance: Distance = "cosine"
        """By which features choose entries and anchors are found; `cosine` is the published choice."""
        anchor: Literal["probrandom", "closest", "random"] = "probrandom"
        """`probrandom`: a feature drawn from the softmax over features of the similarity to the entry; `closest`: the
        nearest feature; `random`: one of a pool of as many features as there are entries."""
        decay: float = Field(0.99, ge=0, lt=1)
        """Of the running usage."""
        contrastive: float = Field(0.0, ge=0, le=100)
        """Weight of the term that pulls entries to their closest features and off the farthest half; 0 is off."""
        temperature: float = Field(0.07, gt=0, le=100)
        """Of the contrastive term."""

    usage: Tensor
    pool: Tensor
    pooled: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width, self.distance = config.sizes, config.width, config.distance
        self.table = nn.Parameter(uniform(config))
        self.register_buffer("usage", torch.zeros(self.size))
        if config.anchor == "random":
            self.register_buffer("pool", uniform(config))
            self.register_buffer("pooled", torch.zeros(config.parts, dtype=torch.int64))  # features in the pool

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table.view_as(self.table)  # keeps its numbers when `update` exchanges those of the parameter

    def update(self, rows: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        k, losses = self.config.entries, Losses()
        place = self.config.rows_of(part)
        with torch.autocast(rows.device.type, enabled=False):
            if self.config.contrastive > 0:
                term = contrast(all_gather(rows), self()[place], self.distance, self.config.temperature)
                losses["codebook/contrastive"] = Loss(term, self.config.contrastive)
            self._anchor(rows, count_indices(indices, k), part, place)
        return losses

    @torch.no_grad()
    def _anchor(self, rows: Tensor, chosen: Tensor, part: int, place: slice) -> None:
        usage, decay = self.usage[place], self.config.decay
        usage.mul_(decay).add_(chosen / chosen.sum(), alpha=1 - decay)
        step = torch.exp(-10 * self.config.entries * usage / (1 - decay) - 1e-3)
        if self.config.anchor == "random":
            self._fill_pool(rows, part, place)
        moving = (step > NEGLIGIBLE).nonzero()[:, 0]
        if not len(moving):
            return
        step, moving = step[moving, None], moving + place.start
        entries = self.table[moving]
        entries = entries * (1 - step) + self._anchors(rows, entries, moving) * step
        self.table.data = replaced(self.table, moving, entries)

    def _anchors(self, rows: Tensor, entries: Tensor, moving: Tensor) -> Tensor:
        if self.config.anchor == "random":
            return self.pool[moving]
        rows = all_gather(rows)
        if self.config.anchor == "closest":
            return rows[closest(rows, entries, self.distance)]
        return rows[broadcast_first(drawn(rows, entries, self.distance))]

    def _fill_pool(self, rows: Tensor, part: int, place: slice) -> None:
        """Takes as many features as fit: into free places first, then in the place of random ones."""
        rows, k, held = all_gather(rows), self.config.entries, int(self.pooled[part])
        taken = broadcast_first(torch.randperm(len(rows), device=rows.device))[:k]
        places = broadcast_first(torch.randperm(k, device=rows.device))
        if len(taken) < k and held < k:
            taken, places = taken[: k - held], torch.arange(held, k, device=rows.device)
        self.pool[place][places[: len(taken)]] = rows[taken]
        self.pooled[part] = min(k, held + len(taken))
