"""What a run asks of a GPU beside its method: how it rounds products and chooses convolutions."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tavq.ops.rounding import matmul_precision
from tavq.recipes.schema import LoopConfig


@contextmanager
def gpu_settings(config: LoopConfig) -> Iterator[None]:
    """Within this context `train.tf32` and `train.cudnn_benchmark` are in force; they change nothing on a CPU."""
    if not torch.cuda.is_available():
        yield
        return
    cudnn: Any = torch.backends.cudnn
    before = cudnn.benchmark
    cudnn.benchmark = config.cudnn_benchmark
    try:
        with matmul_precision(tf32=config.tf32):
            yield
    finally:
        cudnn.benchmark = before
