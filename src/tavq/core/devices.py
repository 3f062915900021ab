"""Which device the work is done on."""

import torch

from tavq.core.errors import UsageError, first_line


def default_device() -> torch.device:
    """A GPU where there is one."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def select_device(name: str | None) -> torch.device:
    """The device of that name, or a GPU where there is one; UsageError where it cannot be used."""
    if name in (None, "auto"):
        return default_device()
    try:
        device = torch.device(str(name))
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise UsageError(
            f"The device {name!r} cannot be used here; known: cpu, cuda, cuda:1 ({first_line(error)[:80]})."
        ) from error
    return device
