"""The cost of a training step of recipes, relative to the first one: forward, backward and Adam.

Images and encoded text are random, so that only the step is measured. The perceptual loss is off; the adversarial loss
is on with `--adversary 1`. A computed codebook has VQCT's number of words.

At the papers' sizes, methods with alignment and their base:
    OMP_NUM_THREADS=1 python benchmarks/steps.py --names vqgan-cub200,ta-vqgan-cub200,lg-vqgan-cub200 --batch 1
All methods on Flickr8k:
    OMP_NUM_THREADS=1 python benchmarks/steps.py --adversary 1 [--rounds 5] [--json steps.json]
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timing import compare, report
from torch import Tensor

from tavq import recipes
from tavq.interfaces import Batch, TextFeatures, TextUnits
from tavq.nets.discriminators import PatchDiscriminator
from tavq.recipes.schema import Recipe
from tavq.recipes.sizes import PaperText
from tavq.tokenizer import Tokenizer
from tavq.training.tokenizer.step import GeneratorStep

FLICKR = ",".join(
    f"{method}-flickr8k"
    for method in ("vqgan", "vqvae", "gumbel", "cvq", "vqct", "lg-vqgan", "lg-cvq", "ta-vqgan", "ta-cvq")
)
TEXT_WIDTH = 384  # MiniLM's
UNITS = (60, 25, 8, 120)  # words, phrases, sentences and tokens of a long text
VOCABULARY = 8000  # distinct tokens of a caption corpus


class RandomText(PaperText):
    """A text source of words and tokens with random vectors."""

    def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
        vectors = torch.randn(VOCABULARY, self.width, generator=torch.Generator().manual_seed(1))
        return [str(index) for index in range(VOCABULARY)], vectors.numpy()


class Candidate:
    """A recipe's tokenizer, discriminator and optimizers, for steps on one batch."""

    def __init__(self, recipe: Recipe, batch: int, adversary: bool) -> None:
        source, train = RandomText(TEXT_WIDTH), recipe.train
        settings = train.adversarial.model_copy(update={"start": 0}) if adversary and train.adversarial else None
        self.config = train.model_copy(update={"perceptual": None, "adversarial": settings})
        torch.manual_seed(0)
        tokenizer = Tokenizer(recipe.model.resolve_config(source))
        tokenizer.load_vocabulary(source)
        discriminator = PatchDiscriminator(settings.discriminator) if settings else None
        modules = [module.to(memory_format=torch.channels_last) for module in (tokenizer, discriminator) if module]
        self.optimizers = [
            torch.optim.Adam(module.parameters(), train.learning_rate, train.betas) for module in modules
        ]
        self.stepper = GeneratorStep(tokenizer, discriminator, None, self.config, torch.device("cpu"))
        self.batch = Batch(images(batch, recipe.data.size), ("",) * batch, text(batch) if recipe.model.align else None)

    def step(self) -> None:
        self.stepper.backward(self.batch, 0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad()


def images(batch: int, size: int) -> Tensor:
    pixels = torch.rand(batch, 3, size, size, generator=torch.Generator().manual_seed(0)) * 2 - 1
    return pixels.contiguous(memory_format=torch.channels_last)


def text(batch: int) -> TextFeatures:
    """Random vectors instead of encoded text."""
    generator = torch.Generator().manual_seed(0)
    *split, whole = (
        TextUnits(torch.randn(batch, m, TEXT_WIDTH, generator=generator), torch.ones(batch, m, dtype=torch.bool))
        for m in UNITS
    )
    whole = replace(whole, ids=torch.randint(VOCABULARY, whole.mask.shape, generator=generator))
    return TextFeatures(*split, whole, whole.vectors.mean(1))


def measure(rounds: int, names: str, batch: int, adversary: int) -> dict[str, dict[str, Any]]:
    chosen = {name: recipes.load(name) for name in names.split(",")}
    size = batch or next(iter(chosen.values())).train.batch
    candidates = {name: Candidate(recipe, size, bool(adversary)) for name, recipe in chosen.items()}
    results: dict[str, Any] = compare({name: partial(candidate.step) for name, candidate in candidates.items()}, rounds)
    for row in results.values():
        row["cost"], row["cost_least"], row["cost_greatest"] = (
            1 / row[key] for key in ("ratio", "ratio_greatest", "ratio_least")
        )
        row["note"] = f"costs {row['cost']:.3f} ({row['cost_least']:.3f}-{row['cost_greatest']:.3f})"
    return {f"batch {size}, {'with' if adversary else 'without'} the adversarial loss": results}


if __name__ == "__main__":
    report("Training step", measure, names=FLICKR, batch=0, adversary=0)
