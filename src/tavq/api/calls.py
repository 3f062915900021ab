"""What all functions of this room share: paths, progress, and messages in the log `tavq`."""

import logging
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tavq.data.records import Fault
from tavq.data.shards import describe_unread_shards
from tavq.ops.collective import rank
from tavq.training.log_lines import SPEED
from tavq.training.reporting import SilentReporter

PathLike = str | os.PathLike[str]

Progress = Callable[[int, int | None, str], None]
"""Called with (done, total, note); the total is None where it is not known, and the note may be empty."""

Budget = int | float | str
"""How many images may be unreadable before a call fails: a number (200), or a share of them ("5%", 0.05)."""

SHOWN_FAULTS = 10
"""Faults that are named one by one."""

SHOWN_WAIT = 0.05
"""Fraction of the time spent waiting for data from which on a bar says so."""

_logger = logging.getLogger("tavq")


def inform(message: str) -> None:
    """Log what is being done, once where several processes work together."""
    if rank() == 0:
        _logger.info("%s", message)


def warn(message: str) -> None:
    """Log what the caller should know about a result, once where several processes work together."""
    if rank() == 0:
        _logger.warning("%s", message)


CAPTIONS = ("captions", "caption", "text")
TEXTS = (*CAPTIONS, "long_text")
"""Fields of a record that hold its captions, and its text."""


def select_faults(faults: Iterable[Fault], *fields: str) -> list[Fault]:
    """Return the faults of images and lines, and those of the fields that a call reads."""
    return [fault for fault in faults if fault.part in ("", *fields)]


def warn_of_faults(faults: Sequence[Fault], count: int | None = None) -> None:
    """Name the first faults of a data set and say how many there are.

    Args:
        faults: the faults, or the first of them.
        count: how many there are, where `faults` are only the first.
    """
    for fault in faults[:SHOWN_FAULTS]:
        warn(f"Left out a part of {fault}" if fault.part else f"Skipped {fault}")
    more = (len(faults) if count is None else count) - SHOWN_FAULTS
    if more > 0:
        warn(f"... and {more:,} more; list them all with: tavq data check")


def warn_of_unread_shards(folder: Path) -> None:
    """Say, where a folder holds images and shards, that the images alone are read."""
    told = describe_unread_shards(folder) if rank() == 0 else None
    if told is not None:
        warn(told)


def count_up_to(total: int | None, progress: Progress | None, note: str = "") -> Callable[[int], None] | None:
    """Return a callable that takes the number done and passes it on with the total; None without `progress`."""
    if progress is None:
        return None
    return lambda done: progress(done, total, note)


def without_note(progress: Progress | None) -> Callable[[int, int], None] | None:
    """Return a callable that takes (done, total) and passes them on; None without `progress`."""
    if progress is None:
        return None
    return lambda done, total: progress(done, total, "")


def describe_speed(speed: Mapping[str, float]) -> str:
    """Format what a log line says of the speed of a run, as short as a bar needs it."""
    memory = max((value for name, value in speed.items() if name.startswith("memory_")), default=0)
    parts = [
        f"{speed['images_per_second']:,.3g} images/s" if "images_per_second" in speed else "",
        f"{speed['data_wait']:.0%} waiting for data" if speed.get("data_wait", 0) >= SHOWN_WAIT else "",
        f"{memory / 1e9:.1f} GB" if memory else "",
        f"MFU {speed['mfu']:.0%}" if "mfu" in speed else "",
    ]
    return ", ".join(filter(None, parts))


class TrainingProgress(SilentReporter):
    """The Reporter of a training loop: passes steps on to a Progress, and logs messages.

    Args:
        progress: called after each step, with the metrics that were logged last as the note.
        describe: makes the note of a line of the log.
    """

    def __init__(self, progress: Progress | None, describe: Callable[[dict[str, Any]], str]) -> None:
        self._progress, self._describe = progress, describe
        self._note = ""

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        """Pass a step on."""
        if line is not None:
            self._note = ", ".join(filter(None, (self._describe(line), describe_speed(line.get(SPEED, {})))))
        if self._progress is not None:
            self._progress(step, steps, self._note)

    def message(self, text: str) -> None:
        """Log a message of the loop."""
        warn(text)
