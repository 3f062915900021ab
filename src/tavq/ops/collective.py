"""What processes that train together share: sums, draws and gradients, so that several do what one would do."""

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int, Shaped
from torch import Tensor


def world_size() -> int:
    """How many processes train together; 1 where none were started."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number among them, 0 for the one that writes files."""
    return dist.get_rank() if world_size() > 1 else 0


@contextmanager
def join_processes() -> Iterator[None]:
    """Joins the processes that `torchrun` started, each with a GPU of its own where there are any; alone, nothing."""
    if int(os.environ.get("WORLD_SIZE", "1")) == 1:
        yield
        return
    if torch.cuda.is_available():
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", "0")))
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo")
    try:
        yield
    finally:
        dist.destroy_process_group()


def _device() -> str:
    """Where a tensor must lie to be shared."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def barrier() -> None:
    """Returns when every process has come here."""
    if world_size() > 1:
        dist.barrier()


@torch.no_grad()
def average_gradients(parameters: Iterable[Tensor]) -> None:
    """Puts the mean over all processes in the place of each gradient; one that is missing everywhere stays so."""
    if world_size() == 1:
        return
    held = [parameter for parameter in parameters if parameter.requires_grad]
    present = all_reduce_sum(torch.tensor([float(parameter.grad is not None) for parameter in held], device=_device()))
    held = [parameter for parameter, count in zip(held, present.tolist(), strict=True) if count]
    gradients = [torch.zeros_like(p) if p.grad is None else p.grad for p in held]
    if not held:
        return
    means = all_reduce_mean(torch.cat([gradient.reshape(-1) for gradient in gradients]))
    for parameter, mean in zip(held, means.split([gradient.numel() for gradient in gradients]), strict=True):
        parameter.grad = mean.view_as(parameter)


def any_process(flag: bool) -> bool:
    """True where it is true in any process: what ends a run must end it everywhere after the same step."""
    return bool(all_reduce_sum(torch.tensor(float(flag), device=_device()))) if world_size() > 1 else flag


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean of `values` over all processes."""
    return all_reduce_sum(values) / world_size()


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of `values` over all processes, wherever they lie."""
    if world_size() > 1:
        shared = values.to(_device(), copy=True)
        dist.all_reduce(shared)
        values = shared.to(values.device)
    return values


def broadcast_first(values: Tensor) -> Tensor:
    """The first process's `values`, which all others get too: what is drawn at random must be the same everywhere."""
    if world_size() > 1:
        values = values.clone()
        dist.broadcast(values, src=0)
    return values


def all_gather(rows: Float[Tensor, "n d"]) -> Float[Tensor, "m d"]:
    """The rows of all processes one below the other, in the order of their ranks; all have equally many."""
    if world_size() == 1:
        return rows
    parts = [torch.empty_like(rows) for _ in range(world_size())]
    dist.all_gather(parts, rows.contiguous())
    return torch.cat(parts)


def all_gather_text(text: str) -> list[str]:
    """Each process's text, in the order of their ranks; they may differ in length."""
    if world_size() == 1:
        return [text]
    own = torch.from_numpy(np.frombuffer(text.encode("utf-8"), np.uint8).copy())
    return [bytes(part.numpy()).decode("utf-8") for part in _gathered_unequal(own)]


def all_gather_uneven(rows: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "m d"]:
    """The rows of all processes one below the other, in the order of their ranks, on the CPU.

    They may differ in number; of a process without rows, which may not know how wide they are, the width is ignored.
    """
    if world_size() == 1:
        return rows
    parts = _gathered_unequal(rows.flatten())
    widths = _gathered_unequal(torch.tensor([rows.shape[1]]))
    held = [part.view(-1, int(width)) for part, width in zip(parts, widths, strict=True) if len(part)]
    return torch.cat(held) if held else rows


def _gathered_unequal(values: Shaped[Tensor, " n"]) -> list[Tensor]:
    """Each process's values, in the order of their ranks, on the CPU; they may differ in number."""
    own = values.to(_device())
    lengths = [torch.zeros(1, dtype=torch.int64, device=_device()) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(own)], device=_device()))
    padded = own.new_zeros(int(torch.cat(lengths).max()))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [part[: int(length)].cpu() for part, length in zip(parts, lengths, strict=True)]


def sample_vectors(rows: Float[Tensor, "n d"], count: int) -> Float[Tensor, "count d"]:
    """`count` rows of all processes' drawn at random, without repeats where there are as many; the same everywhere."""
    rows = all_gather(rows)
    n = len(rows)
    if n >= count:
        chosen = torch.randperm(n, device=rows.device)[:count]
    else:
        chosen = torch.randint(n, (count,), device=rows.device)
    return rows[broadcast_first(chosen)]


def all_reduce_mean_value(value: Tensor) -> Tensor:
    """The mean over all processes in value; in gradient this process's own, which the mean over gradients scales."""
    return value + (all_reduce_mean(value.detach()) - value.detach())


def count_indices(indices: Int[Tensor, " n"], k: int) -> Float[Tensor, " k"]:
    """How often each of k entries was chosen, over all processes."""
    return all_reduce_sum(torch.bincount(indices, minlength=k).float())


def sum_by_index(rows: Float[Tensor, "n d"], indices: Int[Tensor, " n"], k: int) -> Float[Tensor, "k d"]:
    """The sum of the rows that chose each of k entries, over all processes."""
    return all_reduce_sum(rows.new_zeros(k, rows.shape[1]).index_add_(0, indices, rows))
