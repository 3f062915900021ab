"""Weights & Biases; without a connection, or with WANDB_MODE=offline, files in the run folder."""

import logging
import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray

from tavq.core.errors import first_line
from tavq.training.tracking import Tracker, trackers

PROJECT = "tavq"
"""Name of the project, unless WANDB_PROJECT says another."""

CONNECT_SECONDS, FINISH_SECONDS = 60, 120
"""How long to wait for the server at the start and at the end of a run."""


@trackers.register("wandb")
class WeightsAndBiases(Tracker):
    """Logs to Weights & Biases, a resumed run under the id that it began with."""

    distribution = "wandb"

    def __init__(self, run: Path, state: dict[str, Any], step: int, settings: Mapping[str, Any]) -> None:
        import wandb  # an extra

        self._wandb: Any = wandb
        identity = str(state.setdefault("id", uuid.uuid4().hex[:12]))
        options: dict[str, Any] = {
            "project": os.environ.get("WANDB_PROJECT", PROJECT),
            "id": identity,
            "resume": "allow",
            "dir": str(run),
            "name": run.resolve().name,
            "config": dict(settings),
        }
        try:
            self._run = wandb.init(**options, settings=self._settings())
        except Exception as error:
            if os.environ.get("WANDB_MODE") == "offline":
                raise
            logging.getLogger("tavq").warning(
                "Weights & Biases cannot be reached (%s). The run is logged to %s; upload it later with: wandb sync "
                "--append FOLDER", first_line(error)[:200], run / "wandb",
            )  # fmt: skip
            if wandb.run is None:  # nobody else's: the failed attempt still holds the id
                wandb.teardown()
            self._run = wandb.init(**options, mode="offline", settings=self._settings())

    def _settings(self) -> Any:
        """Short waits, and no hold on what the process prints, as the bar is drawn there."""
        wanted = {
            "silent": True,
            "console": "off",
            "disable_code": True,
            "init_timeout": CONNECT_SECONDS,
            "login_timeout": CONNECT_SECONDS,
            "finish_timeout": FINISH_SECONDS,
        }
        kind = self._wandb.Settings
        return kind(**{name: value for name, value in wanted.items() if name in kind.model_fields})

    def log(self, step: int, values: Mapping[str, float]) -> None:
        """Log numbers of a step."""
        self._run.log(dict(values), step=step)

    def show(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """Log a sample image."""
        self._run.log({"samples": self._wandb.Image(image)}, step=step)

    def evaluate(self, step: int, values: Mapping[str, float]) -> None:
        """Put the metrics into the summary of the run."""
        self._run.summary.update(dict(values))

    def close(self) -> None:
        """Upload or write what is left."""
        self._run.finish()
