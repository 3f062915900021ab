"""An exponential moving average of the weights, which is often the better model."""

import torch
from torch import nn

from tavq.training.sharding import split_by_kind


class EMA:
    """An exponential moving average of a module's parameters.

    The decay rises as (1 + n) / (10 + n) up to its setting; with the full decay from the start, the average of a short
    run would still be mostly its initial weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = module
        self.shadow = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move the average towards the current weights; `step` counts the optimizer steps done."""
        decay = min(self.decay, (1 + step) / (10 + step))
        averages = split_by_kind(self.shadow.values())
        weights = split_by_kind(parameter.detach() for parameter in self.module.parameters())
        for average, current in zip(averages, weights, strict=True):
            torch._foreach_lerp_(average, current, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchange the average and the weights; a second call undoes the first."""
        for name, parameter in self.module.named_parameters():
            current = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(current)
