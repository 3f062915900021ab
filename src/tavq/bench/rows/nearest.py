"""The nearest entry of a codebook for each feature, forward, against the full-matrix form and quantizers of peers."""

from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor

from tavq.bench import taming
from tavq.bench.case import Alternative, Case, Scale
from tavq.ops.nearest_entry import find_nearest

SHAPES = {"wide": (65_536, 256, 1_024), "narrow": (16_384, 8, 16_384)}
TOY_SHAPES = {"wide": (128, 32, 16), "narrow": (64, 8, 128)}
FLOOR_BUFFER = 2**20


def cases(scale: Scale) -> Iterator[Case]:
    """65,536 features of width 256 in 1,024 entries, and 16,384 of width 8 in 16,384."""
    generator = torch.Generator().manual_seed(0)
    for key, (n, d, k) in (TOY_SHAPES if scale.toy else SHAPES).items():
        features, entries = (torch.randn(size, d, generator=generator).to(scale.device) for size in (n, k))
        wrong = int((taming.find_nearest(features, entries) != find_nearest(features, entries)).sum())
        note = f"{wrong} of {n:,} indices are not the nearest"
        case = Case(f"nearest/{key}", f"Nearest entry, {n:,} x {d} in {k:,}")
        case.alternatives += [
            Alternative("taming", partial(taming.find_nearest, features, entries), note=note),
            Alternative("tavq", partial(find_nearest, features, entries), note="exact"),
            Alternative("the product alone", partial(product, features, entries)),
        ]
        case.add_peer("diffusers", "diffusers", partial(diffusers_search, features, entries))
        case.add_peer("vector-quantize-pytorch", "vector_quantize_pytorch", partial(vqp_search, features, entries))
        yield case


def product(features: Tensor, entries: Tensor) -> None:
    """The matrix product alone, in pieces that fit a core's cache, or at once on a GPU."""
    size = len(features) if features.is_cuda else max(1, FLOOR_BUFFER // len(entries))
    out = features.new_empty(len(entries), size)
    for piece in features.split(size):
        torch.mm(entries, piece.T, out=out[:, : len(piece)])


def as_image(features: Tensor) -> Tensor:
    """Features as a grid [1 d 1 n], which quantizers take."""
    return features.T[None, :, None].contiguous()


def diffusers_search(features: Tensor, entries: Tensor) -> Iterator[Alternative]:
    """The quantizer of diffusers' `VQModel`, without gradients."""
    from diffusers.models.autoencoders.vq_model import VectorQuantizer

    quantizer = VectorQuantizer(len(entries), entries.shape[1], beta=0.25, sane_index_shape=False).to(entries.device)
    with torch.no_grad():
        quantizer.embedding.weight.copy_(entries)
    yield Alternative("diffusers", torch.no_grad()(partial(quantizer, as_image(features))))


def vqp_search(features: Tensor, entries: Tensor) -> Iterator[Alternative]:
    """vector-quantize-pytorch with a table of running means, in evaluation mode."""
    from vector_quantize_pytorch import VectorQuantize

    quantizer = VectorQuantize(dim=entries.shape[1], codebook_size=len(entries)).to(entries.device).eval()
    quantizer.codebook = entries
    yield Alternative("vector-quantize-pytorch", torch.no_grad()(partial(quantizer, features[None])))
