"""Reads the log of a run, which anybody may have altered since."""

import json
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.checks import is_number
from tavq.core.errors import FileError

SPEED = "speed"
"""Key of what `tavq.training.speed.SpeedMeter` measured, an object of numbers."""

TIMING = frozenset({"seconds_per_step", SPEED})
"""Keys of a line that differ between two equal runs."""


def read_log(path: Path) -> list[dict[str, Any]]:
    """The lines of a log.jsonl.

    Raises:
        FileError: a line is not one that `RunLog` or an alarm wrote.
    """
    lines = files.read_json_lines(path)
    for number, line in enumerate(lines, 1):
        if not isinstance(line, dict) or not is_number(line.get("step", 0)) or not _is_json(line):
            raise FileError(
                f"{path} line {number} was altered: it needs a number `step` and finite values. Remove the line; it is "
                "history only, and no weight depends on it."
            )
    return lines


def _is_json(line: dict[str, Any]) -> bool:
    """Whether a line can be written again: Python reads NaN and infinity, which JSON lacks."""
    try:
        json.dumps(line, allow_nan=False)
    except ValueError:
        return False
    return True
