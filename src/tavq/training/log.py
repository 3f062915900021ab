"""The run's log: one JSON object a logged step, means over the steps since the last."""

import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core import files


class RunLog:
    """Collects values each step and writes their means.

    Args:
        path: log.jsonl; lines after `step` are dropped, as a resumed run writes them again.
        step: the step the run goes on from.
        entries: k, for the usage of the codebook.
    """

    def __init__(self, path: Path, step: int, entries: int) -> None:
        self.path = path
        self.values: dict[str, list[Tensor]] = {}
        self.entries = entries
        self.counts: Tensor | None = None  # on the device of the indices, so that no step waits for it
        self.steps = 0
        self.started = time.perf_counter()
        if path.exists():
            kept = [line for line in files.read_json_lines(path) if line.get("step", 0) <= step]
            files.write_json_lines(path, kept)

    def add(self, values: dict[str, Tensor], indices: Tensor) -> None:
        """One step's values (kept as tensors: no wait for the device) and chosen indices."""
        for key, value in values.items():
            self.values.setdefault(key, []).append(value.detach())
        counts = torch.bincount(indices.flatten(), minlength=self.entries)
        self.counts = counts if self.counts is None else self.counts + counts
        self.steps += 1

    def write(self, step: int, learning_rate: float) -> dict[str, Any]:
        """Writes and returns the line of `step`, and starts the next mean."""
        seconds = (time.perf_counter() - self.started) / max(self.steps, 1)
        counts = torch.zeros(self.entries) if self.counts is None else self.counts.cpu()
        share = counts.double() / counts.sum().clamp(min=1)
        line: dict[str, Any] = {key: float(torch.stack(parts).float().mean()) for key, parts in self.values.items()}
        line = {
            "step": step,
            **line,
            "codebook/usage": float((counts > 0).double().mean()),
            "codebook/perplexity": float(torch.special.entr(share).sum().exp()),
            "codebook/positions": int(counts.sum()),
            "learning_rate": learning_rate,
            "seconds_per_step": seconds,
        }
        files.append_json_line(self.path, line)
        self.values, self.steps, self.counts, self.started = {}, 0, None, time.perf_counter()
        return line
