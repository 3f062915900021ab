"""Choosing a device and moving values to it."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tavq.core.errors import UsageError, first_line
from tavq.core.torchrun import launched_processes

_chosen: torch.device | None = None
"""The device of `use_device`. Not a context variable: threads started within must compute there too."""


def default_device() -> torch.device:
    """The device of `use_device`; else the GPU, or the CPU of a machine without one."""
    if _chosen is not None:
        return _chosen
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def use_device(name: str | None) -> Iterator[None]:
    """Compute on the device called `name` within this context: cpu, cuda, cuda:1 or mps.

    None or "auto" changes nothing.

    Raises:
        UsageError: the device cannot be used here, or `torchrun` gives each process its own.
    """
    global _chosen
    if name in (None, "auto"):
        yield
        return
    before, device = _chosen, select_device(name)
    current = torch.cuda.current_device() if device.type == "cuda" else None
    _chosen = device
    try:
        if device.index is not None and device.type == "cuda":
            torch.cuda.set_device(device)  # the name of the GPU, its memory and kernels are those of the current one
        yield
    finally:
        _chosen = before
        if current is not None:
            torch.cuda.set_device(current)


def select_device(name: str | None) -> torch.device:
    """The device called `name`; of None or "auto" the default.

    Raises:
        UsageError: the device cannot be used here, or `torchrun` gives each process its own.
    """
    if name in (None, "auto"):
        return default_device()
    try:
        device = torch.device(str(name))
        torch.empty(1, device=device)
        reason = "it holds no values" if device.type == "meta" else None
    except (RuntimeError, AssertionError) as error:  # the second where PyTorch was built without CUDA
        device, reason = torch.device("cpu"), first_line(error)[:80]
    if reason is not None:
        # Of other names PyTorch lists every kind of device that it was ever written for
        known = str(name).partition(":")[0] in ("cpu", "cuda", "mps")
        told = f" ({reason})" if known else ""
        raise UsageError(f"The device {name!r} cannot be used here{told}; available: {', '.join(available_devices())}.")
    if launched_processes() > 1 and device.type == "cuda":
        raise UsageError(f"torchrun gives each process its own GPU; remove --device {name}, or run without torchrun.")
    return device


def available_devices() -> list[str]:
    """The devices of this machine by the names that `select_device` takes."""
    gpus = [f"cuda:{index}" for index in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *gpus, *(["mps"] if torch.backends.mps.is_available() else [])]


def device_of_job(index: int) -> str | None:
    """The device of one of several jobs that run side by side: the GPUs in turn, or the one of `use_device`.

    Args:
        index: of the job, from 0.
    """
    device = default_device()
    if device.type == "cuda" and device.index is None:
        return f"cuda:{index % torch.cuda.device_count()}"
    return None if _chosen is None else str(_chosen)


def to_device(value: Any, device: torch.device) -> Any:
    """Copy a batch (any dataclass of tensors, batches and other values) with every tensor on `device`."""
    return map_tensors(value, lambda tensor: tensor.to(device, non_blocking=True))


def map_tensors(value: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """Copy a batch (any dataclass of tensors, batches and other values) with every tensor changed."""
    if isinstance(value, Tensor):
        return change(value)
    if is_dataclass(value) and not isinstance(value, type):
        changed = {field.name: map_tensors(getattr(value, field.name), change) for field in fields(value)}
        return replace(value, **changed)
    return value
