"""The autoregressive prior: sampling 256 tokens with and without a cache, and a training step.

Sampling is compared with taming-transformers' sampler without a cache, transformers' GPT-2 with its cache, the matrix
products that each token needs, and reading the weights once per token. Training is compared with transformers' GPT-2.

Run: OMP_NUM_THREADS=1 python benchmarks/sampling.py [--rounds 5] [--json sampling.json] (about 80 s)
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from timing import compare, report
from torch import Tensor, nn
from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

from tavq.core.errors import UsageError
from tavq.interfaces import sum_losses
from tavq.nets.causal import Affine
from tavq.tasks.base import GenerationBatch, Prompt, Sampling, TokenLayout
from tavq.tasks.prior import Prior, PriorConfig

EVERY = 16
"""The sampler without a cache is measured at every 16th token only: its cost grows linearly."""


class IncumbentBlock(nn.Module):
    """As in taming-transformers: three projections, the full attention matrix, a mask, GELU."""

    def __init__(self, width: int, heads: int, positions: int) -> None:
        super().__init__()
        self.heads = heads
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(2))
        self.key, self.query, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.register_buffer("mask", torch.ones(positions, positions).tril())

    def forward(self, x: Tensor) -> Tensor:
        b, n, c = x.shape
        normed = self.norms[0](x)
        query, key, value = (
            part(normed).view(b, n, self.heads, -1).transpose(1, 2) for part in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) * (c // self.heads) ** -0.5
        weights = scores.masked_fill(self.mask[:n, :n] == 0, -torch.inf).softmax(3)
        x = x + self.out((weights @ value).transpose(1, 2).reshape(b, n, c))
        return x + self.fc2(F.gelu(self.fc1(self.norms[1](x))))


class Incumbent(nn.Module):
    """taming-transformers' GPT, which encodes all tokens again for each new one."""

    def __init__(self, config: PriorConfig, layout: TokenLayout) -> None:
        super().__init__()
        self.token_embedding = nn.Embedding(layout.vocabulary, config.width)
        self.positions = nn.Parameter(torch.zeros(layout.length, config.width))
        blocks = [IncumbentBlock(config.width, config.heads, layout.length) for _ in range(config.layers)]
        self.blocks = nn.Sequential(*blocks, nn.LayerNorm(config.width))
        self.head = nn.Linear(config.width, layout.vocabulary, bias=False)

    @torch.no_grad()
    def sample(self, count: int) -> None:
        n = len(self.positions)
        tokens = torch.zeros(count, n, dtype=torch.int64)
        for index in range(EVERY // 2, n, EVERY):
            x = self.token_embedding(tokens[:, :index]) + self.positions[:index]
            probabilities = self.head(self.blocks(x))[:, -1].softmax(1)
            tokens[:, index] = torch.multinomial(probabilities, 1)[:, 0]


@torch.no_grad()
def sample_gpt2(model: GPT2LMHeadModel, count: int, n: int) -> None:
    token, past = torch.zeros(count, 1, dtype=torch.int64), DynamicCache(config=model.config)
    for _ in range(n):
        logits = model(token, past_key_values=past, use_cache=True).logits[:, -1]
        token = torch.multinomial(logits.softmax(1), 1)


def gpt2(config: PriorConfig, layout: TokenLayout) -> GPT2LMHeadModel:
    sizes = {"n_embd": config.width, "n_layer": config.layers, "n_head": config.heads, "n_positions": layout.length}
    rest = {"embd_pdrop": 0.0, "attn_pdrop": 0.0, "resid_pdrop": 0.0, "bos_token_id": None, "eos_token_id": None}
    return GPT2LMHeadModel(GPT2Config(vocab_size=layout.vocabulary + 1, **sizes, **rest))


def matrices(model: Prior) -> list[Tensor]:
    """The weights that each token is multiplied with, in their memory layout."""
    return [part.weight.detach() for part in model.modules() if isinstance(part, Affine)] + [model.head.weight.t()]


def products(weights: list[Tensor], x: dict[int, Tensor], n: int) -> None:
    for _ in range(n):
        for weight in weights:
            torch.mm(x[weight.shape[0]], weight)


def read_weights(weights: list[Tensor], n: int) -> None:
    for _ in range(n):
        for weight in weights:
            weight.sum()


def benchmark_sampling(config: PriorConfig, layout: TokenLayout, batch: int, rounds: int) -> dict[str, Any]:
    model, n = Prior(config, layout).eval(), layout.length
    weights = matrices(model)
    sample = lambda count: model.sample(Prompt(count), Sampling(), torch.Generator().manual_seed(0))  # noqa: E731
    bare = lambda count: {width: torch.randn(count, width) for width in (config.width, 4 * config.width)}  # noqa: E731
    works: dict[str, tuple[int, float, Callable[[], object]]] = {
        "taming, no cache": (1, EVERY, partial(Incumbent(config, layout).eval().sample, 1)),
        "GPT-2 of transformers, its cache": (1, 1, partial(sample_gpt2, gpt2(config, layout).eval(), 1, n)),
        "this": (1, 1, partial(sample, 1)),
        "the matrix products alone": (1, 1, partial(products, weights, bare(1), n)),
        "reading the weights alone": (1, 1, partial(read_weights, weights, n)),
        f"this, batch {batch}": (batch, 1, partial(sample, batch)),
        f"the matrix products alone, batch {batch}": (batch, 1, partial(products, weights, bare(batch), n)),
    }
    results = compare({name: work for name, (_, _, work) in works.items()}, rounds)
    for name, (count, share, _) in works.items():
        row, scale = results[name], EVERY * count / share
        row["milliseconds"] *= share
        for key in ("ratio", "ratio_least", "ratio_greatest"):
            row[key] *= scale  # of tokens, not of calls
        row["tokens_per_second"] = 1000 * count * n / row["milliseconds"]
        row["note"] = f"{row['tokens_per_second']:,.0f} tokens/s"
    return results


def step(loss: Callable[[], Tensor], optimizer: torch.optim.Optimizer) -> None:
    optimizer.zero_grad()
    loss().backward()
    optimizer.step()


def training(config: PriorConfig, layout: TokenLayout, batch: int, rounds: int) -> dict[str, Any]:
    model, oracle = Prior(config, layout).train(), gpt2(config, layout).train()
    tokens = torch.randint(layout.vocabulary, (batch, layout.length))
    codes = GenerationBatch(tokens, ("",) * batch)
    losses = {
        "GPT-2 of transformers": (oracle, lambda: oracle(tokens, labels=tokens).loss),
        "this": (model, lambda: sum_losses(model.loss(codes))),
    }
    works = {name: partial(step, loss, torch.optim.AdamW(net.parameters())) for name, (net, loss) in losses.items()}
    return compare(works, rounds)


def measure(rounds: int, layers: int, width: int, heads: int, side: int, entries: int, batch: int) -> dict[str, Any]:
    if batch < 1 or side * side % EVERY:
        raise UsageError(f"batch {batch} must be at least 1, and side {side} give a multiple of {EVERY} tokens")
    torch.manual_seed(0)
    config = PriorConfig(layers=layers, width=width, heads=heads)
    layout = TokenLayout(height=side, width=side, sizes=(entries,))
    return {
        f"sampling {layout.length} tokens, {layers} layers x {width}": benchmark_sampling(
            config, layout, batch, max(1, rounds // 3)
        ),
        "a step of training, batch 2": training(config, layout, 2, rounds),
    }


if __name__ == "__main__":
    report("Autoregressive prior", measure, layers=12, width=512, heads=8, side=16, entries=1024, batch=16)
