"""What an aligner adds to a training step of its backbone: forward, backward and Adam at the papers' size.

The backbone has pixel losses only; a perceptual network and a discriminator would make the share smaller. Text comes
ready from a store in training, so that here its vectors are drawn once.

Run: OMP_NUM_THREADS=1 python benchmarks/alignment.py [--aligner lg] [--rounds 5] [--json alignment.json]
Small: ... --size 64 --channels 16
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from timing import compare, report

from tavq.interfaces import Batch, TextFeatures, TextUnits
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.settings import TrainConfig
from tavq.training.step import GeneratorStep

BARS = {"ta": 1.05, "lg": 1.10}
TEXT_WIDTH = 768  # BERT's
UNITS = (60, 25, 8, 120)  # words, phrases, sentences and tokens of a long text
VOCABULARY = 8000  # distinct tokens of a caption corpus


class DrawnTokens:
    """A text source of a table of tokens alone, whose rows are drawn."""

    width = TEXT_WIDTH

    def __contains__(self, key: str) -> bool:
        return False

    def vectors(self, key: str) -> dict[str, Any]:
        raise KeyError(key)

    def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
        rows = torch.randn(VOCABULARY, TEXT_WIDTH, generator=torch.Generator().manual_seed(1))
        return [str(row) for row in range(VOCABULARY)], rows.numpy()


class Trained:
    """A tokenizer with its optimiser, for steps on one batch."""

    def __init__(self, batch: Batch, channels: int, aligner: str | None) -> None:
        config = TokenizerConfig.model_validate({"net": {"channels": channels}, "align": aligner})
        torch.manual_seed(0)
        tokenizer = Tokenizer(config.fitted(DrawnTokens())).to(memory_format=torch.channels_last)
        tokenizer.take(DrawnTokens())
        settings = TrainConfig(steps=1, adversarial=None)
        self.batch = batch
        self.optimiser = torch.optim.Adam(tokenizer.parameters(), settings.learning_rate, settings.betas)
        self.stepper = GeneratorStep(tokenizer, None, None, settings, torch.device("cpu"))

    def step(self) -> None:
        self.stepper.backward(self.batch, 0)
        self.optimiser.step()
        self.optimiser.zero_grad()


def draw(size: int, batch: int, text: bool) -> Batch:
    """Random pictures, and random vectors in place of encoded text."""
    generator = torch.Generator().manual_seed(0)
    images = torch.rand(batch, 3, size, size, generator=generator) * 2 - 1
    *split, whole = (
        TextUnits(torch.randn(batch, m, TEXT_WIDTH, generator=generator), torch.ones(batch, m, dtype=torch.bool))
        for m in UNITS
    )
    whole = replace(whole, ids=torch.randint(VOCABULARY, whole.mask.shape, generator=generator))
    words = TextFeatures(*split, whole, whole.vectors.mean(1))
    keys = tuple(str(i) for i in range(batch))
    return Batch(images.contiguous(memory_format=torch.channels_last), keys, words if text else None)


def measure(rounds: int, size: int, channels: int, batch: int, aligner: str) -> dict[str, dict[str, Any]]:
    with_text, without = draw(size, batch, True), draw(size, batch, False)
    rivals = {
        "backbone": Trained(without, channels, None),
        "upper grids, no alignment": Trained(without, channels, aligner),
        aligner: Trained(with_text, channels, aligner),
    }
    results: dict[str, Any] = compare({name: partial(rival.step) for name, rival in rivals.items()}, rounds)
    for row in results.values():
        row["cost"], row["cost_least"], row["cost_greatest"] = (
            1 / row[key] for key in ("ratio", "ratio_greatest", "ratio_least")
        )
        row["note"] = f"costs {row['cost']:.3f} ({row['cost_least']:.3f}-{row['cost_greatest']:.3f})"
    if aligner in BARS:
        results[aligner]["note"] += f", bar {BARS[aligner]}"
    return {f"{batch} × {size} px, {channels} channels": results}


if __name__ == "__main__":
    report("Training step", measure, size=256, channels=128, batch=1, aligner="ta")
