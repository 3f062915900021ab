"""Batches on the device that computes with them; a GPU gets each while it computes the step before."""

from collections.abc import Generator
from contextlib import closing
from typing import Any, TypeVar

import torch
from torch import Tensor

from tavq.core.devices import map_tensors, to_device
from tavq.core.errors import TavqError

T = TypeVar("T")


def prefetch(batches: Generator[T, None, None], device: torch.device) -> Generator[T, None, None]:
    """Yield the batches, which are dataclasses of tensors, with every tensor on `device`; their order stays.

    For a GPU the next batch is read, pinned and copied on a stream of its own before the current one is handed out.
    What reading it raises is raised in its turn, as the steps before it may be the last ones. Closing the generator
    closes `batches`.
    """
    with closing(batches):
        if device.type != "cuda":
            yield from (to_device(batch, device) for batch in batches)
            return
        stream = torch.cuda.Stream(device)
        ahead = _copy_next(batches, device, stream)
        while ahead is not None:
            if isinstance(ahead, TavqError):
                raise ahead
            batch = _receive(ahead, device, stream)
            ahead = _copy_next(batches, device, stream)
            yield batch


def _copy_next(batches: Generator[T, None, None], device: torch.device, stream: Any) -> T | TavqError | None:
    """Begin to copy the next batch; return it, or what reading it raised, or None at the end."""
    try:
        batch = next(batches, None)
    except TavqError as error:
        return error
    pinned = map_tensors(batch, Tensor.pin_memory)
    with torch.cuda.stream(stream):
        copied: T | None = to_device(pinned, device)
    return copied


def _receive(batch: T, device: torch.device, stream: Any) -> T:
    """Let the stream that computes wait for the copy of a batch, and keep its memory until that has read it."""
    current = torch.cuda.current_stream(device)
    current.wait_stream(stream)

    def record(tensor: Tensor) -> Tensor:
        tensor.record_stream(current)
        return tensor

    received: T = map_tensors(batch, record)
    return received
