"""Jobs for the tests of processes side by side; another process imports them by their names."""

import logging
import os
import signal
import time
from pathlib import Path
from typing import Any

import torch

from tavq.core.errors import DataError
from tavq.core.signals import stop_on_signal


def double(value: int, progress: Any) -> tuple[int, int, int]:
    """Report, log, and return the doubled value, the process and its threads."""
    for done in range(1, 4):
        progress(done, 3, f"of {value}")
    logging.getLogger("tavq").warning("doubling %d", value)
    return 2 * value, os.getpid(), torch.get_num_threads()


def work_until_stopped(folder: Path, progress: Any) -> None:
    """Report without end; when asked to stop, leave a file that says so."""
    stopping: list[bool] = []
    (folder / "pid").write_text(str(os.getpid()))
    with stop_on_signal(lambda: stopping.append(True)):
        (folder / "started").touch()
        while not stopping:
            progress(1, None, "x" * 1000)  # many of these fill the pipe when nobody reads
    (folder / "stopped").touch()


def ignore_signals(folder: Path, progress: Any) -> None:
    """Go on whatever signal comes."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (folder / "pid").write_text(str(os.getpid()))
    (folder / "started").touch()
    time.sleep(600)


def wait_for(path: Path) -> None:
    """Return when the file is there."""
    deadline = time.monotonic() + 120
    while not path.exists():
        assert time.monotonic() < deadline, path
        time.sleep(0.02)


def fail(folder: Path, kind: str, progress: Any) -> None:
    """Wait until the other job works, then end in some way that is not the usual one."""
    wait_for(folder / "started")
    if kind == "error":
        raise DataError("The data are bad.")
    if kind == "fault":
        raise ZeroDivisionError("of the program")
    if kind == "disk":
        raise OSError(28, "No space left on device", "model.safetensors")
    os.kill(os.getpid(), signal.SIGKILL if kind == "killed" else signal.SIGINT)
    time.sleep(60)
