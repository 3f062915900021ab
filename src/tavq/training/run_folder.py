"""The run folder: its lock, and the files in it other than checkpoints and the model."""

from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import fields
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from tavq.core import files
from tavq.core.config import write_yaml
from tavq.core.errors import UsageError
from tavq.core.locks import lock
from tavq.core.temporary import remove_leftovers
from tavq.data.images import save_png
from tavq.data.records import Fault
from tavq.interfaces import FULL_TEXT, GRANULARITIES, POOLED, TextFeatures
from tavq.ops.collective import all_gather_text, rank
from tavq.recipes.schema import RunRecipe
from tavq.training import checkpoint, provenance
from tavq.training.log_lines import read_log
from tavq.training.schedule import CHANGES

PROCESS_CHANGES = "process_changes"
"""Key of `RunFolder.record_processes` in provenance.json and in a model's config.json."""

START = "evaluation_start.json"
"""File of a run folder with the metrics of the model before the first step."""


class RunFolder:
    """The files of one run.

    With several processes the first one writes; the others write only files named after their rank.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints, self.log, self.model = path / "checkpoints", path / "log.jsonl", path / "model"

    def lock(self, patience: float = 0.0) -> AbstractContextManager[Any]:
        """The lock that the writing process holds while it trains.

        Args:
            patience: seconds to wait for another process that holds it.

        Raises:
            UsageError: the folder cannot be created.
            FileError: another process holds the lock, or the folder cannot be written.
        """
        if rank():
            return nullcontext()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be used as a run folder: {error.strerror}. Choose another."
            ) from error
        return lock(self.path / ".lock", self.path, patience=patience)

    def is_started(self) -> bool:
        """Whether it holds a run, or what is left of one."""
        return (self.path / "recipe.yaml").is_file() or checkpoint.exists(self.checkpoints)

    def create(self, recipe: RunRecipe, metadata: Mapping[str, Any]) -> None:
        """Create the files of a new run.

        Raises:
            UsageError: the folder already holds a run.
        """
        if checkpoint.exists(self.checkpoints):
            raise UsageError(f"{self.path} already holds a run; add --resume to continue it, or choose another --out.")
        self._sweep()
        files.write_text(self.log, "")
        files.write_json(self.path / "provenance.json", dict(metadata))
        self.write_recipe(recipe)  # last: once it exists, --resume works even if this process is killed

    def prepare_resume(self, recipe: RunRecipe, metadata: Mapping[str, Any]) -> RunRecipe | None:
        """Prepare the folder for resuming and return the recipe so far.

        Returns None if the run was killed before its first checkpoint.

        Raises:
            UsageError: there is no run, or its settings, data or text differ.
        """
        before = provenance.check_same_run(self.path, recipe, metadata)
        self._sweep()
        return before if checkpoint.exists(self.checkpoints) else None

    def require_one_step(self, step: int) -> None:
        """Stop every process where they would go on at different steps, as with folders that they do not share.

        Args:
            step: where this process goes on.

        Raises:
            UsageError: another process goes on at another step.
        """
        steps = all_gather_text(str(step))
        if len(set(steps)) > 1:
            listed = ", ".join(f"process {number}: step {own}" for number, own in enumerate(steps))
            raise UsageError(
                f"The processes found different checkpoints in {self.path} ({listed}). Put the run folder on a disk "
                "that all of them share."
            )

    def _sweep(self) -> None:
        for folder in (self.path, self.checkpoints, self.path / "samples"):
            remove_leftovers(folder)

    def write_recipe(self, recipe: RunRecipe) -> None:
        """Write the settings of the run."""
        files.write_text(self.path / "recipe.yaml", write_yaml(recipe.model_dump(mode="json")))

    def _own_path(self, name: str) -> Path:
        """A path that only this process writes."""
        return self.path / (f"{rank()}-{name}" if rank() else name)

    def record_speed(self, steps: int, seconds: float) -> None:
        """Add the speed of this process to provenance.json; steps done before a resume are not counted."""
        path = self.path / "provenance.json"
        last_process = {"steps": steps, "seconds": round(seconds, 1), "steps_per_second": round(steps / seconds, 3)}
        files.write_json(path, {**provenance.read_provenance(self.path), "last_process": last_process})

    def record_schedule_change(self, change: Mapping[str, Any]) -> None:
        """Add to provenance.json from which step on the learning rate follows another schedule."""
        path = self.path / "provenance.json"
        earlier = [known for known in self.schedule_changes() if known != change]  # killed after it was written
        files.write_json(path, {**provenance.read_provenance(self.path), CHANGES: [*earlier, dict(change)]})

    def schedule_changes(self) -> list[Any]:
        """What `record_schedule_change` wrote so far."""
        return self._recorded(CHANGES)

    def record_processes(self, step: int, processes: int) -> None:
        """Add to provenance.json from which step on another number of processes trained, if it is another one."""
        found = provenance.read_provenance(self.path)
        kept = [change for change in self.process_changes() if change["step"] < step]  # later steps are done again
        if (kept[-1].get("processes") if kept else found.get("processes")) != processes:
            kept.append({"step": step, "processes": processes})
        if kept != found.get(PROCESS_CHANGES, []):
            files.write_json(self.path / "provenance.json", {**found, PROCESS_CHANGES: kept})

    def process_changes(self) -> list[Any]:
        """What `record_processes` wrote so far."""
        changes = self._recorded(PROCESS_CHANGES)
        return [change for change in changes if isinstance(change, dict) and isinstance(change.get("step"), int)]

    def _recorded(self, key: str) -> list[Any]:
        found = provenance.read_provenance(self.path).get(key, [])
        return found if isinstance(found, list) else []

    def write_faults(self, faults: Sequence[Fault]) -> str:
        """Write what of the data is not used, and return a sentence that counts images, lines and parts of records."""
        path = self._own_path("faults.json")
        files.write_json(path, [{"where": fault.where, "reason": fault.reason} for fault in faults])
        parts = Counter(fault.part for fault in faults)
        counts = [f"{count:,} in {part or 'images or lines'}" for part, count in sorted(parts.items())]
        total = "1 fault" if len(faults) == 1 else f"{len(faults):,} faults"
        kinds = f" ({', '.join(counts)})" if any(parts) else ""
        first = f", the first: {faults[0]}" if faults else ""
        return f"Skipped {total} in the data{kinds}{first}. All are listed in {path}."

    def write_failure(
        self, step: int, batch: Mapping[str, Tensor], keys: Sequence[str], values: Mapping[str, float | str]
    ) -> Path:
        """Write the batch and every value of a failed step, and return the path.

        Args:
            step: steps done before it.
            batch: the tensors of its batch by name.
            keys: file_name of each image.
            values: losses and gradient norms; values that are not finite as text.
        """
        path = self._own_path("failure")
        with files.write_folder(path) as folder:
            files.write_tensors(folder / "batch.safetensors", batch)
            files.write_json(folder / "failure.json", {"step": step, "keys": list(keys), "values": dict(values)})
        return path

    def append_alarm(self, alarm: Mapping[str, Any]) -> None:
        """Append an alarm to the log."""
        files.append_json_line(self.log, dict(alarm))

    def read_log(self) -> list[dict[str, Any]]:
        """The lines logged so far, without alarms."""
        return [line for line in read_log(self.log) if "alarm" not in line]

    def save_sample(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """Write a sample image of a step."""
        save_png(self.path / "samples" / f"{step:08d}.png", image)


def text_tensors(text: TextFeatures | None) -> dict[str, Tensor]:
    """The text of a batch by `granularity/vectors`, `granularity/mask` and, if present, `whole/ids` and `pooled`."""
    if text is None:
        return {}
    tensors: dict[str, Tensor | None] = {}
    for name in (*GRANULARITIES, FULL_TEXT):
        unit = text[name]
        if unit is not None:
            tensors |= {f"{name}/{field.name}": getattr(unit, field.name) for field in fields(unit)}
    tensors[POOLED] = text.pooled
    return {name: tensor for name, tensor in tensors.items() if tensor is not None}
