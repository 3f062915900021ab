"""Collective operations that give several processes the result of one; all are no-ops in a single process."""

import atexit
import gc
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import Any

import numpy as np
import torch
import torch.distributed as dist

# Imported before any process group exists: its functions take the group of the time as a default argument. The first
# optimizer would import it later, and so keep the group and gloo's threads past the end, where they can abort Python.
import torch.distributed.nn.functional
from jaxtyping import Float, Int, Shaped
from torch import Tensor
from torch.distributed.rendezvous import rendezvous
from torch.nn import functional

from tavq.core.devices import default_device
from tavq.core.torchrun import launched_processes, launched_rank
from tavq.ops.meeting import agree_on_name
from tavq.ops.shares import gathered_lengths, share_weight
from tavq.ops.waiting import count_each

TIMEOUT = timedelta(hours=12)
"""How long processes wait for one another. NCCL's ten minutes end a run while the first process encodes the texts of a
large data set; torchrun stops the others at once where one process ends."""

GRACE = 3.0
"""Seconds that a process which lost its connection gives the one that failed to say why."""


def world_size() -> int:
    """The number of processes; 1 without `torchrun`."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """The rank of this process; rank 0 writes the files."""
    return dist.get_rank() if world_size() > 1 else 0


def is_joined() -> bool:
    """Whether the processes have joined, as inside of `join_processes`."""
    return dist.is_available() and dist.is_initialized()


_start = ""
"""The name of this start of the processes; empty before they have joined."""


def _name_start(name: str) -> str:
    global _start
    _start = name
    return name


@contextmanager
def join_processes() -> Iterator[None]:
    """Join the processes that `torchrun` started, each on its own GPU if there are GPUs."""
    if launched_processes() == 1:
        yield
        return
    store, own, world = next(rendezvous("env://", timeout=TIMEOUT))
    store = dist.PrefixStore(_name_start(agree_on_name(store, own, world, TIMEOUT)), store)
    if default_device().type == "cuda":
        device = torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        torch.cuda.set_device(device)
        dist.init_process_group("nccl", store=store, rank=own, world_size=world, timeout=TIMEOUT, device_id=device)
    else:
        dist.init_process_group("gloo", store=store, rank=own, world_size=world, timeout=TIMEOUT)
    try:
        yield
    finally:
        part_processes()


def part_processes() -> None:
    """End what `join_processes` or `dist.init_process_group` began.

    A model that was trained in parallel may hold the group in a cycle of references. It is freed before Python ends,
    and waits for gloo's threads: one that frees a tensor later finds no Python and aborts the process (exit code -6).
    """
    dist.destroy_process_group()
    atexit.unregister(_free_cycles)  # those of a group before
    atexit.register(_free_cycles)


def _free_cycles() -> None:
    gc.collect()


def is_first_to_fail(lost: bool = False) -> bool:
    """Whether no other process of this `torchrun` has failed, so that a run that ends in all of them ends in one line.

    May be called after the processes have parted. Each call counts as a failure.

    Args:
        lost: this process only lost its connection to another one. That does not count beside the failure which ended
            the other one, and which is waited for: `GRACE`.
    """
    if launched_processes() == 1:
        return True
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") != "True":  # the store ended with one of the processes
        return not lost or launched_rank() == 0  # an error printed twice is better than none
    key = _start or "/".join(os.environ.get(name, "") for name in ("TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"))
    try:
        address, port = os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])
        store = dist.TCPStore(address, port, is_master=False, timeout=timedelta(seconds=10))
        return _is_first(store, key, lost)
    except (dist.DistError, RuntimeError, KeyError, ValueError):
        return True


def _is_first(store: dist.Store, key: str, lost: bool) -> bool:
    if not lost:
        return bool(store.add(f"tavq-failed/{key}", 1) == 1)
    end = time.monotonic() + GRACE
    while store.add(f"tavq-failed/{key}", 0) == 0:
        if time.monotonic() > end:
            return bool(store.add(f"tavq-lost/{key}", 1) == 1)
        time.sleep(0.1)
    return False


def is_lost_connection(error: BaseException) -> bool:
    """Whether an error says no more than that another process ended."""
    return isinstance(error, dist.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _device() -> str:
    """The device that the backend can communicate from."""
    return "cuda" if dist.get_backend() == "nccl" else "cpu"


def barrier() -> None:
    """Wait until every process has reached this call."""
    if world_size() > 1:
        dist.barrier()


def any_process(flag: bool) -> bool:
    """Whether `flag` is true in any process, so that all processes end a run after the same step."""
    return bool(all_reduce_sum(torch.tensor(float(flag), device=_device()))) if world_size() > 1 else flag


def all_reduce_mean(values: Tensor) -> Tensor:
    """The mean of `values` over all processes, each weighted by its samples of the batch."""
    weight = share_weight(rank())
    return all_reduce_sum(values if weight == 1 else values * weight) / world_size()


def largest(value: int, device: torch.device) -> int:
    """The largest `value` of all processes."""
    if world_size() == 1:
        return value
    found = torch.tensor(value, device=device)
    dist.all_reduce(found, op=dist.ReduceOp.MAX)
    return int(found)


def all_reduce_sum(values: Tensor) -> Tensor:
    """The sum of `values` over all processes, on the device of `values`."""
    if world_size() > 1:
        shared = values.to(_device(), copy=True)
        dist.all_reduce(shared)
        values = shared.to(values.device)
    return values


def broadcast_first(values: Tensor) -> Tensor:
    """The `values` of rank 0 in every process, for random samples that must agree."""
    if world_size() > 1:
        values = values.clone()
        dist.broadcast(values, src=0)
    return values


def all_gather(vectors: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "m d"]:
    """Concatenate the vectors of all processes by rank, each of which has as many for a sample."""
    if world_size() == 1:
        return vectors
    lengths = gathered_lengths(len(vectors), rank(), world_size())
    padded = functional.pad(vectors, (0, 0, 0, max(lengths) - len(vectors))).contiguous()
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)  # needs equal shapes
    return torch.cat([part[:length] for part, length in zip(parts, lengths, strict=True)])


def own_rows(rows: int) -> slice:
    """Where the `rows` of this process are in what `all_gather` gives."""
    lengths = gathered_lengths(rows, rank(), world_size())
    first = sum(lengths[: rank()])
    return slice(first, first + rows)


def count_rows(rows: int) -> int:
    """The rows of all processes, of which this one has `rows`."""
    return sum(gathered_lengths(rows, rank(), world_size()))


def all_gather_with_gradient(values: Shaped[Tensor, "n *d"]) -> Shaped[Tensor, "m *d"]:
    """Concatenate the values of all processes by rank; each gets the gradient that all processes have for its part.

    Where gradients are averaged over processes, a loss of gathered values then has the gradient that one process with
    the whole batch has.
    """
    return values if world_size() == 1 else _GatherWithGradient.apply(values)


class _GatherWithGradient(torch.autograd.Function):
    """Gathers forwards; sums the gradients of all processes backwards."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        ctx.rows = own_rows(len(values))
        return all_gather(values.flatten(1)).view(-1, *values.shape[1:])

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> Tensor:
        summed = all_reduce_sum(gradients[0])
        return summed[ctx.rows]


def all_gather_text(text: str) -> list[str]:
    """The text of each process by rank; lengths may differ."""
    if world_size() == 1:
        return [text]
    own = torch.from_numpy(np.frombuffer(text.encode("utf-8"), np.uint8).copy())
    return [bytes(part.numpy()).decode("utf-8") for part in _gather_flat(own)]


def all_gather_uneven(vectors: Shaped[Tensor, "n d"]) -> Shaped[Tensor, "m d"]:
    """Concatenate the vectors of all processes by rank, on the CPU; their numbers may differ.

    The width of an empty tensor is ignored, as a process without data may not know it.
    """
    if world_size() == 1:
        return vectors
    parts = _gather_flat(vectors.flatten())
    widths = _gather_flat(torch.tensor([vectors.shape[1]]))
    held = [part.view(-1, int(width)) for part, width in zip(parts, widths, strict=True) if len(part)]
    return torch.cat(held) if held else vectors


def _gather_flat(values: Shaped[Tensor, " n"]) -> list[Tensor]:
    """The values of each process by rank, on the CPU; their numbers may differ."""
    own = values.to(_device())
    lengths = [torch.zeros(1, dtype=torch.int64, device=_device()) for _ in range(world_size())]
    dist.all_gather(lengths, torch.tensor([len(own)], device=_device()))
    # all_gather needs equal shapes: every process pads to the longest
    padded = own.new_zeros(int(torch.cat(lengths).max()))
    padded[: len(own)] = own
    parts = [torch.empty_like(padded) for _ in lengths]
    dist.all_gather(parts, padded)
    return [part[: int(length)].cpu() for part, length in zip(parts, lengths, strict=True)]


def sample_vectors(vectors: Float[Tensor, "n d"], count: int) -> Float[Tensor, "count d"]:
    """Sample `count` of the vectors of all processes, with repeats only if there are fewer; the same everywhere."""
    vectors = all_gather(vectors)
    n = len(vectors)
    if n >= count:
        chosen = torch.randperm(n, device=vectors.device)[:count]
    else:
        chosen = torch.randint(n, (count,), device=vectors.device)
    return vectors[broadcast_first(chosen)]


def all_reduce_mean_value(value: Tensor) -> Tensor:
    """The mean over all processes; its gradient is that of this process alone, which training averages."""
    return value + (all_reduce_mean(value.detach()) - value.detach())


def count_indices(indices: Int[Tensor, " n"], k: int) -> Float[Tensor, " k"]:
    """How often each of k entries was chosen, in all processes."""
    return all_reduce_sum(count_each(indices, k).float())


def sum_by_index(vectors: Float[Tensor, "n d"], indices: Int[Tensor, " n"], k: int) -> Float[Tensor, "k d"]:
    """The sum of the vectors that chose each of k entries, in all processes."""
    return all_reduce_sum(vectors.new_zeros(k, vectors.shape[1]).index_add_(0, indices, vectors))
