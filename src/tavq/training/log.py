"""The log of a run: one JSON object per logged step, with means over the steps since the last one."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tavq.core import files
from tavq.ops.collective import all_reduce_mean, rank
from tavq.training.log_lines import read_log


class RunLog:
    """Collects values at each step and writes their means.

    With several processes the first one writes, with the means over all of them.

    Args:
        path: log.jsonl; lines after `step` are dropped, because a resumed run writes them again.
        step: steps done so far.
    """

    def __init__(self, path: Path, step: int) -> None:
        self.path = path
        self.values: dict[str, list[Tensor]] = {}
        self.steps = 0
        self.started = time.perf_counter()
        if rank() == 0 and path.exists():
            earlier = [line for line in read_log(path) if line.get("step", 0) <= step]
            files.write_json_lines(path, earlier)

    def add(self, values: Mapping[str, Tensor]) -> None:
        """Add the values of one step; they stay tensors, so that the step does not wait for the device."""
        for key, value in values.items():
            self.values.setdefault(key, []).append(value.detach())
        self.steps += 1

    def write(self, step: int, more: Mapping[str, Any]) -> dict[str, Any]:
        """Write and return the line of `step`: the means and the values of `more`; then start new means."""
        seconds = (time.perf_counter() - self.started) / max(self.steps, 1)
        means = {key: float(all_reduce_mean(torch.stack(parts).float().mean())) for key, parts in self.values.items()}
        line: dict[str, Any] = {"step": step, **means, **more, "seconds_per_step": seconds}
        if rank() == 0:
            files.append_json_line(self.path, line)
        self.values, self.steps, self.started = {}, 0, time.perf_counter()
        return line
