"""A training step of VQ-GAN at 256 px: tokenizer, discriminator and perceptual network, forward, backward and Adam."""

from collections.abc import Callable, Iterator
from functools import partial

import torch
from torch import Tensor

from tavq.bench import taming
from tavq.bench.case import Alternative, Case, Scale
from tavq.bench.rows.encode import load_recipe, random_images, taming_generator
from tavq.interfaces import Batch
from tavq.nets.discriminators import PatchDiscriminator
from tavq.recipes.schema import AdversarialConfig, Recipe, TrainConfig
from tavq.tokenizer import Tokenizer
from tavq.training.tokenizer.step import GeneratorStep

BATCHES = {"cpu": (1,), "cuda": (1, 6)}


def cases(scale: Scale) -> Iterator[Case]:
    """One image at a time on a CPU; one and six on a GPU."""
    recipe = load_recipe(scale)
    for batch in BATCHES["cuda" if scale.device.type == "cuda" else "cpu"]:
        images = random_images(batch, recipe.data.size, scale.device)
        perceptual = make_perceptual(scale)
        case = Case(f"step/batch-{batch}", f"Training step, {recipe.data.size} px, batch {batch}", rounds=3)
        case.alternatives += [
            Alternative("taming", incumbent_step(recipe, images, perceptual, scale)),
            Alternative("tavq", own_step(recipe, images, perceptual, "fp32", scale)),
            Alternative("tavq, bf16", own_step(recipe, images, perceptual, "bf16", scale)),
        ]
        yield case


def make_perceptual(scale: Scale) -> taming.Perceptual:
    """VGG-16 with random weights, which cost what learned ones do."""
    sizes = {"widths": (4, 8), "depths": (1, 1)} if scale.toy else {}
    return taming.Perceptual(**sizes).to(scale.device)


def incumbent_step(recipe: Recipe, images: Tensor, perceptual: taming.Perceptual, scale: Scale) -> Callable[[], None]:
    """The incumbent's, in float32."""
    torch.manual_seed(0)
    settings = adversarial_settings(recipe.train)
    discriminator = taming.make_discriminator(settings.discriminator.channels, settings.discriminator.layers)
    step = taming.Step(taming_generator(recipe).to(scale.device), discriminator.to(scale.device), perceptual)
    return partial(step.run, images)


def adversarial_settings(train: TrainConfig) -> AdversarialConfig:
    """The adversarial loss of a recipe, from the first step on."""
    assert train.adversarial is not None, "the recipe of this row has an adversarial loss"
    return train.adversarial.model_copy(update={"start": 0, "warmup": 0})


def own_step(
    recipe: Recipe, images: Tensor, perceptual: taming.Perceptual, precision: str, scale: Scale
) -> Callable[[], None]:
    """Ours: one forward pass of the generator, channels last, in the precision of `train.precision`."""
    torch.manual_seed(0)
    settings = adversarial_settings(recipe.train)
    # any weights stand for those that `perceptual` names: the network is given, and costs the same
    changed = {"adversarial": settings, "precision": precision}
    config = recipe.train.model_copy(update=changed)
    tokenizer, discriminator = Tokenizer(recipe.model), PatchDiscriminator(settings.discriminator)
    network = make_perceptual(scale)
    network.load_state_dict(perceptual.state_dict())
    for part in (tokenizer, discriminator, network):
        part.to(scale.device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizers = [torch.optim.Adam(part.parameters(), 4.5e-6, (0.5, 0.9)) for part in (tokenizer, discriminator)]
    step = GeneratorStep(tokenizer, discriminator, network, config, scale.device)
    batch = Batch(images.contiguous(memory_format=torch.channels_last), ("",) * len(images), None)

    def run() -> None:
        step.backward(batch, 0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()

    return run
