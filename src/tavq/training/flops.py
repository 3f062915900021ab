"""How many floating point operations a step takes, and how many a device can do."""

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode

PEAKS: tuple[tuple[str, dict[str, float]], ...] = (
    (r"B200", {"bf16": 2250, "tf32": 1125}),
    (r"GH200|H200|H100(?! (PCIe|NVL))", {"bf16": 989, "tf32": 494, "fp32": 67}),
    (r"H100 NVL", {"bf16": 835, "tf32": 417, "fp32": 60}),
    (r"H100 PCIe", {"bf16": 756, "tf32": 378, "fp32": 51}),
    (r"A100", {"bf16": 312, "tf32": 156, "fp32": 19.5}),
    (r"A40", {"bf16": 149.7, "tf32": 74.8, "fp32": 37.4}),
    (r"A30", {"bf16": 165, "tf32": 82, "fp32": 10.3}),
    (r"A10", {"bf16": 125, "tf32": 62.5, "fp32": 31.2}),
    (r"L40S", {"bf16": 362, "tf32": 183, "fp32": 91.6}),
    (r"L4", {"bf16": 121, "tf32": 60, "fp32": 30.3}),
    (r"V100", {"fp32": 15.7}),
    (r"T4", {"fp32": 8.1}),
)
"""Dense peak in TFLOP/s by a part of the device's name and the precision. Source: NVIDIA's data sheets, whose numbers
with sparsity are halved here."""


class FlopCounter(TorchDispatchMode):
    """Counts the operations of what runs in its context, in `total`: products and attention, forwards and backwards.

    The formulas are those of `torch.utils.flop_counter`. Differs from `FlopCounterMode`: what activation checkpointing
    computes a second time is not counted, as model FLOPs are those that the mathematics needs.
    """

    def __init__(self) -> None:
        from torch.utils.flop_counter import flop_registry  # imports Triton, and few runs count

        super().__init__()
        self.formulas: Mapping[Any, Callable[..., int]] = flop_registry
        self.total = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation and count it."""
        kwargs = kwargs or {}
        out = func(*args, **kwargs)
        formula = self.formulas.get(func._overloadpacket)
        if formula is not None and not _is_recomputing():
            self.total += int(formula(*args, **kwargs, out_val=out))
        return out


def _is_recomputing() -> bool:
    """Whether a backward pass is computing a forward pass again: only then does it record gradients."""
    return torch._C._current_graph_task_id() != -1 and torch.is_grad_enabled()


def find_peak(name: str, precision: str) -> float | None:
    """The peak of a device in FLOP/s; None where it is not known, as of a part of a GPU (MIG).

    Args:
        name: as `torch.cuda.get_device_name` gives it.
        precision: fp32, tf32 or bf16.
    """
    if "MIG" in name:
        return None
    for pattern, peaks in PEAKS:
        if re.search(rf"\b(?:{pattern})(?![0-9A-Za-z])", name):
            found = peaks.get(precision, peaks.get("fp32") if precision == "tf32" else None)  # before Ampere: no TF32
            return None if found is None else found * 1e12
    return None


def device_peak(device: torch.device, precision: str) -> float | None:
    """The peak of `device` in FLOP/s at a run's precision; None where it is not known, as of every CPU.

    A run in fp32 counts as TF32 where PyTorch's settings allow TF32 for products or convolutions, so that no
    utilization is overstated.
    """
    if device.type != "cuda":
        return None
    if precision == "fp32" and _allows_tf32():
        precision = "tf32"
    return find_peak(torch.cuda.get_device_name(device), precision)


def _allows_tf32() -> bool:
    """Whether PyTorch's settings let a GPU round the operands of float32 products or convolutions to TF32."""
    parts: list[Any] = [torch.backends.cuda.matmul, getattr(torch.backends.cudnn, "conv", None)]
    settings = [
        getattr(part, "fp32_precision", "tf32") for part in parts
    ]  # before 2.9 cuDNN may, unless told otherwise
    return "tf32" in settings or torch.get_float32_matmul_precision() != "highest"
