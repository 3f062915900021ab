"""How many cores of the machine this process may use."""

import os
from pathlib import Path

from tavq.core.torchrun import launched_here

MOST_WORKERS = 8
"""More processes are started only where they are asked for."""


def count_cores() -> float:
    """The cores that this process may use, by its affinity and the limit of its container."""
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return cores


def one_worker_a_core() -> int:
    """A process for each core, at most 8 and at least 1; the processes of torchrun share the cores of their machine."""
    return max(1, min(int(count_cores()) // launched_here(), MOST_WORKERS))
