"""Reads weights that older versions wrote under other names."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


def update_tensor_names(module: nn.Module, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Replace old names in a state dict of `module` by the current ones.

    A class that has renamed a submodule, parameter or buffer lists it as `RENAMED_TENSORS` (old name to new name), so
    that model folders and checkpoints of older versions still load:

    >>> class Head(nn.Module):
    ...     RENAMED_TENSORS = {"leave": "out_proj"}
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.out_proj = nn.Linear(2, 2, bias=False)
    >>> module = nn.Sequential(Head())
    >>> list(update_tensor_names(module, {"0.leave.weight": module[0].out_proj.weight}))
    ['0.out_proj.weight']
    """
    return {_current_name(module, name): tensor for name, tensor in tensors.items()}


def _current_name(module: nn.Module, name: str) -> str:
    """The current form of a dotted `name`, translated part by part."""
    part, dot, rest = name.partition(".")
    renamed: Mapping[str, str] = getattr(type(module), "RENAMED_TENSORS", {})
    part = renamed.get(part, part)
    child: Any = module._modules.get(part)
    if child is None:  # a parameter, a buffer, or an unknown name, which load_state_dict reports
        return f"{part}{dot}{rest}"
    return f"{part}{dot}{_current_name(child, rest)}" if dot else part
