"""Choosing a device and moving values to it."""

from dataclasses import fields, is_dataclass, replace
from typing import Any

import torch
from torch import Tensor

from tavq.core.errors import UsageError, first_line


def default_device() -> torch.device:
    """The GPU, or the CPU of a machine without one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def select_device(name: str | None) -> torch.device:
    """The device called `name`; of None or "auto" the default. Raises UsageError where it cannot be used."""
    if name in (None, "auto"):
        return default_device()
    try:
        device = torch.device(str(name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The device {name!r} cannot be used here; use cpu, cuda or cuda:1, say ({first_line(error)[:80]})."
        ) from error
    return device


def to_device(value: Any, device: torch.device) -> Any:
    """Copy a batch (any dataclass of tensors, batches and other values) with every tensor on `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if is_dataclass(value) and not isinstance(value, type):
        return replace(value, **{field.name: to_device(getattr(value, field.name), device) for field in fields(value)})
    return value
