"""From images of 256 px to indices, against the incumbent's arrangement and diffusers' `VQModel`."""

from collections.abc import Iterator
from copy import deepcopy
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tavq import recipes
from tavq.bench import taming
from tavq.bench.case import Alternative, Case, Scale
from tavq.recipes.schema import Recipe
from tavq.tokenizer import Tokenizer

RECIPE, TOY_RECIPE = "vqgan-256", "vqgan-tiny"
BATCHES = {"cpu": (1, 4), "cuda": (1, 32)}


def load_recipe(scale: Scale) -> Recipe:
    """VQ-GAN at 256 px, f = 16."""
    return recipes.load(TOY_RECIPE if scale.toy else RECIPE)


def random_images(batch: int, size: int, device: torch.device) -> Tensor:
    """Noise in [-1, 1], channels first."""
    pixels = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0))
    return (2 * pixels - 1).to(device)


def taming_generator(recipe: Recipe) -> taming.Generator:
    """The incumbent's network of the recipe's sizes."""
    net, table = recipe.model.net, recipe.model.codebook
    return taming.Generator(net.channels, net.multipliers, net.blocks, table.entries, table.width)


def cases(scale: Scale) -> Iterator[Case]:
    """Single images, and small batches."""
    recipe = load_recipe(scale)
    torch.manual_seed(0)
    plain = taming_generator(recipe).to(scale.device).eval()
    tokenizer = Tokenizer(recipe.model).prepare(scale.device).requires_grad_(False)
    rounded = deepcopy(tokenizer).prepare(scale.device, "bf16")
    for batch in BATCHES["cuda" if scale.device.type == "cuda" else "cpu"]:
        images = random_images(batch, recipe.data.size, scale.device)
        case = Case(f"encode/batch-{batch}", f"Encode {recipe.data.size} px to indices, batch {batch}", rounds=5)
        case.alternatives += [
            Alternative("taming", partial(plain.encode, images)),
            Alternative("tavq", partial(tokenizer.encode, images), note="exact"),
            Alternative("tavq, bf16", partial(rounded.encode, images), note=agreement(rounded, tokenizer, images)),
        ]
        case.add_peer("diffusers", "diffusers", partial(diffusers_encoder, recipe, images))
        yield case


def agreement(rounded: Tokenizer, tokenizer: Tokenizer, images: Tensor) -> str:
    """How many indices bf16 keeps, of an untrained network on noise."""
    same = (rounded.encode(images) == tokenizer.encode(images)).float().mean().item()
    return f"{same:.1%} of fp32's indices (random weights)"


def diffusers_encoder(recipe: Recipe, images: Tensor) -> Iterator[Alternative]:
    """diffusers' encoder and quantizer with the same widths, which has its attention in the middle only."""
    from diffusers import VQModel

    net, table = recipe.model.net, recipe.model.codebook
    widths, stages = net.widths, len(net.multipliers)
    model: Any = VQModel(
        block_out_channels=widths,
        down_block_types=("DownEncoderBlock2D",) * stages,
        up_block_types=("UpDecoderBlock2D",) * stages,
        layers_per_block=net.blocks,
        latent_channels=table.width,
        num_vq_embeddings=table.entries,
        norm_num_groups=min(32, min(widths)),
    )
    model.to(images.device).eval()

    @torch.no_grad()
    def run() -> None:
        model.quantize(model.encode(images).latents)

    yield Alternative("diffusers", run)
