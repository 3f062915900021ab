"""The newest intact checkpoint of a run, for tests that look into it."""

from pathlib import Path
from typing import Any

from torch import Tensor

from tavq.training import checkpoint


def load_newest(folder: Path) -> tuple[dict[str, dict[str, Tensor]], dict[str, Any], list[str]]:
    """Its tensor groups and metadata, and one line for each newer damaged one."""
    step, damaged = checkpoint.find_newest(folder)
    return *checkpoint.load(folder, step), damaged
