"""Activation checkpointing: blocks of a network that compute their activations again in the backward pass."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from tavq.nets.causal import CausalBlock
from tavq.nets.convnet import AttentionBlock, ResidualBlock
from tavq.nets.time_conditioned import TimeConditionedBlock
from tavq.nets.transformer import Block

BLOCKS = (ResidualBlock, AttentionBlock, Block, CausalBlock, TimeConditionedBlock)
"""Parts whose inputs are kept while everything in them is computed again."""


def recompute_blocks(module: nn.Module) -> None:
    """Let every block of a module keep its input alone in training, with the same gradients bit for bit.

    Memory: the inputs of all blocks and the activations of one. Costs a second forward pass of the blocks.
    """
    for block in module.modules():
        if isinstance(block, BLOCKS):
            # on the instance: the module tree stays as it is, and so do the names of tensors
            block.forward = _recomputed(block, block.forward)  # type: ignore[method-assign]


def _recomputed(block: nn.Module, forward: Callable[..., Any]) -> Callable[..., Any]:
    def run(*inputs: Any, **named: Any) -> Any:
        if block.training and torch.is_grad_enabled():
            return checkpoint(forward, *inputs, use_reentrant=False, **named)
        return forward(*inputs, **named)

    return run
