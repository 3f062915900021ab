"""The cost of a step of `align-frozen` on cached codes and with a pass of encoder and decoder, and its losses in both.

CPU time of the steps after the first two, in turns, so that loading, evaluation and encoding do not count.

Run: OMP_NUM_THREADS=1 python benchmarks/cached_codes.py MODEL --data scenes --out work
"""

import argparse
import json
import time
from pathlib import Path

import tavq

FIRST = 2
"""Steps that are not counted: the first ones allocate."""


def measure(model: Path, data: Path, out: Path, cached: bool, steps: int, batch: int) -> tuple[float, list[float]]:
    """CPU seconds a step, and the loss of every step."""
    clock: dict[int, float] = {}

    def note(step: int, total: int | None, text: str) -> None:
        clock[step] = time.process_time()

    settings = {
        "train.start_from": str(model), "train.cache_codes": cached, "train.steps": FIRST + steps, "train.batch": batch,
        "train.evaluate_first": 0, "train.log_every": 1, "train.checkpoint_every": 10**6,
    }  # fmt: skip
    tavq.train("align-frozen", data=data, out=out, settings=settings, progress=note)
    lines = [json.loads(line) for line in (out / "log.jsonl").read_text().splitlines()]
    losses = [sum(value for key, value in line.items() if key.startswith("align/")) for line in lines]
    return (clock[FIRST + steps - 1] - clock[FIRST]) / (steps - 1), losses  # the last step writes a checkpoint


def main() -> None:
    """Print the cost of both, their ratio and how far the losses are apart."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("model", type=Path)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--rounds", type=int, default=2)
    given = parser.parse_args()
    for turn in range(given.rounds):
        (fast, losses), (slow, others) = (
            measure(given.model, given.data, given.out / f"{turn}-{name}", cached, given.steps, given.batch)
            for name, cached in (("cached", True), ("encoded", False))
        )
        far = max(abs(a - b) for a, b in zip(losses, others, strict=True))
        print(
            f"round {turn + 1}: {fast * 1000:.0f} ms a step on cached codes, {slow * 1000:.0f} ms with the encoder: "
            f"{slow / fast:.1f} times; losses differ by {far:.1e} at most",
            flush=True,
        )


if __name__ == "__main__":
    main()
