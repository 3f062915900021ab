"""Where a run starts or goes on: what the first process decides from the run folder, and what all must find there."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from tavq.core import files
from tavq.core.errors import FileError
from tavq.core.shared_disk import wait_until_seen
from tavq.recipes.schema import RunRecipe
from tavq.training import checkpoint
from tavq.training.run_folder import RunFolder

Resume = bool | Literal["auto"]
"""False starts a run, True goes on with one, and "auto" does what the run folder needs."""

PATIENCE = 120.0
"""Seconds that "auto" waits for the process before it, which may still be ending, to release the run folder."""


@dataclass(frozen=True)
class Start:
    """Where a run goes on."""

    step: int | None
    """Of the checkpoint; None for a new run."""
    complete: bool = False
    """Every step is done, and the model is saved."""
    damaged: tuple[str, ...] = ()
    """A line for each newer checkpoint that cannot be read."""
    before: RunRecipe | None = None
    """The recipe so far of a run that goes on."""


def decide_start(folder: RunFolder, recipe: RunRecipe, metadata: Mapping[str, Any], resume: Resume) -> Start:
    """Create the run folder, or find the checkpoint to go on from.

    Args:
        folder: of the run.
        recipe: the settings of this call.
        metadata: versions, data and the number of processes.
        resume: whether the folder must be new, must hold a run, or may be either.

    Raises:
        UsageError: the folder holds a run and must not, holds none and must, or holds another one.
        FileError: all checkpoints are damaged.
    """
    resumed = folder.is_started() if resume == "auto" else resume
    before = folder.prepare_resume(recipe, metadata) if resumed else None
    if before is None:
        folder.create(recipe, metadata)
        return Start(None)
    step, damaged = checkpoint.find_newest(folder.checkpoints)
    complete = resume == "auto" and step >= recipe.train.steps and _model_step(folder) == step
    return Start(step, complete, tuple(damaged), before)


def _model_step(folder: RunFolder) -> int | None:
    """The step at which the model of a run was saved; None if it has none, as before its end."""
    try:
        stored = files.read_json(folder.model / "config.json")
    except FileError:
        return None
    step = stored.get("step") if isinstance(stored, Mapping) else None
    return step if isinstance(step, int) else None


def find_step(folder: RunFolder, step: int) -> int:
    """The step at which this process can go on, where the first one goes on at `step`: the same, if it sees its folder.

    Otherwise that of the newest checkpoint it sees, and 0 without any.
    """
    seen = step and wait_until_seen(lambda: checkpoint.has_step(folder.checkpoints, step))
    return step if seen else checkpoint.newest_step(folder.checkpoints)
