"""Time of alternatives, run in turn so that a busy machine slows all of them equally, and their peak memory."""

import ctypes
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tavq.bench.case import Alternative


@dataclass(frozen=True)
class Measurement:
    """What was measured of one alternative; ratios are times faster than the first one, per item.

    Attributes:
        milliseconds: median time of an item.
        ratio: median of the ratios within rounds.
        least: the least of them.
        greatest: the greatest.
        memory: bytes at the peak of a call beyond those before it; None where the system does not tell.
    """

    milliseconds: float
    ratio: float
    least: float
    greatest: float
    memory: int | None = None


def seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds that a call takes on average: CPU time of all threads of this process, or by a CUDA device's events."""
    if device.type == "cuda":
        return _gpu_seconds(work, repeats, device)
    start = time.process_time()
    for _ in range(repeats):
        work()
    return (time.process_time() - start) / repeats


def _gpu_seconds(work: Callable[[], object], repeats: int, device: torch.device) -> float:
    """Seconds between two events on the device's stream, which hold all that `work` launches and the gaps between."""
    with torch.cuda.device(device):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        torch.cuda.synchronize()
        start.record()
        for _ in range(repeats):
            work()
        end.record()
        torch.cuda.synchronize()
    return start.elapsed_time(end) / 1000 / repeats


def compare(
    alternatives: Sequence[Alternative], rounds: int, device: torch.device, budget: float = float("inf")
) -> tuple[dict[str, Measurement], int]:
    """Measure all alternatives in turn; returns what was measured by name, and the rounds that were run.

    A round calls every alternative once. Ratios are taken within a round, so that they do not mix moments of different
    load.

    Args:
        alternatives: the first is the reference.
        rounds: the most rounds.
        device: where they compute.
        budget: seconds after which no further round starts, once there are two.
    """
    memory = {one.name: peak_memory(one.work, device) for one in alternatives}  # also the warm-up
    times: dict[str, list[float]] = {one.name: [] for one in alternatives}
    start = time.monotonic()
    for done in range(rounds):
        if done >= 2 and time.monotonic() - start > budget:
            break
        for one in alternatives:
            times[one.name].append(seconds(one.work, one.repeats, device) / one.items)
    reference = times[alternatives[0].name]
    return {name: _summarize(reference, own, memory[name]) for name, own in times.items()}, len(reference)


def _summarize(reference: list[float], own: list[float], memory: int | None) -> Measurement:
    # CPU time has a resolution; the least that is not 0 stands for none
    ratios = [one / max(other, 1e-9) for one, other in zip(reference, own, strict=True)]
    return Measurement(1000 * statistics.median(own), statistics.median(ratios), min(ratios), max(ratios), memory)


def peak_memory(work: Callable[[], object], device: torch.device) -> int | None:
    """Bytes at the peak of a second call beyond those before it, on the device, or of this process on Linux."""
    work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
        torch.cuda.reset_peak_memory_stats(device)
        before = torch.cuda.memory_allocated(device)
        work()
        return max(0, torch.cuda.max_memory_allocated(device) - before)
    if not _reset_peak():
        return None
    before = _status("VmRSS")
    work()
    return max(0, _status("VmHWM") - before)


def _reset_peak() -> bool:
    """Give freed memory back and set the peak to what is used now; False where the system cannot."""
    if not sys.platform.startswith("linux"):
        return False
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)  # else a call would use again what an earlier one freed
    if trim is not None:
        trim(0)
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _status(name: str) -> int:
    """A number of bytes of /proc/self/status."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(name))
    return int(line.split()[1]) * 1024
