"""Quantizers in training, forward + backward, beside the incumbent's: nearest, with its full matrix, and Gumbel.

Run: OMP_NUM_THREADS=1 python benchmarks/gumbel.py [--rounds 5] [--json gumbel.json]

Gumbel needs four matrix products where nearest needs one; under autocast to bfloat16 they cost as much as one.
"""

from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from timing import compare, report
from torch import Tensor

from tavq.codebooks.learned import LearnedCodebook
from tavq.interfaces import as_grid, quantizers

N, D, K = 16_384, 256, 1_024


def incumbent_nearest(features: Tensor, weight: Tensor, entries: Tensor, upstream: Tensor) -> None:
    """The formula of taming-transformers: the whole matrix of distances, argmin, lookup, both losses."""
    distances = features.square().sum(1, keepdim=True) + entries.square().sum(1) - 2 * features @ entries.T
    codes = F.embedding(distances.argmin(1), entries)
    loss = F.mse_loss(codes.detach(), features) + 0.25 * F.mse_loss(codes, features.detach())
    (loss + ((features + (codes - features).detach()) * upstream).sum()).backward()


def incumbent_gumbel(features: Tensor, weight: Tensor, entries: Tensor, upstream: Tensor) -> None:
    """The formula of its Gumbel-VQ: torch's gumbel_softmax, a product with the one-hot matrix, the divergence."""
    logits = features @ weight.T
    codes = F.gumbel_softmax(logits, tau=1.0, dim=1, hard=True) @ entries
    shares = F.softmax(logits, 1)
    divergence = (shares * torch.log(shares * K + 1e-10)).sum(1).mean()
    (5e-4 * divergence + (codes * upstream).sum()).backward()


def ours(name: str, half: bool = False, **settings: Any) -> Callable[..., None]:
    config = LearnedCodebook.Config(entries=K, width=D)
    quantizer = quantizers[name](quantizers[name].Config(name=name, **settings), config)
    codebook = LearnedCodebook(config)

    def work(features: Tensor, weight: Tensor, entries: Tensor, upstream: Tensor) -> None:
        codebook.table.data = entries.detach()
        with torch.autocast("cpu", torch.bfloat16, enabled=half):
            made = quantizer(as_grid(features, (16, 32, 32)), codebook)
        losses = sum(loss.weight * loss.value for loss in made.losses.values())
        (losses + (made.codes * as_grid(upstream, (16, 32, 32))).sum()).backward()

    return work


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    values = [torch.randn(*shape, generator=generator) for shape in ((N, D), (K, D), (K, D))]
    upstream = torch.randn(N, D, generator=generator) / N
    works = {
        "taming, nearest": incumbent_nearest,
        "taming, gumbel": incumbent_gumbel,
        "tavq, nearest": ours("nearest"),
        "tavq, nearest, rotation": ours("nearest", gradient="rotation"),
        "tavq, nearest, entropy": ours("nearest", entropy=0.1),
        "tavq, gumbel": ours("gumbel"),
        "tavq, gumbel, autocast bfloat16": ours("gumbel", half=True),
    }

    def fresh(work: Callable[..., None]) -> Callable[[], None]:
        return lambda: work(*(value.clone().requires_grad_() for value in values), upstream)

    results = compare({name: fresh(work) for name, work in works.items()}, rounds)
    return {f"{N:,} × {D} → {K:,}": results}


if __name__ == "__main__":
    report("quantizers, forward + backward", measure)
