"""How fast a run goes: samples a second, time waiting for data, memory, and how much of the device is used."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import nn
from torch.profiler import record_function

from tavq.core.memory import resident_memory
from tavq.interfaces import Losses
from tavq.ops.collective import all_gather_uneven
from tavq.recipes.schema import LoopConfig
from tavq.training.flops import FlopCounter, device_peak

WAITING = "wait for data"
"""What a profile calls the time in which training waits for its next batch."""


class SpeedMeter:
    """Times the steps of a run; `read` gives what a log line says of the steps since the last one.

    The operations of a step are counted only on devices whose peak is known, in the first step, and again in the first
    step whose losses are others: when the discriminator starts, say.

    Args:
        config: the run's batch, which all processes share, and its precision.
        model: one on the device that the run uses.
    """

    def __init__(self, config: LoopConfig, model: nn.Module) -> None:
        self.batch = config.batch
        self.device = next(model.parameters()).device
        self.peak = device_peak(self.device, config.precision)
        self._flops: dict[frozenset[str], int] = {}
        self._kind: frozenset[str] = frozenset()
        self._restart()

    def _restart(self) -> None:
        self.steps, self.waited, self.done = 0, 0.0, 0
        self.started = time.perf_counter()

    def step(self, train_step: Callable[[Any], Losses], batches: Iterator[Any]) -> Losses:
        """Take the next batch and train with it; return the terms of the objective."""
        asked = time.perf_counter()
        with record_function(WAITING):
            batch = next(batches)
        self.waited += time.perf_counter() - asked
        terms = self._counted(train_step, batch)
        self._kind = frozenset(terms)
        self.steps += 1
        self.done += self._flops.get(self._kind, 0)
        return terms

    def _counted(self, train_step: Callable[[Any], Losses], batch: Any) -> Losses:
        """The step, whose operations are counted where no step with these losses has been."""
        if self.peak is None or self._kind in self._flops:
            return train_step(batch)
        with FlopCounter() as counter:
            terms = train_step(batch)
        self._flops[frozenset(terms)] = counter.total
        return terms

    def read(self) -> dict[str, Any]:
        """Return what `SPEED` of a log line holds, and start again. Every process must call it.

        `images_per_second` of all processes, `data_wait` (fraction of the time, mean over processes),
        `memory_…` in bytes (of the process that has most) and, where the device's peak is known, `mfu`: the fraction of
        that peak that the model's operations make up.
        """
        seconds = (time.perf_counter() - self.started) / max(self.steps, 1)
        memory = read_memory(self.device)
        own = torch.tensor([[self.waited / max(seconds * self.steps, 1e-9), *memory.values()]], dtype=torch.float64)
        everyone = all_gather_uneven(own)
        shown: dict[str, Any] = {
            "images_per_second": self.batch / seconds,
            "data_wait": float(everyone[:, 0].mean()),
            **{name: int(most) for name, most in zip(memory, everyone[:, 1:].amax(dim=0), strict=True)},
        }
        if self.peak is not None and self.done:
            # each process counts what it computes, which is its part of the batch
            shown["mfu"] = self.done / (seconds * self.steps) / self.peak
        self._restart()
        return shown


def read_memory(device: torch.device) -> dict[str, int]:
    """Memory in bytes: the peaks of a CUDA GPU so far; of other devices what is held now."""
    if device.type == "cuda":
        return {
            "memory_allocated": torch.cuda.max_memory_allocated(device),
            "memory_reserved": torch.cuda.max_memory_reserved(device),
        }
    if device.type == "mps":
        return {
            "memory_allocated": torch.mps.current_allocated_memory(),
            "memory_reserved": torch.mps.driver_allocated_memory(),
        }
    return {"memory_resident": resident_memory()}
