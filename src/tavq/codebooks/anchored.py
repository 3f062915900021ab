"""The codebook of CVQ: rarely chosen entries move to features of the batch."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from tavq.codebooks.anchors import contrastive_loss, find_closest, sample_anchors
from tavq.codebooks.tables import TableConfig, replace_rows, uniform_table
from tavq.interfaces import Codebook, Distance, Loss, Losses, codebooks
from tavq.ops.collective import all_gather, broadcast_first, count_indices
from tavq.ops.waiting import HostCounts, select_rows

NEGLIGIBLE = 1e-20
"""A step towards an anchor that changes no float32 entry; entries chosen a twentieth as often as the mean take smaller
ones. Entries with such a step need no anchor."""


@codebooks.register("anchored")
class AnchoredCodebook(Codebook):
    """A table trained by the codebook loss, whose unused entries are pulled to features in every step.

    With the running usage p_k of entry k, e_k ← (1 - a_k) e_k + a_k · anchor_k where
    a_k = exp(-10 K p_k / (1 - decay) - 0.001): an entry never chosen moves almost to its anchor, one chosen as often as
    the others stays.

    Source: CVQ (Zheng & Vedaldi, Online Clustered Codebook, ICCV 2023), the running-average update of
    the usage and its decay; the contrastive term as in the public code.
    Differs from the paper: anchors are sampled only for entries that would move, and a pool samples without repeats.
    """

    class Config(TableConfig):
        """Size of the tables, the distance, and how anchors are chosen."""

        name: Literal["anchored"] = "anchored"
        distance: Distance = "cosine"
        """For the choice of entries and of anchors; the paper uses `cosine`."""
        anchor: Literal["probrandom", "closest", "random"] = "probrandom"
        """`probrandom`: a feature sampled from the softmax over features of the similarity to the entry; `closest`: the
        nearest feature; `random`: a feature from a pool with as many features as there are entries."""
        decay: float = Field(0.99, ge=0, lt=1)
        """Of the running usage."""
        contrastive: float = Field(0.0, ge=0, le=100)
        """Weight of the term that pulls entries to their closest features, away from the farthest half; 0 is off."""
        temperature: float = Field(0.07, gt=0, le=100)
        """Of the contrastive term."""

    usage: Tensor
    pool: Tensor
    pooled: Tensor

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.sizes, self.width, self.distance = config.sizes, config.width, config.distance
        self.table = nn.Parameter(uniform_table(config))
        self.register_buffer("usage", torch.zeros(self.size))
        if config.anchor == "random":
            self.register_buffer("pool", uniform_table(config))
            self.register_buffer("pooled", torch.zeros(config.parts, dtype=torch.int64))  # features in the pool
            self.known_pooled = HostCounts()

    def forward(self) -> Float[Tensor, "k d"]:
        return self.table.view_as(self.table)  # keeps its values when `update` exchanges those of the parameter

    def update(self, features: Float[Tensor, "n d"], indices: Int[Tensor, " n"], part: int = 0) -> Losses:
        """Compute the contrastive term and pull unused entries to their anchors."""
        losses = Losses()
        rows = self.config.part_slice(part)
        with torch.autocast(features.device.type, enabled=False):
            if self.config.contrastive > 0:
                term = contrastive_loss(all_gather(features), self()[rows], self.distance, self.config.temperature)
                losses["codebook/contrastive"] = Loss(term, self.config.contrastive)
            self._move_to_anchors(features, count_indices(indices, self.config.entries), part)
        return losses

    @torch.no_grad()
    def _move_to_anchors(self, features: Tensor, counts: Tensor, part: int) -> None:
        rows, decay = self.config.part_slice(part), self.config.decay
        usage = self.usage[rows]
        usage.mul_(decay).add_(counts / counts.sum(), alpha=1 - decay)
        step = torch.exp(-10 * self.config.entries * usage / (1 - decay) - 1e-3)
        if self.config.anchor == "random":
            self._fill_pool(features, part)
        moving = select_rows(step > NEGLIGIBLE)
        if not len(moving):
            return
        step, moving = step[moving, None], moving + rows.start
        entries = self.table[moving]
        entries = entries * (1 - step) + self._anchors(features, entries, moving) * step
        self.table.data = replace_rows(self.table, moving, entries)

    def _anchors(self, features: Tensor, entries: Tensor, moving: Tensor) -> Tensor:
        """An anchor for each of `entries`, whose rows in the table are `moving`."""
        if self.config.anchor == "random":
            return self.pool[moving]
        features = all_gather(features)
        if self.config.anchor == "closest":
            return features[find_closest(features, entries, self.distance)]
        return features[broadcast_first(sample_anchors(features, entries, self.distance))]

    def _fill_pool(self, features: Tensor, part: int) -> None:
        """Add as many features as fit to the pool of `part`: in free slots first, then over random ones."""
        features, k, filled = all_gather(features), self.config.entries, self.known_pooled.of(self.pooled)[part]
        chosen = broadcast_first(torch.randperm(len(features), device=features.device))[:k]
        slots = broadcast_first(torch.randperm(k, device=features.device))
        if len(chosen) < k and filled < k:
            chosen, slots = chosen[: k - filled], torch.arange(filled, k, device=features.device)
        self.pool[self.config.part_slice(part)][slots[: len(chosen)]] = features[chosen]
        self.known_pooled.set(self.pooled, part, min(k, filled + len(chosen)))
