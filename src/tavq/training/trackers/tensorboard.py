"""TensorBoard: event files in the run folder."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from tavq.training.tracking import Tracker, trackers

EVENTS = "tensorboard"
"""Folder of a run with its event files."""


@trackers.register("tensorboard")
class TensorBoard(Tracker):
    """Writes event files to RUN/tensorboard."""

    distribution = "tensorboard"

    def __init__(self, run: Path, state: dict[str, Any], step: int, settings: Mapping[str, Any]) -> None:
        from torch.utils.tensorboard import SummaryWriter  # an extra

        # TensorBoard drops what an interrupted run logged after the checkpoint that this one goes on from
        self._writer = SummaryWriter(str(run / EVENTS), purge_step=step + 1)
        if step == 0:
            text = json.dumps(settings, indent=2, ensure_ascii=False)
            self._writer.add_text("recipe", "\n".join(f"    {line}" for line in text.splitlines()), step)

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Write numbers of a step, to the disk at once."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)
        self._writer.flush()

    def show(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """Write a sample image."""
        self._writer.add_image("samples", image, step, dataformats="HWC")

    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        """Write the metrics as numbers of the last step."""
        self.log(step, values)

    def close(self) -> None:
        """Write what is not written yet."""
        self._writer.close()
