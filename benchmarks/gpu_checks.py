"""The first checks on a GPU, in one run that begins no part after 11 minutes, with the numbers as JSON.

    python benchmarks/gpu_checks.py --json gpu.json                  # all parts
    python benchmarks/gpu_checks.py --json gpu.json --parts waits,grid --skip kernels --seconds 300
    python benchmarks/gpu_checks.py --device cpu --toy --json toy.json   # shows that the script itself works

Parts: `waits` (how often the CPU waits for the GPU in a step, by torch.cuda.set_sync_debug_mode), `resume` (the time of
a step before and after a resume), `indices` (the same indices on GPU and CPU), `encode` (images a second), `grid` (the
time of a step over batch x channels_last x precision x compile), `kernels` (benchmarks/kernels.py). A part that fails
says so in the JSON and the next one begins; no part begins after `--seconds`. Ends with 0 if no part failed, 1 if one
did, and 2 without a CUDA device.
"""

import argparse
import itertools
import os
import subprocess
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from steps import TEXT_WIDTH, RandomText, images, text

from tavq import recipes
from tavq.bench.timing import seconds
from tavq.core.files import read_json, write_json
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.interfaces import Batch
from tavq.training import checkpoint
from tavq.training.gpu import gpu_settings
from tavq.training.tokenizer.trainer import Trainer

REPEATS, WARMUP = 10, 3


@dataclass(frozen=True)
class Sizes:
    """What is measured: recipes with and without alignment, batches, and images to encode."""

    recipe: str
    aligned: str
    batches: tuple[int, ...]
    encoded: int
    encode_batches: tuple[int, ...]


FULL = Sizes("vqgan-256", "ta-vqgan-coco", (1, 6, 32), 256, (16, 64))
TOY = Sizes("vqgan-tiny", "ta-vqgan-tiny", (1, 2), 4, (2,))


class Bench:
    """Trainers on the device, in a folder that is removed at the end.

    Args:
        device: where they train.
        sizes: of what is measured.
        folder: for run folders and a few drawn images.
        seconds: after which no further part or case begins.
    """

    def __init__(self, device: torch.device, sizes: Sizes, folder: Path, seconds: float) -> None:
        self.device, self.sizes, self.folder = device, sizes, folder
        self.end = time.monotonic() + seconds
        self.repeats = REPEATS if device.type == "cuda" else 1
        self._runs = 0
        noise = np.random.default_rng(0)
        for number in range(2):
            save_png(folder / f"data/{number}.png", noise.integers(0, 256, (64, 64, 3), np.uint8))

    def is_over(self) -> bool:
        """Whether the time is spent."""
        return time.monotonic() > self.end

    def trainer(self, name: str, **train: Any) -> Trainer:
        """A trainer of a recipe whose discriminator takes part from the first step on."""
        source = RandomText(TEXT_WIDTH)
        settings = {"train.adversarial.start": 0, "data.workers": 0}
        recipe = recipes.load(name, settings | {f"train.{key}": value for key, value in train.items()})
        self._runs += 1
        dataset = FolderDataset(self.folder / "data", "train")
        run = self.folder / f"run-{self._runs}"
        return Trainer(recipe, dataset, run, source if recipe.model.reads_text else None, device=self.device)

    def stepper(self, trainer: Trainer) -> Callable[[], object]:
        """A training step on one batch that is on the device already."""
        recipe = trainer.recipe
        batch = Batch(
            images(recipe.train.batch, recipe.data.size).to(self.device),
            ("",) * recipe.train.batch,
            text(recipe.train.batch) if recipe.model.align is not None else None,
        )

        def step() -> None:
            trainer.loop.train_step(batch)
            trainer.loop.step += 1

        return step

    def milliseconds(self, trainer: Trainer) -> float:
        """The time of a step after a warm-up."""
        step = self.stepper(trainer)
        with gpu_settings(trainer.config):
            for _ in range(WARMUP):
                step()
            return 1000 * seconds(step, self.repeats, self.device)

    def free(self) -> None:
        """Give the memory of earlier trainers back, and begin a new peak."""
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int | None:
        """Bytes of the GPU at the peak since `free`."""
        return torch.cuda.max_memory_allocated(self.device) if self.device.type == "cuda" else None


@contextmanager
def waits_noted(device: torch.device) -> Iterator[list[str]]:
    """Within this context the list grows by one line for each time that the CPU waits for the GPU."""
    found: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        if device.type == "cuda":
            torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            if device.type == "cuda":
                torch.cuda.set_sync_debug_mode("default")
            found += [f"{Path(one.filename).name}:{one.lineno}" for one in caught if "synchroniz" in str(one.message)]


def check_waits(bench: Bench) -> dict[str, Any]:
    """Waits in a step of each recipe, and the lines of code that wait."""
    results: dict[str, Any] = {}
    for name in (bench.sizes.recipe, bench.sizes.aligned):
        trainer = bench.trainer(name, batch=2)
        step = bench.stepper(trainer)
        with gpu_settings(trainer.config):
            for _ in range(WARMUP):
                step()
            with waits_noted(bench.device) as lines:
                step()
        results[name] = {"waits": len(lines), "lines": lines}
    return results


def check_resume(bench: Bench) -> dict[str, Any]:
    """Milliseconds of a step of a new run and of one that loaded a checkpoint, which must not leave a fast path."""
    before = bench.trainer(bench.sizes.recipe)
    results = {"new": bench.milliseconds(before)}
    groups = {f"{name}.optimizer": checkpoint.flatten_optimizer(found) for name, found in before.optimizers.items()}
    weights = {name: module.state_dict() for name, module in before.modules.items() if module is not None}
    checkpoint.save(bench.folder / "checkpoints", 1, {**weights, **groups}, {"consumed": 0}, keep=1)
    del before
    after = bench.trainer(bench.sizes.recipe)
    stored, _ = checkpoint.load(bench.folder / "checkpoints", 1)
    for name, module in after.modules.items():
        if module is not None:
            checkpoint.restore_module(module, stored[name], "The checkpoint")
            checkpoint.restore_optimizer(after.optimizers[name], stored[f"{name}.optimizer"])
    results["resumed"] = bench.milliseconds(after)
    return {**results, "ratio": results["resumed"] / results["new"]}


def check_indices(bench: Bench) -> dict[str, Any]:
    """The fraction of indices that GPU and CPU share, of the whole encoder and of the same features."""
    trainer = bench.trainer(bench.sizes.recipe)
    tokenizer = trainer.copy_tokenizer()
    size = trainer.recipe.data.size
    batch = images(2 if bench.device.type == "cuda" else 1, size)
    with torch.no_grad():
        _, features = tokenizer.encoder(batch.to(bench.device))
        own = tokenizer.quantizer.indices(features, tokenizer.codebook).cpu()
        whole = tokenizer.encode(batch.to(bench.device)).cpu()
        there = tokenizer.cpu()
        expected = there.quantizer.indices(features.cpu(), there.codebook)
        encoded = there.encode(batch)
    return {
        "indices": expected.numel(),
        "equal_of_the_same_features": float((own == expected).double().mean()),
        "equal_of_the_same_images": float((whole == encoded).double().mean()),
    }


def check_encode(bench: Bench) -> dict[str, Any]:
    """Images a second that a tokenizer encodes, in fp32 and bf16, without reading files."""
    tokenizer = bench.trainer(bench.sizes.recipe).copy_tokenizer()
    size = recipes.load(bench.sizes.recipe).data.size
    results: dict[str, Any] = {}
    for precision, batch in itertools.product(("fp32", "bf16"), bench.sizes.encode_batches):
        given = images(batch, size).to(bench.device)
        repeats = max(1, bench.sizes.encoded // batch)
        with torch.autocast(bench.device.type, torch.bfloat16, enabled=precision == "bf16"):
            tokenizer.encode(given)
            results[f"{precision}, batch {batch}"] = batch / seconds(
                lambda given=given: tokenizer.encode(given), repeats, bench.device
            )
    return results


def check_grid(bench: Bench) -> list[dict[str, Any]]:
    """The time of a step and the peak of memory for each setting; a case that fails, of memory for one, says so."""
    compiled = (False, True) if bench.device.type == "cuda" else (False,)
    names = (bench.sizes.recipe, bench.sizes.aligned)
    cases = [*itertools.product(names, bench.sizes.batches, (True, False), ("fp32", "bf16"), compiled)]
    cases.sort(key=lambda case: (case[4], case[0] != names[0], case[1]))  # compiling is slow, so it comes last
    rows: list[dict[str, Any]] = []
    for name, batch, channels_last, precision, compiles in cases:
        row = {"recipe": name, "batch": batch, "channels_last": channels_last, "precision": precision}
        if bench.is_over():
            return [*rows, {"not_measured": len(cases) - len(rows), "reason": "the time was spent"}]
        bench.free()
        settings = {"batch": batch, "channels_last": channels_last, "precision": precision}
        try:
            row["milliseconds"] = bench.milliseconds(bench.trainer(name, **settings, compile=compiles))
            row |= {"images_per_second": 1000 * batch / row["milliseconds"], "memory": bench.peak()}
        except RuntimeError as error:
            row["error"] = str(error).splitlines()[0]
        rows.append({**row, "compile": compiles})
    return rows


def check_kernels(bench: Bench) -> dict[str, Any]:
    """What benchmarks/kernels.py finds, in a process of its own."""
    written = bench.folder / "kernels.json"
    toy = bench.device.type != "cuda"
    command = [sys.executable, str(Path(__file__).with_name("kernels.py")), "--json", str(written)]
    more = ["--rounds", "1", "--toy", "1"] if toy else ["--rounds", "5"]
    environment = {**os.environ, **({"TRITON_INTERPRET": "1"} if toy else {})}
    left = max(30.0, bench.end - time.monotonic())
    done = subprocess.run([*command, *more], env=environment, capture_output=True, text=True, timeout=left, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip().splitlines()[-1])
    found: dict[str, Any] = read_json(written)["cases"]
    return found


PARTS: Mapping[str, Callable[[Bench], Any]] = {
    "waits": check_waits,
    "resume": check_resume,
    "indices": check_indices,
    "encode": check_encode,
    "kernels": check_kernels,
    "grid": check_grid,
}
"""In their order: the longest comes last, and stops between its cases where the time is spent."""


def run_parts(bench: Bench, names: list[str]) -> dict[str, Any]:
    """The result of each part with its seconds, or why it has none."""
    results: dict[str, Any] = {}
    for name in names:
        if bench.is_over():
            results[name] = {"skipped": "the time was spent"}
            continue
        started = time.monotonic()
        bench.free()
        try:
            results[name] = {"result": PARTS[name](bench)}
        except Exception as error:  # the machine is lent for minutes: what fails must not cost the other parts
            results[name] = {"error": f"{type(error).__name__}: {error}", "traceback": traceback.format_exc()}
        results[name]["seconds"] = round(time.monotonic() - started, 1)
        print(f"{name}: {'failed' if 'error' in results[name] else 'done'}, {results[name]['seconds']} s", flush=True)
    return results


def describe(device: torch.device) -> dict[str, Any]:
    """The device and the versions."""
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return {"device": name, "torch": torch.__version__, "cuda": torch.version.cuda, "python": sys.version.split()[0]}


def main() -> int:
    """Run the parts that are asked for, and write the JSON."""
    parser = argparse.ArgumentParser(description="First checks on a GPU")
    parser.add_argument("--parts", default=",".join(PARTS), help="which to run (default all)")
    parser.add_argument("--skip", default="", help="which to leave out")
    parser.add_argument("--seconds", type=float, default=660, help="no part begins after this (default 660)")
    parser.add_argument("--device", default="cuda", help="cuda, or cpu with --toy")
    parser.add_argument("--toy", action="store_true", help="small recipes, few repeats")
    parser.add_argument("--json", type=Path, required=True, help="file for the numbers")
    options = parser.parse_args()
    asked, left_out = (set(filter(None, words.split(","))) for words in (options.parts, options.skip))
    unknown = sorted((asked | left_out) - set(PARTS))
    if unknown:
        parser.error(f"unknown part {', '.join(unknown)}; known: {', '.join(PARTS)}")
    if options.device == "cuda" and not torch.cuda.is_available():
        print("There is no CUDA device here. To try the script itself: --device cpu --toy", file=sys.stderr)
        return 2
    device = torch.device(options.device)
    torch.set_num_threads(1 if options.toy else torch.get_num_threads())
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(device, TOY if options.toy else FULL, Path(folder), options.seconds)
        parts = run_parts(bench, [name for name in PARTS if name in asked - left_out])
    write_json(options.json, {"machine": describe(device), "parts": parts})
    return int(any("error" in part for part in parts.values()))


if __name__ == "__main__":
    sys.exit(main())
