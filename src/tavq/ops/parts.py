"""Tensors of which each process holds a part, PyTorch's DTensor."""

import sys
from typing import TYPE_CHECKING, TypeGuard

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor


def is_part(tensor: object) -> "TypeGuard[DTensor]":
    """Whether a tensor is held in parts by several processes."""
    # A run that is not sharded need not wait for the import, which takes half as long as that of torch.
    module = sys.modules.get("torch.distributed.tensor")
    return module is not None and isinstance(tensor, module.DTensor)
