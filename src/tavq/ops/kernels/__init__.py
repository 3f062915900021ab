"""Triton kernels of the two hot searches, and the one place that decides whether they run.

`tavq.ops.nearest_entry` and `tavq.ops.transport` hold the plain PyTorch forms, which define the results: tests compare
the kernels with them, and they compute wherever the kernels cannot. Only this file is imported without Triton.
"""

import os
import warnings
from functools import lru_cache
from importlib.util import find_spec

import torch

from tavq.core.errors import UsageError

SWITCH = "TAVQ_KERNELS"
"""The variable of the environment that chooses the form: `triton` (the default, where it can run) or `torch`."""


def use_triton(device: torch.device) -> bool:
    """Whether the kernels compute what lies on `device`: a CUDA GPU on which a trial of them gave the right answers.

    False without Triton, with TAVQ_KERNELS=torch, and while torch.compile or torch.export traces: PyTorch's compiler
    makes kernels of the plain forms itself. With Triton's own TRITON_INTERPRET=1 the kernels run on a CPU too, slowly.
    """
    if not _is_chosen() or torch.compiler.is_compiling():
        return False
    if device.type == "cpu":
        return os.environ.get("TRITON_INTERPRET") == "1" and _is_installed()
    return device.type == "cuda" and torch.version.cuda is not None and _is_installed() and _passes_trial(device)


def _is_chosen() -> bool:
    choice = os.environ.get(SWITCH, "triton")
    if choice not in ("triton", "torch"):
        raise UsageError(f"{SWITCH} is {choice!r}; set it to 'triton' or 'torch', or leave it out.")
    return choice == "triton"


@lru_cache(maxsize=1)
def _is_installed() -> bool:
    return find_spec("triton") is not None


@lru_cache
def _passes_trial(device: torch.device) -> bool:
    """Compile and run both kernels on problems solved by hand, once in a process; a warning where they fail."""
    try:
        wrong = _find_wrong_answers(device)
    except Exception as error:  # a compiler of any version on any GPU may fail in any way; the plain forms need none
        wrong = f"{type(error).__name__}: {error}"
    if wrong:
        reason = wrong.strip().splitlines()[0]
        warnings.warn(
            f"The Triton kernels do not work on {device} ({reason}); PyTorch computes instead, more slowly. "
            f"{SWITCH}=torch in the environment chooses this without a trial.",
            stacklevel=2,
        )
    return not wrong


def _find_wrong_answers(device: torch.device) -> str:
    """What the kernels get wrong of two problems with known answers; empty if nothing."""
    from tavq.ops.kernels.best_two import best_two
    from tavq.ops.kernels.sinkhorn import solve_transport

    table = torch.tensor([[1.0, 0.0], [0.0, 2.0], [3.0, 3.0]], device=device)
    features = torch.tensor([[0.0, 2.0], [3.0, 2.0]], device=device)
    found = best_two(features, table.new_zeros(2), table, table.square().sum(1) / 2, tf32=False)
    if [part.tolist() for part in found[:3]] != [[1, 2], [-2.0, -6.0], [0.5, -2.5]]:
        return "the nearest entries are wrong"
    half = torch.full((1, 2), 0.5, device=device)
    value, _ = solve_transport(torch.eye(2, device=device)[None], half, half, 0.5, 20, 10)
    # symmetric: the plan is [[q, p], [p, q]] / 2 with q / p = exp(-1 / ε) and p + q = 1, so that the value is q
    if abs(value.item() - 1 / (1 + torch.e**2)) > 1e-5:
        return "the transport cost is wrong"
    return ""
