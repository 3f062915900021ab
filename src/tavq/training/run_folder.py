"""The run folder: who may write in it, and what is put there beside checkpoints and the model."""

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

from jaxtyping import UInt8
from numpy import ndarray
from torch import Tensor

from tavq.core import files
from tavq.core.config import write_yaml
from tavq.core.errors import UsageError
from tavq.data.images import save_png
from tavq.data.records import Fault
from tavq.interfaces import FULL_TEXT, GRANULARITIES, POOLED, TextFeatures
from tavq.ops.collective import rank
from tavq.recipes.schema import RunRecipe
from tavq.training import checkpoint, provenance


class RunFolder:
    """The files of one run. Of several processes the first writes; the others add only what is their own."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.checkpoints, self.log, self.model = path / "checkpoints", path / "log.jsonl", path / "model"

    def lock(self) -> AbstractContextManager[Any]:
        """Held by the process that writes.

        Raises:
            UsageError: the folder cannot be made.
            FileError: another process holds it, or it cannot be written.
        """
        if rank():
            return nullcontext()
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise UsageError(
                f"{self.path} cannot be used as a run folder: {error.strerror}. Choose another."
            ) from error
        return files.lock(self.path / ".lock", self.path)

    def start(self, recipe: RunRecipe, metadata: Mapping[str, Any]) -> None:
        """Makes the folder of a new run.

        Raises:
            UsageError: it holds one.
        """
        if checkpoint.exists(self.checkpoints):
            raise UsageError(f"{self.path} already holds a run; add --resume to go on, or choose another --out.")
        self._sweep()
        files.write_text(self.log, "")
        files.write_json(self.path / "provenance.json", dict(metadata))
        self._write_recipe(recipe)  # last: where it stands, a killed start can be resumed

    def prepare_resume(self, recipe: RunRecipe, metadata: Mapping[str, Any]) -> bool:
        """Readies the folder of a run to be resumed; false where it was killed before its first checkpoint.

        Raises:
            UsageError: there is no run, or one of other settings, data or text.
        """
        provenance.check_same_run(self.path, recipe, metadata)
        self._sweep()
        if not checkpoint.exists(self.checkpoints):
            return False
        self._write_recipe(recipe)
        return True

    def _sweep(self) -> None:
        for folder in (self.path, self.checkpoints, self.path / "samples"):
            files.remove_leftovers(folder)

    def _write_recipe(self, recipe: RunRecipe) -> None:
        files.write_text(self.path / "recipe.yaml", write_yaml(recipe.model_dump(mode="json")))

    def _own(self, name: str) -> Path:
        """A place that no other process writes."""
        return self.path / (f"{rank()}-{name}" if rank() else name)

    def record_speed(self, steps: int, seconds: float) -> None:
        """Adds to provenance.json what the last process took; what a resumed run did before is not in it."""
        path = self.path / "provenance.json"
        last = {"steps": steps, "seconds": round(seconds, 1), "steps_per_second": round(steps / seconds, 3)}
        files.write_json(path, {**files.read_json(path), "last_process": last})

    def write_faults(self, faults: Sequence[Fault]) -> Path:
        """Writes what was left out of the data, and returns where."""
        place = self._own("faults.json")
        files.write_json(place, [asdict(fault) for fault in faults])
        return place

    def write_failure(
        self, step: int, batch: Mapping[str, Tensor], keys: Sequence[str], values: Mapping[str, float | str]
    ) -> Path:
        """Keeps the batch, its keys and every value of a step that went wrong, and returns where."""
        place = self._own("failure")
        with files.write_folder(place) as folder:
            files.write_tensors(folder / "batch.safetensors", batch)
            files.write_json(folder / "failure.json", {"step": step, "keys": list(keys), "values": dict(values)})
        return place

    def append_alarm(self, alarm: Mapping[str, Any]) -> None:
        """Adds an alarm to the log."""
        files.append_json_line(self.log, dict(alarm))

    def lines(self) -> list[dict[str, Any]]:
        """What was logged so far, without alarms."""
        return [line for line in files.read_json_lines(self.log) if "alarm" not in line]

    def save_sample(self, step: int, image: UInt8[ndarray, "y x 3"]) -> None:
        """A grid of images and their reconstructions."""
        save_png(self.path / "samples" / f"{step:08d}.png", image)


def text_tensors(text: TextFeatures | None) -> dict[str, Tensor]:
    """A batch's text by `granularity/vectors`, `granularity/mask` and, where there are such, `whole/ids`, `pooled`."""
    if text is None:
        return {}
    units = {name: unit for name in (*GRANULARITIES, FULL_TEXT) if (unit := text[name]) is not None}
    tensors = {
        f"{name}/{field.name}": getattr(unit, field.name) for name, unit in units.items() for field in fields(unit)
    }
    return {name: tensor for name, tensor in {**tensors, POOLED: text.pooled}.items() if tensor is not None}
