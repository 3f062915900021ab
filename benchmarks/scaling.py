"""Weak and strong scaling of a recipe's training step over processes of this machine, which gloo connects.

Weak: each process has `--batch` images, however many there are. Strong: the processes share `--batch` images. Apart: as
weak, but processes that know nothing of one another; what is slower than this is the cost of talking, and the rest is
that of sharing cores and memory. All are started once and measured in turn, so that load from elsewhere meets each.

    OMP_NUM_THREADS=1 python benchmarks/scaling.py [--recipe vqgan-tiny] [--batch 8] [--worlds 1,2,4] [--rounds 5]
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from steps import Candidate
from timing import report

from tavq import recipes
from tavq.ops.shares import share_of, sharing
from tavq.tokenizer import Tokenizer

WEAK, STRONG, APART = "weak", "strong", "apart"
READY = "ready"


def serve(recipe: str, rank: int, world: int, batch: int, store: str) -> None:
    """Train as many steps as each line of the input names after the way, and print a line after each block."""
    if world > 1:
        dist.init_process_group(
            "gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(minutes=10)
        )
    torch.set_num_threads(1)
    loaded = recipes.load(recipe)
    ways = {WEAK: (batch * world, batch)}
    if world > 1:
        ways[STRONG] = (batch, share_of(batch, rank, world).count)
    candidates = {way: Candidate(loaded, own, adversary=True) for way, (_, own) in ways.items()}
    print(READY, flush=True)
    for line in sys.stdin:
        way, steps = line.split()
        with sharing(ways[way][0], world):
            for _ in range(int(steps)):
                candidates[way].step()
        print(READY, flush=True)
    if world > 1:
        dist.destroy_process_group()


class Group:
    """Processes that train together, or apart, and wait between the blocks of steps."""

    def __init__(self, held: ExitStack, recipe: str, count: int, batch: int, folder: Path, together: bool) -> None:
        self.count = count
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.processes = []
        for number in range(count):
            place = (number, count) if together else (0, 1)
            words = [recipe, *place, batch, folder / f"store-{count}"]
            process = subprocess.Popen(
                [sys.executable, __file__, "serve", *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                env=environment,
            )
            held.callback(process.kill)
            self.processes.append(process)
        self._wait()

    def _wait(self) -> None:
        for process in self.processes:
            assert process.stdout is not None
            if process.stdout.readline().strip() != READY:
                raise SystemExit("A process ended; its error is above.")

    def seconds(self, way: str, steps: int) -> float:
        """Seconds until the last process has done a step, on average."""
        started = time.perf_counter()
        for process in self.processes:
            assert process.stdin is not None
            process.stdin.write(f"{way} {steps}\n")
            process.stdin.flush()
        self._wait()
        return (time.perf_counter() - started) / steps


def measure(rounds: int, recipe: str, batch: int, worlds: str, steps: int) -> dict[str, dict[str, Any]]:
    """Milliseconds a step and images a second of each number of processes, and the efficiency beside one process."""
    counts = [int(count) for count in worlds.split(",")]
    if counts[0] != 1 or any(count > batch for count in counts):
        raise SystemExit(f"--worlds {worlds}: the first must be 1, and none may be above --batch {batch}")
    times: dict[tuple[str, int], list[float]] = {}
    with ExitStack() as held:
        folder = Path(held.enter_context(tempfile.TemporaryDirectory()))
        groups: dict[tuple[str, int], Group] = {}
        for count in counts:
            together = Group(held, recipe, count, batch, folder, together=True)
            groups |= {(way, count): together for way in ((WEAK, STRONG) if count > 1 else (WEAK,))}
            if count > 1:
                groups[APART, count] = Group(held, recipe, count, batch, folder, together=False)
        for number in range(rounds + 1):
            for (way, count), group in groups.items():
                found = group.seconds(WEAK if way == APART else way, steps if number else 1)
                if number:  # the first round is the warm-up
                    times.setdefault((way, count), []).append(found)
    times[STRONG, 1] = times[APART, 1] = times[WEAK, 1]
    return {f"{way}, {_describe(recipe)}": _summarize(way, counts, batch, times) for way in (WEAK, STRONG, APART)}


def _describe(recipe: str) -> str:
    with torch.device("meta"):
        tokenizer = Tokenizer(recipes.load(recipe).model)
    parameters = sum(parameter.numel() for parameter in tokenizer.parameters())
    cores = len(os.sched_getaffinity(0))
    return f"{recipe}: {parameters / 1e6:.2f} M parameters, {4 * parameters / 1e6:.2f} MB of gradients, {cores} cores"


def _summarize(
    way: str, counts: list[int], batch: int, times: dict[tuple[str, int], list[float]]
) -> dict[str, dict[str, Any]]:
    """One row a number of processes; the ratio is how many times as many images a second as one process."""
    rows: dict[str, dict[str, Any]] = {}
    alone = times[way, 1]
    for count in counts:
        own = times[way, count]
        more = 1 if way == STRONG else count
        ratios = [more * one / many for one, many in zip(alone, own, strict=True)]
        ratio, median = statistics.median(ratios), statistics.median(own)
        rate = batch * more / median
        rows[f"{count} processes" if count > 1 else "1 process"] = {
            "milliseconds": 1000 * median,
            "ratio": ratio,
            "ratio_least": min(ratios),
            "ratio_greatest": max(ratios),
            "images_per_second": rate,
            "efficiency": ratio / count,
            "note": f"{rate:.1f} images/s, efficiency {ratio / count:.0%}",
        }
    return rows


if __name__ == "__main__":
    if sys.argv[1:2] == ["serve"]:
        serve(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]), int(sys.argv[5]), sys.argv[6])
    else:
        report("Scaling", measure, recipe="vqgan-tiny", batch=8, worlds="1,2,4", steps=5)
