"""A training pass of every quantizer and of every codebook, compared with taming-transformers' quantizer.

Forward, the codebook's update, and backward. A pass is measured from two states of the codebook: at the first step,
where CVQ moves every entry, and after some steps.

Run: OMP_NUM_THREADS=1 python benchmarks/quantizers.py [--rounds 5] [--json quantizers.json]
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timing import compare, report
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.interfaces import Codebook, Quantizer, codebooks, quantizers, sum_losses

SHAPE, ENTRIES, WIDTH = (16, 32, 32), 1024, 256
SETTLED = 6
"""Passes before the second state; after five, CVQ's usage of all entries is above its threshold."""

VARIANTS: dict[str, list[dict[str, Any]]] = {
    "anchored": [
        {"anchor": "probrandom", "distance": "l2"},
        {"anchor": "closest"},
        {"anchor": "random"},
        {"contrastive": 1.0},
    ],
    "ema": [{"restart": 1.0}],
    "learned": [{"restart": 1.0}],
}
"""Settings of codebooks that cost time, in addition to the defaults."""

QUANTIZER_VARIANTS: dict[str, list[dict[str, Any]]] = {"nearest": [{"gradient": "rotation"}, {"entropy": 0.1}]}
"""The same for quantizers, measured with their compatible_codebook."""


def centres(generator: torch.Generator, width: int) -> Tensor:
    return torch.randn(ENTRIES, width, generator=generator)


def make_features(width: int) -> Tensor:
    """A grid [b d h w] of features around one centre per entry, so that all entries are used."""
    generator = torch.Generator().manual_seed(0)
    around = centres(generator, width)[torch.randint(ENTRIES, SHAPE, generator=generator)]
    return (around + 0.5 * torch.randn(around.shape, generator=generator)).permute(0, 3, 1, 2).contiguous()


def taming_vq(grid: Tensor, gradient: Tensor, table: Tensor) -> None:
    """taming-transformers' quantizer as published: all distances, argmin, lookup, two squared errors."""
    grid, table = grid.detach().requires_grad_(), table.detach().requires_grad_()
    last = grid.permute(0, 2, 3, 1).contiguous()
    rows = last.view(-1, last.shape[3])
    distances = rows.square().sum(1, keepdim=True) + table.square().sum(1) - 2 * rows @ table.T
    chosen = F.embedding(distances.argmin(1), table).view(last.shape)
    loss = (chosen.detach() - last).square().mean() + 0.25 * (chosen - last.detach()).square().mean()
    codes = (last + (chosen - last).detach()).permute(0, 3, 1, 2).contiguous()
    torch.autograd.backward([codes, loss], [gradient, None])


def taming_gumbel(grid: Tensor, gradient: Tensor, table: Tensor, weight: Tensor) -> None:
    """taming-transformers' Gumbel-VQ as published: gumbel_softmax, a product with one-hot vectors, KL divergence."""
    grid, table, weight = (value.detach().requires_grad_() for value in (grid, table, weight))
    last = grid.permute(0, 2, 3, 1)
    logits = last.reshape(-1, last.shape[3]) @ weight.T
    codes = (F.gumbel_softmax(logits, tau=1.0, dim=1, hard=True) @ table).view(last.shape).permute(0, 3, 1, 2)
    probabilities = F.softmax(logits, 1)
    divergence = (probabilities * torch.log(probabilities * len(table) + 1e-10)).sum(1).mean()
    torch.autograd.backward([codes, 5e-4 * divergence], [gradient, None])


def make_pass(
    quantizer: Quantizer, codebook: Codebook, state: dict[str, Tensor], grid: Tensor, gradient: Tensor
) -> Callable[[], None]:
    def run() -> None:
        codebook.load_state_dict(state)
        step(quantizer, codebook, grid, gradient)

    return run


def step(quantizer: Quantizer, codebook: Codebook, grid: Tensor, gradient: Tensor) -> None:
    codebook.zero_grad()
    made = quantizer(grid.detach().requires_grad_(), codebook, update=True)
    losses = [sum_losses(made.losses)] if made.losses else []  # FSQ has none
    torch.autograd.backward([made.quantized, *losses], [gradient, *[None for _ in losses]])


def combinations() -> Iterator[tuple[str, Quantizer, Codebook, int]]:
    """Each quantizer with a compatible codebook, `nearest` with each codebook of 1,024 entries; and the grid width."""
    for quantizer in quantizers:
        compatible_codebook = dict(quantizers[quantizer].compatible_codebook)
        for own in [{}, *QUANTIZER_VARIANTS.get(quantizer, [])]:
            yield from _built(quantizer, own, compatible_codebook, {})
    for name in codebooks:
        for variant in [{}, *VARIANTS.get(name, [])]:
            if name != "learned" or variant:  # without variants this pair was already there
                yield from _built("nearest", {}, {"name": name}, variant)


def _built(
    quantizer: str, own: dict[str, Any], chosen: dict[str, Any], variant: dict[str, Any]
) -> Iterator[tuple[str, Quantizer, Codebook, int]]:
    cls, table = quantizers[quantizer], codebooks[chosen["name"]]
    sizes = {"entries": ENTRIES, "sizes": (ENTRIES,), "width": WIDTH}
    known = {key: value for key, value in sizes.items() if key in table.Config.model_fields}
    if table.reads_text:
        return
    try:
        config: Any = build(table.Config, {**known, **chosen, **variant}, chosen["name"])
        width = cls.grid_width(config)
        made = cls(build(cls.Config, {"name": quantizer, **own}, quantizer), config)
    except UsageError:  # the two are not compatible
        return
    codebook = table(config)
    put_on_centres(codebook)
    changed = [f"{key}={value}" for key, value in {**own, **variant}.items()]
    label = " ".join([f"{quantizer} × {chosen['name']}", *changed])
    yield label, made.train(), codebook.train(), width


@torch.no_grad()
def put_on_centres(codebook: Codebook) -> None:
    """Put the entries of a learned table near the features' centres."""
    for value in codebook.state_dict().values():
        if value.shape == (ENTRIES, WIDTH):
            generator = torch.Generator().manual_seed(0)
            around = centres(generator, WIDTH)
            value.copy_(around + 0.1 * torch.randn(around.shape, generator=generator))


def measure(rounds: int) -> dict[str, dict[str, Any]]:
    grid = make_features(WIDTH)
    plain = partial(taming_vq, grid, torch.randn_like(grid), grid.permute(0, 2, 3, 1).reshape(-1, WIDTH)[:ENTRIES])
    table = centres(torch.Generator().manual_seed(0), WIDTH)
    gumbel = partial(taming_gumbel, grid, torch.randn_like(grid), table, 0.1 * table)
    first: dict[str, Callable[[], object]] = {"taming": plain, "taming, Gumbel": gumbel}
    settled = dict(first)
    for label, quantizer, codebook, width in combinations():
        own = grid if width == WIDTH else make_features(width)
        gradient = torch.randn_like(own)
        states = [copy_state(codebook)]
        for _ in range(SETTLED):
            step(quantizer, codebook, own, gradient)
        states.append(copy_state(codebook))
        for works, state in zip((first, settled), states, strict=True):
            works[label] = make_pass(quantizer, codebook, state, own, gradient)
    name = f"{torch.Size(SHAPE).numel():,} × {WIDTH} → {ENTRIES:,}"
    return {f"{name}, first step": compare(first, rounds), f"{name}, settled": compare(settled, rounds)}


def copy_state(codebook: Codebook) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in codebook.state_dict().items()}


if __name__ == "__main__":
    report("quantizers, forward + update + backward", measure)
