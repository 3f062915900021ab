"""Peak memory of one training step: as it is, with recomputed activations, and accumulated over parts of the batch.

    python benchmarks/step_memory.py          # a table in Markdown; each row is measured in a process of its own

The number is the growth of the process's peak resident memory during the second step; the first fills caches.
"""

import resource
import subprocess
import sys
import time
from pathlib import Path

import torch

from tavq.core.config import build
from tavq.interfaces import Batch
from tavq.nets.discriminators import PatchDiscriminator
from tavq.recipes.schema import TrainConfig
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.recomputation import recompute_blocks
from tavq.training.tokenizer.accumulation import AccumulatedStep
from tavq.training.tokenizer.step import GeneratorStep

BATCH, SIZE = 8, 64
MODEL = {
    "net": {"channels": 64, "multipliers": [1, 1, 2, 2], "blocks": 2},
    "codebook": {"name": "learned", "entries": 1024, "width": 64, "init": "features"},
}
ROWS = [(1, False), (1, True), (2, False), (4, False), (8, False), (8, True)]


def measure(accumulate: int, recompute: bool) -> None:
    """Print the growth of the peak in MB and the seconds of one step."""
    torch.manual_seed(0)
    adversarial = {"start": 0, "discriminator": {"channels": 32, "layers": 3, "norm": "group"}}
    settings = {"steps": 1, "batch": BATCH, "accumulate": accumulate, "adversarial": adversarial}
    config = TrainConfig.model_validate(settings)
    tokenizer = Tokenizer(build(TokenizerConfig, MODEL, "the benchmark")).train()
    assert config.adversarial is not None
    discriminator = PatchDiscriminator(config.adversarial.discriminator)
    if recompute:
        recompute_blocks(tokenizer)
    kind = AccumulatedStep if accumulate > 1 else GeneratorStep
    stepper = kind(tokenizer, discriminator, None, config, torch.device("cpu"))
    small = Batch(torch.rand(accumulate, 3, SIZE, SIZE) * 2 - 1, ("",) * accumulate)
    stepper.backward(small, 0)  # gradients and libraries take their memory
    batch = Batch(torch.rand(BATCH, 3, SIZE, SIZE) * 2 - 1, ("",) * BATCH)
    before, started = peak(), time.perf_counter()
    stepper.backward(batch, 0)
    print(f"{peak() - before:.0f} {time.perf_counter() - started:.1f}")


def peak() -> float:
    """The largest resident memory of this process so far, in MB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> None:
    """Print the table."""
    print(f"| accumulate | recompute | MB above start ({BATCH} images of {SIZE} px) | seconds |\n|---|---|---|---|")
    for accumulate, recompute in ROWS:
        command = [sys.executable, str(Path(__file__)), str(accumulate), str(int(recompute))]
        megabytes, seconds = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
        print(f"| {accumulate} | {'yes' if recompute else 'no'} | {megabytes} | {seconds} |")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        measure(int(sys.argv[1]), sys.argv[2] == "1")
    else:
        main()
