"""Old names of weights."""

from typing import ClassVar

import torch
from torch import nn

from tavq.core.tensor_names import update_tensor_names


class Inner(nn.Module):
    RENAMED_TENSORS: ClassVar = {"leave": "out_proj", "table": "entries"}

    def __init__(self) -> None:
        super().__init__()
        self.out_proj = nn.Linear(2, 2)
        self.register_buffer("entries", torch.zeros(3))


class Outer(nn.Module):
    RENAMED_TENSORS: ClassVar = {"towers": "layers"}

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([Inner(), nn.Sequential(Inner())])
        self.leave = nn.Linear(2, 2)


def test_each_part_of_a_name_is_renamed_by_its_own_class() -> None:
    old = [
        "towers.0.leave.weight",
        "towers.0.table",
        "towers.1.0.leave.bias",
        "layers.1.0.entries",
        "leave.weight",  # Outer has not renamed its own
        "unknown.leave.weight",
    ]
    new = [
        "layers.0.out_proj.weight",
        "layers.0.entries",
        "layers.1.0.out_proj.bias",
        "layers.1.0.entries",
        "leave.weight",
        "unknown.leave.weight",
    ]
    tensors = {name: torch.full((1,), float(index)) for index, name in enumerate(old)}
    assert {name: float(value) for name, value in update_tensor_names(Outer(), tensors).items()} == {
        name: float(index) for index, name in enumerate(new)
    }


def test_current_names_stay() -> None:
    module = Outer()
    assert list(update_tensor_names(module, module.state_dict())) == list(module.state_dict())
