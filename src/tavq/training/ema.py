"""A running mean of weights, which is often the better model."""

import torch
from torch import nn


class EMA:
    """An exponential running mean of a module's parameters.

    The decay rises as (1 + n) / (10 + n) to its setting, so that a short run is not held at its first weights.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        self.decay = decay
        self.module = module
        self.shadow = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Moves the mean towards the weights after step `step`."""
        decay = min(self.decay, (1 + step) / (10 + step))
        parameters = [parameter.detach() for _, parameter in self.module.named_parameters()]
        torch._foreach_lerp_(list(self.shadow.values()), parameters, 1 - decay)

    @torch.no_grad()
    def swap(self) -> None:
        """Exchanges the mean and the weights; a second call undoes the first."""
        for name, parameter in self.module.named_parameters():
            held = parameter.detach().clone()
            parameter.copy_(self.shadow[name])
            self.shadow[name].copy_(held)
