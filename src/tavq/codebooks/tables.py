"""What tables of entries have in common: their size, their start from features, and the restart of unused entries."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.ops.collective import sample_vectors, world_size


class TableConfig(NamedConfig):
    """Size of the tables."""

    entries: int = Field(1024, ge=1, le=2**20)
    """Of each part."""
    width: int = Field(256, ge=1, le=4096)
    parts: int = Field(1, ge=1, le=64)
    """More than one for the quantizers that give several indices a position."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each part."""
        return (self.entries,) * self.parts

    def rows_of(self, part: int) -> slice:
        """Where the entries of `part` stand in the table."""
        return slice(part * self.entries, (part + 1) * self.entries)


class StartedConfig(TableConfig):
    """Size of the tables, how they start, and what becomes of entries that nothing chooses."""

    init: Literal["uniform", "normal", "features"] = "uniform"
    """`uniform` in [-1/k, 1/k] as in the public VQ-GAN code; `normal` with variance 1, as that of Gumbel-VQ, whose
    entries need not be near the features; `features`: rows drawn from the first training batch.

    The encoder's first features are far from [-1/k, 1/k], so that most uniform entries are never the nearest; short
    runs collapse onto a handful of entries and want `features`."""
    redraw_until: int = Field(0, ge=0)
    """With `features`: draw all entries anew at steps 2, 4, 8, ... up to this one, as the features move away from the
    first ones faster than a gradient can follow."""
    restart: float = Field(0.0, ge=0, le=2**20)
    """An entry whose running count (a mean over steps of how many features chose it) is below this is put on a feature
    of the batch; 0 is off."""


def fresh(config: StartedConfig) -> Float[Tensor, "k d"]:
    """The table before training."""
    if config.init == "normal":
        return torch.empty(config.entries * config.parts, config.width).normal_()
    return uniform(config)


def uniform(config: TableConfig) -> Float[Tensor, "k d"]:
    """A table in [-1/k, 1/k], k the entries of a part."""
    # in place: a plain division on the meta device, where models are checked and counted, loads torch's compiler first
    return torch.empty(config.entries * config.parts, config.width).uniform_(-1, 1).div_(config.entries)


def started(
    config: StartedConfig, calls: Int[Tensor, " parts"], part: int, rows: Float[Tensor, "n d"]
) -> Float[Tensor, "k d"] | None:
    """The entries that `part` starts from at this call, or None where it goes on with those it has.

    Counts the call in `calls`. Without repeats where there are k features or more.
    """
    if config.init != "features":
        return None
    calls[part] += 1
    count = int(calls[part])
    if count > 1 and (count > config.redraw_until or count & (count - 1)):
        return None
    return sample_vectors(rows, config.entries)


def restarted(
    counts: Float[Tensor, " k"], threshold: float, rows: Float[Tensor, "n d"]
) -> tuple[Int[Tensor, " r"], Float[Tensor, "r d"]] | None:
    """Places of entries whose running count is below `threshold` and features for them; None where there are none.

    Never more places than features: two entries on one spot would be one. The others wait for the next step.
    """
    if threshold == 0:
        return None
    places = (counts < threshold).nonzero()[:, 0][: len(rows) * world_size()]
    return (places, sample_vectors(rows, len(places))) if len(places) else None


def replaced(
    table: Float[Tensor, "k d"], places: Int[Tensor, " r"] | slice, rows: Float[Tensor, "r d"]
) -> Float[Tensor, "k d"]:
    """A new table with `rows` at `places`.

    `update` is called between a pass and its backward, which may need the numbers as they were used: there the storage
    of a table is exchanged (`table.data = replaced(...)`) and never written into.
    """
    table = table.detach().clone()
    table[places] = rows
    return table
