"""Shared by codebooks with a table of entries: its size, its initial values, and restarts of unused entries."""

from typing import Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from tavq.core.config import NamedConfig
from tavq.ops.collective import count_rows, sample_vectors
from tavq.ops.waiting import HostCounts


class TableConfig(NamedConfig):
    """Size of the tables."""

    entries: int = Field(1024, ge=1, le=2**20)
    """Entries of each part."""
    width: int = Field(256, ge=1, le=4096)
    parts: int = Field(1, ge=1, le=64)
    """More than 1 for quantizers that give several indices a position."""

    @property
    def sizes(self) -> tuple[int, ...]:
        """Entries of each part."""
        return (self.entries,) * self.parts

    def part_slice(self, part: int) -> slice:
        """The rows of the table that belong to `part`."""
        return slice(part * self.entries, (part + 1) * self.entries)


class InitConfig(TableConfig):
    """Size of the tables, their initial values, and restarts of unused entries."""

    init: Literal["uniform", "normal", "features"] = "uniform"
    """`uniform` in [-1/k, 1/k], as in the public VQ-GAN code; `normal` with variance 1, as in that of Gumbel-VQ, whose
    entries need not be near the features; `features`: features of the first training batch.

    The encoder's first features are far from [-1/k, 1/k], so most uniform entries are never the nearest. Short runs
    then collapse onto a handful of entries; use `features` for them."""
    redraw_until: int = Field(0, ge=0)
    """With `features`: sample all entries again at steps 2, 4, 8, ... up to this one, because features move away from
    the first ones faster than a gradient can follow."""
    restart: float = Field(0.0, ge=0, le=2**20)
    """Restart entries whose running count (the mean over steps of how many features chose them) is below this, at a
    random feature of the batch; 0 is off."""


def init_table(config: InitConfig) -> Float[Tensor, "k d"]:
    """The table before training."""
    if config.init == "normal":
        return torch.empty(config.entries * config.parts, config.width).normal_()
    return uniform_table(config)


def uniform_table(config: TableConfig) -> Float[Tensor, "k d"]:
    """A random table in [-1/k, 1/k], with k the entries of a part."""
    # in place: a plain division on the meta device, where models are checked and counted, loads torch's compiler first
    return torch.empty(config.entries * config.parts, config.width).uniform_(-1, 1).div_(config.entries)


def keep_initial_entries(config: InitConfig, calls: Int[Tensor, " parts"]) -> None:
    """Count a codebook as started, so that `sample_initial_entries` gives it no other entries."""
    if config.init == "features":
        calls.clamp_(min=max(config.redraw_until, 1))


def sample_initial_entries(
    config: InitConfig, calls: Int[Tensor, " parts"], known: HostCounts, part: int, features: Float[Tensor, "n d"]
) -> Float[Tensor, "k d"] | None:
    """Sample the entries that `part` takes from `features`; None where it keeps those it has.

    Args:
        config: says whether and until when entries are sampled.
        calls: how often each part was here; counted up in place, as the steps of a resumed run continue.
        known: the same counts, which the CPU knows.
        part: the part to initialise.
        features: sampled without repeats where there are as many as entries.
    """
    if config.init != "features":
        return None
    step = known.of(calls)[part] + 1
    known.set(calls, part, step)
    is_power_of_two = not step & (step - 1)
    if step > 1 and (step > config.redraw_until or not is_power_of_two):
        return None
    return sample_vectors(features, config.entries)


class Restarts(NamedTuple):
    """Which entries of a part restart, and where; the values of the others mean nothing."""

    restarted: Bool[Tensor, " k"]
    values: Float[Tensor, "k d"]

    def put_into(self, table: Float[Tensor, "k d"], factor: float = 1.0) -> Float[Tensor, "k d"]:
        """A copy of a table whose restarted rows are `values` times `factor`."""
        return torch.where(self.restarted[:, None], self.values * factor, table)


def sample_restarts(counts: Float[Tensor, " k"], threshold: float, features: Float[Tensor, "n d"]) -> Restarts | None:
    """Entries whose running count is below `threshold` and new values for them; None where there surely are none.

    Never more entries than features, as two entries at one point would act as one. The others wait for the next step.
    """
    unused = counts < threshold
    # a GPU is not asked whether there are any
    if threshold == 0 or (counts.device.type == "cpu" and not unused.any()):
        return None
    values = sample_vectors(features, min(len(counts), count_rows(len(features))))
    place = unused.cumsum(0) - 1
    return Restarts(unused & (place < len(values)), values[place.clamp(0, len(values) - 1)])


def replace_rows(
    table: Float[Tensor, "k d"], rows: Int[Tensor, " r"] | slice, values: Float[Tensor, "r d"]
) -> Float[Tensor, "k d"]:
    """A copy of a table with some rows replaced.

    `Codebook.update` runs between a forward pass and its backward pass, which may need the values that the forward pass
    used. So `update` never writes into the storage of a table but exchanges it (`table.data = replace_rows(...)`).
    """
    table = table.detach().clone()
    table[rows] = values
    return table
