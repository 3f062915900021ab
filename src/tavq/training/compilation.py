"""Networks that PyTorch's compiler turns into fewer and larger kernels, with the same tensors under the same names."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from tavq.core.errors import first_line
from tavq.nets.discriminators import PatchDiscriminator
from tavq.tokenizer import Tokenizer
from tavq.training.sharding import find_blocks, matrix_parts

OPTIONS: dict[str, Any] = {"fallback_random": True}
"""Random numbers come from PyTorch's own generator, which a step seeds."""


def find_obstacle(device: torch.device) -> str | None:
    """What to say where PyTorch cannot compile for a device; None where it can. Compiles a small function."""
    try:
        torch.compile(torch.square)(torch.ones(2, device=device))
    except Exception as error:  # without a C++ compiler, Python's headers or Triton, each fails in its own way
        reason = first_line(error).removesuffix(".")
        said = "train.compile changes nothing, as PyTorch cannot compile here"
        return f"{said}: {reason}. tavq doctor says what is missing."
    return None


def compile_tokenizer(tokenizer: Tokenizer, discriminator: PatchDiscriminator | None) -> None:
    """Compile encoder, decoder and discriminator in place; quantizer and aligner stay as they are.

    The decoder's last layer stays outside, because the adaptive weight takes gradients at it alone: through a compiled
    layer PyTorch would compute those of the whole decoder each time.
    """
    compile_method(tokenizer.encoder, "forward")
    compile_method(tokenizer.decoder, "hidden")
    if discriminator is not None:
        compile_method(discriminator, "forward")


def compile_blocks(task: nn.Module, sharded: bool) -> None:
    """Compile every transformer block of a task in place; blocks of the same shape share what is compiled.

    Args:
        task: the network.
        sharded: its weights are shared out, and arrive when a part of a block begins; then those parts are compiled.
    """
    for block in find_blocks(task):
        for part in matrix_parts(block) if sharded else [block]:
            compile_method(part, "forward")


def compile_method(module: nn.Module, name: str) -> None:
    """Compile a method of one module, whose place in the tree and names of tensors stay the same.

    Without gradients, as for samples, it runs as it was, which saves compiling it for their sizes too.
    """
    plain: Callable[..., Any] = getattr(module, name)
    compiled = torch.compile(plain, options=OPTIONS)

    def run(*inputs: Any, **named: Any) -> Any:
        return (compiled if torch.is_grad_enabled() else plain)(*inputs, **named)

    setattr(module, name, run)


@contextmanager
def without_gradients(module: nn.Module) -> Iterator[None]:
    """Within this context the weights of a module get no gradients, and only its inputs do.

    A compiled network computes all gradients that its inputs and weights ask for, even if one of them is taken.
    """
    trained = [parameter for parameter in module.parameters() if parameter.requires_grad]
    for parameter in trained:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in trained:
            parameter.requires_grad_()
