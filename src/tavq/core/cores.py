"""How many cores of the machine this process may use."""

import os
from pathlib import Path


def count_cores() -> float:
    """The cores that this process may use, by its affinity and the limit of its container."""
    cores: float = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return min(cores, int(quota) / int(period))
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return cores
