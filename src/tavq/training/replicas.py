"""Gradients averaged over processes while the backward pass computes them, by PyTorch's DistributedDataParallel."""

import warnings
from collections.abc import Callable
from typing import Any

from torch import nn
from torch.nn.parallel import DistributedDataParallel

from tavq.ops.collective import world_size
from tavq.training.sharding import is_sharded


class Replica:
    """One process's copy of a module that several processes train with the same weights.

    Call it with a function that runs the module. The next backward pass through the result leaves every parameter with
    the mean of its gradient over processes, together with what earlier backward passes added to it since the gradients
    were removed; those passes, of the module itself, reduce nothing. In a single process it just calls the function.

    The module itself goes to optimizers and checkpoints, so that its tensors keep their names. Buffers are not
    synchronized: statistics of batch norm are those of each process.

    Args:
        module: on its device, with the parts frozen that are not trained. The weights of the first process are copied
            to the others.
    """

    def __init__(self, module: nn.Module) -> None:
        self._parallel: nn.Module | None = None
        trained = any(parameter.requires_grad for parameter in module.parameters())
        if world_size() > 1 and trained and not is_sharded(module):  # whose gradients arrive averaged
            # Parameters may get no gradient, as those of an aligner from a batch without text. Without the walk through
            # the graph that finds them, DDP would also sort its messages again after step 1: a resumed run would
            # add up its first gradients in another order than the run it continues, and lose its bits.
            with warnings.catch_warnings():
                # Its successor in torch 2.13 copies buffers at the start, and older releases do not know it.
                warnings.filterwarnings("ignore", "`broadcast_buffers`", FutureWarning)
                self._parallel = DistributedDataParallel(
                    _Runner(module),
                    broadcast_buffers=False,
                    gradient_as_bucket_view=True,
                    find_unused_parameters=True,
                )

    def __call__(self, forward: Callable[..., Any], *inputs: Any) -> Any:
        """What `forward` gives for `inputs`; it must be run, and its result be the root of the next backward pass."""
        return forward(*inputs) if self._parallel is None else self._parallel(forward, *inputs)


class _Runner(nn.Module):
    """Runs any function of a module as its forward pass."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, forward: Callable[..., Any], *inputs: Any) -> Any:
        return forward(*inputs)
