"""A training pass of a quantizer: forward, update of the codebook, backward."""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tavq.bench import taming
from tavq.bench.case import Alternative, Case, Scale
from tavq.core.config import build
from tavq.interfaces import codebooks, quantizers, sum_losses

SHAPES = {"wide": ((64, 32, 32), 256, 1_024)}
TOY_SHAPES = {"wide": ((2, 4, 4), 16, 32)}


def cases(scale: Scale) -> Iterator[Case]:
    """65,536 features of width 256 in 1,024 entries; CVQ moves its entries besides."""
    generator = torch.Generator().manual_seed(0)
    for key, (sides, d, k) in (TOY_SHAPES if scale.toy else SHAPES).items():
        b, h, w = sides
        grid = torch.randn(b, d, h, w, generator=generator).to(scale.device)
        entries, slope = torch.randn(k, d, generator=generator).to(scale.device), torch.randn_like(grid)
        case = Case(f"quantizer/{key}", f"Quantizer in training, {b * h * w:,} x {d} in {k:,}")
        case.alternatives += [
            Alternative("taming", partial(taming.quantizer_pass, grid, slope, entries)),
            Alternative("tavq", own_pass("learned", grid, slope, entries)),
            Alternative("tavq, CVQ", own_pass("anchored", grid, slope, entries)),
        ]
        case.add_peer("diffusers", "diffusers", partial(diffusers_pass, grid, slope, entries))
        case.add_peer("vector-quantize-pytorch", "vector_quantize_pytorch", partial(vqp_pass, grid, slope, entries))
        yield case


def own_pass(codebook_name: str, grid: Tensor, slope: Tensor, entries: Tensor) -> Callable[[], None]:
    """Ours, with the entries of a codebook in their state after some passes."""
    table = codebooks[codebook_name]
    config: Any = build(table.Config, {"entries": len(entries), "width": entries.shape[1]}, codebook_name)
    codebook = table(config).to(grid.device).train()
    cls = quantizers["nearest"]
    quantizer = cls(build(cls.Config, {}, "nearest"), config).to(grid.device).train()

    def run() -> None:
        codebook.zero_grad()
        made = quantizer(grid.detach().requires_grad_(), codebook, update=True)
        torch.autograd.backward([made.quantized, sum_losses(made.losses)], [slope, None])

    return run


def diffusers_pass(grid: Tensor, slope: Tensor, entries: Tensor) -> Iterator[Alternative]:
    """The quantizer of diffusers' `VQModel`."""
    from diffusers.models.autoencoders.vq_model import VectorQuantizer

    quantizer = VectorQuantizer(len(entries), entries.shape[1], beta=0.25, sane_index_shape=False).to(grid.device)

    def run() -> None:
        quantizer.zero_grad()
        codes, loss, _ = quantizer(grid.detach().requires_grad_())
        torch.autograd.backward([codes, loss], [slope, None])

    yield Alternative("diffusers", run)


def vqp_pass(grid: Tensor, slope: Tensor, entries: Tensor) -> Iterator[Alternative]:
    """vector-quantize-pytorch, whose entries are running means in training."""
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(dim=entries.shape[1], codebook_size=len(entries), accept_image_fmap=True)
    quantizer.to(grid.device).train()

    def run() -> None:
        codes, _, loss = quantizer(grid.detach().requires_grad_())
        torch.autograd.backward([codes, loss.sum()], [slope, None])

    yield Alternative("vector-quantize-pytorch", run)
