"""Sums and draws over the features of all processes, so that several process a batch as one would."""

import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor


def processes() -> int:
    """How many processes train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def summed(values: Tensor) -> Tensor:
    """The sum of `values` over all processes."""
    if processes() > 1:
        values = values.clone()
        dist.all_reduce(values)
    return values


def from_first(values: Tensor) -> Tensor:
    """The first process's `values`, which all others get too: what is drawn at random must be the same everywhere."""
    if processes() > 1:
        values = values.clone()
        dist.broadcast(values, src=0)
    return values


def gathered(rows: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """The rows of all processes one below the other, in the order of their ranks; all have equally many."""
    if processes() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(processes())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def drawn_rows(rows: Float[Tensor, "n d"], count: int) -> Float[Tensor, "count d"]:
    """`count` rows of all processes' drawn at random, without repeats where there are as many; the same everywhere."""
    rows = gathered(rows)
    n = len(rows)
    if n >= count:
        chosen = torch.randperm(n, device=rows.device)[:count]
    else:
        chosen = torch.randint(n, (count,), device=rows.device)
    return rows[from_first(chosen)]


def counts(indices: Int[Tensor, " n"], k: int) -> Float[Tensor, " k"]:
    """How often each of k entries was chosen, over all processes."""
    return summed(torch.bincount(indices, minlength=k).float())


def sums(rows: Float[Tensor, "n d"], indices: Int[Tensor, " n"], k: int) -> Float[Tensor, "k d"]:
    """The sum of the rows that chose each of k entries, over all processes."""
    return summed(rows.new_zeros(k, rows.shape[1]).index_add_(0, indices, rows))
