"""Sampling 256 tokens from an autoregressive prior of 12 layers x 512, against GPTs with and without a cache."""

from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tavq.bench.case import Alternative, Case, Scale
from tavq.bench.taming_gpt import EVERY, TamingGPT
from tavq.nets.causal import Affine
from tavq.tasks.base import Prompt, Sampling, TokenLayout
from tavq.tasks.prior import Prior, PriorConfig

TOGETHER = 16


def cases(scale: Scale) -> Iterator[Case]:
    """One image at a time; ours also sixteen together, per image."""
    config = PriorConfig(layers=2, width=32, heads=2) if scale.toy else PriorConfig(layers=12, width=512, heads=8)
    side, entries = (4, 32) if scale.toy else (16, 1024)
    layout = TokenLayout(height=side, width=side, sizes=(entries,))
    torch.manual_seed(0)
    model = Prior(config, layout).to(scale.device).eval()
    plain = TamingGPT(config.layers, config.width, config.heads, layout.length, layout.vocabulary)
    plain.to(scale.device).eval()
    weights = [part.weight.detach() for part in model.modules() if isinstance(part, Affine)] + [model.head.weight.t()]
    shape = f"{config.layers} layers x {config.width}"
    case = Case("sampling/image", f"Sample {layout.length} tokens, {shape}, per image", rounds=3)
    note = f"measured at every {EVERY}th token: its cost grows linearly"
    case.alternatives += [
        Alternative("taming", partial(plain.sample, 1), items=1 / EVERY, note=note),
        Alternative("taming, its cache", partial(plain.sample_with_past, 1)),
        Alternative("tavq", partial(sample, model, 1)),
        Alternative(f"tavq, batch {TOGETHER}", partial(sample, model, TOGETHER), items=TOGETHER),
        Alternative("the products alone", partial(products, weights, layout.length, 1)),
        Alternative(
            f"the products alone, batch {TOGETHER}",
            partial(products, weights, layout.length, TOGETHER),
            items=TOGETHER,
        ),
    ]
    case.add_peer("GPT-2 of transformers, its cache", "transformers", partial(gpt2, config, layout, scale))
    yield case


def sample(model: Prior, count: int) -> Tensor:
    """Ours, with its cache."""
    return model.sample(Prompt(count), Sampling(), torch.Generator(model.head.weight.device).manual_seed(0))


def products(weights: list[Tensor], tokens: int, count: int) -> None:
    """The products with the weights that each token needs."""
    x = {weight.shape[0]: weight.new_ones(count, weight.shape[0]) for weight in weights}
    for _ in range(tokens):
        for weight in weights:
            torch.mm(x[weight.shape[0]], weight)


def gpt2(config: PriorConfig, layout: TokenLayout, scale: Scale) -> Iterator[Alternative]:
    """The GPT-2 of transformers of the same size, with its cache."""
    from transformers import DynamicCache, GPT2Config, GPT2LMHeadModel

    sizes = GPT2Config(
        vocab_size=layout.vocabulary + 1,
        n_embd=config.width,
        n_layer=config.layers,
        n_head=config.heads,
        n_positions=layout.length,
        bos_token_id=None,
        eos_token_id=None,
    )
    model: Any = GPT2LMHeadModel(sizes)
    model.eval().to(scale.device)

    @torch.no_grad()
    def run() -> None:
        token = torch.zeros(1, 1, dtype=torch.int64, device=scale.device)
        past = DynamicCache(config=model.config)
        for _ in range(layout.length):
            logits = model(token, past_key_values=past, use_cache=True).logits[:, -1]
            token = torch.multinomial(logits.softmax(1), 1)

    yield Alternative("GPT-2 of transformers, its cache", run)
