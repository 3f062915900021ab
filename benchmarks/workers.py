"""Images that `tavq encode` reads and encodes a second, by the number of workers, on photographs that decode slowly.

The time is that of the clock, because the work is done by other processes; the load of the machine is printed.
"""

import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageFilter
from timing import report

from tavq.core.config import build
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.tokenizer import Tokenizer, TokenizerConfig

COUNTS = (1, 2, 0)
SIZE = 64
MODEL = {
    "net": {"channels": 8, "multipliers": [1, 1, 2]},
    "codebook": {"name": "learned", "entries": 64, "width": 8},
}


def write_photographs(folder: Path, count: int, side: int) -> None:
    """Write progressive JPEGs of smooth noise, which a decoder cannot skip through."""
    draw = np.random.default_rng(0)
    for number in range(count):
        noise = Image.fromarray(draw.integers(0, 255, (side, side, 3), np.uint8))
        noise.filter(ImageFilter.GaussianBlur(1)).save(folder / f"{number}.jpg", quality=92, progressive=True)


def encode_all(tokenizer: Tokenizer, dataset: FolderDataset, workers: int) -> float:
    """Seconds to encode a data set as `tavq encode` does."""
    start = time.perf_counter()
    for batch in EvaluationLoader(dataset, DataConfig(size=SIZE, workers=workers), batch=8):
        tokenizer.encode(batch.images)
    return time.perf_counter() - start


def measure(rounds: int, images: int, side: int) -> dict[str, dict[str, Any]]:
    """Seconds with one worker, two and none; ratios are taken within a round."""
    torch.manual_seed(0)
    tokenizer = Tokenizer(build(TokenizerConfig, MODEL, "The benchmark")).eval()
    times: dict[int, list[float]] = {count: [] for count in COUNTS}
    with tempfile.TemporaryDirectory() as place, torch.no_grad():
        write_photographs(Path(place), images, side)
        dataset = FolderDataset(Path(place))
        for _ in range(rounds):
            for count in COUNTS:
                times[count].append(encode_all(tokenizer, dataset, count))
    load = f"load {os.getloadavg()[0]:.1f}"
    rows = {f"{count} workers": _summary(times[1], times[count], images, load) for count in COUNTS}
    return {f"{images} JPEGs of {side} x {side} pixels": rows}


def _summary(one: list[float], own: list[float], images: int, load: str) -> dict[str, Any]:
    ratios = [a / b for a, b in zip(one, own, strict=True)]
    return {
        "milliseconds": 1000 * statistics.median(own),
        "ratio": statistics.median(ratios),
        "ratio_least": min(ratios),
        "ratio_greatest": max(ratios),
        "note": f"{images / statistics.median(own):.1f} images/s, {load}",
    }


if __name__ == "__main__":
    report("encoding with workers", measure, images=32, side=2000)
