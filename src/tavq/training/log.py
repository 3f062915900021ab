"""The run's log: one JSON object a logged step, means over the steps since the last."""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core import files
from tavq.interfaces import stacked
from tavq.metrics.codes import perplexity, spacing
from tavq.ops.collective import averaged, rank, summed


class RunLog:
    """Collects values each step and writes their means.

    Args:
        path: log.jsonl; lines after `step` are dropped, as a resumed run writes them again. The first of several
            processes writes it, with the means and sums over all of them.
        step: the step the run goes on from.
        sizes: entries of each part of the codebook, for its usage.
    """

    def __init__(self, path: Path, step: int, sizes: Sequence[int]) -> None:
        self.path = path
        self.values: dict[str, list[Tensor]] = {}
        self.sizes = tuple(sizes)
        self.counts: Tensor | None = None  # on the device of the indices, so that no step waits for it
        self.steps = 0
        self.started = time.perf_counter()
        if rank() == 0 and path.exists():
            kept = [line for line in files.read_json_lines(path) if line.get("step", 0) <= step]
            files.write_json_lines(path, kept)

    def add(self, values: dict[str, Tensor], indices: Tensor) -> None:
        """One step's values (kept as tensors: no wait for the device) and chosen indices."""
        for key, value in values.items():
            self.values.setdefault(key, []).append(value.detach())
        counts = torch.bincount(stacked(indices, self.sizes).flatten(), minlength=sum(self.sizes))
        self.counts = counts if self.counts is None else self.counts + counts
        self.steps += 1

    def write(self, step: int, learning_rate: float, entries: Float[Tensor, "k d"]) -> dict[str, Any]:
        """Writes and returns the line of `step`, and starts the next mean; `entries` are the codebook's of now."""
        seconds = (time.perf_counter() - self.started) / max(self.steps, 1)
        counts = torch.zeros(sum(self.sizes)) if self.counts is None else summed(self.counts).cpu()
        line: dict[str, Any] = {
            key: float(averaged(torch.stack(parts).float().mean())) for key, parts in self.values.items()
        }
        line = {
            "step": step,
            **line,
            "codebook/usage": float((counts > 0).double().mean()),
            "codebook/perplexity": perplexity(counts, self.sizes),
            "codebook/dead": int((counts == 0).sum()),
            "codebook/positions": int(counts.sum()),
            **{f"codebook/{key}": value for key, value in spacing(entries).items() if math.isfinite(value)},
            "learning_rate": learning_rate,
            "seconds_per_step": seconds,
        }
        if rank() == 0:
            files.append_json_line(self.path, line)
        self.values, self.steps, self.counts, self.started = {}, 0, None, time.perf_counter()
        return line
