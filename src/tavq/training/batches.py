"""Parts of a batch: the share of each process, and the micro-batches of gradient accumulation."""

import itertools
from dataclasses import fields, is_dataclass, replace
from typing import Any

from torch import Tensor

from tavq.core.errors import UsageError
from tavq.ops.collective import world_size
from tavq.recipes.schema import LoopConfig


def check_batch(config: LoopConfig) -> None:
    """Raise UsageError if a process would have nothing to do, or fewer samples than parts to compute them in."""
    processes = world_size()
    if config.batch < processes:
        raise UsageError(
            f"train.batch {config.batch} is smaller than the number of processes, {processes}; each needs a sample."
        )
    fewest = config.batch // processes
    if config.accumulate > fewest:
        shared = f" in {processes} processes" if processes > 1 else ""
        raise UsageError(
            f"train.accumulate {config.accumulate} is more than the {fewest} samples that each process has of "
            f"train.batch {config.batch}{shared}; use {fewest} or less."
        )


def split_evenly(count: int, parts: int) -> list[slice]:
    """Slices of a batch that differ by one sample at most; fewer than `parts` where it has fewer samples."""
    parts = min(parts, count)
    edges = [count * part // parts for part in range(parts + 1)]
    return [slice(first, last) for first, last in itertools.pairwise(edges)]


def take_part(batch: Any, part: slice) -> Any:
    """Some samples of a batch: any dataclass of tensors, tuples and batches that have one row a sample."""
    if isinstance(batch, Tensor | tuple | list):
        return batch[part]
    if is_dataclass(batch) and not isinstance(batch, type):
        return replace(batch, **{field.name: take_part(getattr(batch, field.name), part) for field in fields(batch)})
    return batch
