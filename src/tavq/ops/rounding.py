"""How coarsely float32 products round their operands on a device, and within a context."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

# How a float32 product may round its operands: TF32 keeps 10 bits and may truncate instead of round, bfloat16 keeps 7.
OPERAND_ROUNDING = {"tf32": 2.0**-10, "high": 2.0**-10, "bf16": 2.0**-7, "medium": 2.0**-7}


@contextmanager
def matmul_precision(tf32: bool) -> Iterator[None]:
    """Within this context a GPU rounds the operands of float32 products to TF32, or does not."""
    matmul, before = torch.backends.cuda.matmul, torch.backends.cuda.matmul.allow_tf32
    if before == tf32:
        yield
        return
    matmul.allow_tf32 = tf32
    try:
        yield
    finally:
        matmul.allow_tf32 = before


def operand_rounding(device: torch.device) -> float:
    """How coarsely a float32 product on `device` may round its operands under the PyTorch settings in force."""
    backend: Any = torch.backends.cuda if device.type == "cuda" else torch.backends.mkldnn
    # before PyTorch 2.9 there is one setting for all devices
    setting = getattr(backend.matmul, "fp32_precision", None) or torch.get_float32_matmul_precision()
    return OPERAND_ROUNDING.get(setting, 0.0)
