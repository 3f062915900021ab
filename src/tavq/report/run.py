"""A run folder as a page needs it: settings, log, metrics, model; everything but the model may be missing."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.config import build_stored, read_yaml, rename_settings
from tavq.core.errors import FileError, UsageError
from tavq.metrics.record import Evaluation, Metric, evaluation_from_json
from tavq.model_folder import kind_of_images, read_model_config
from tavq.recipes.schema import Recipe, RunRecipe, TaskRecipe
from tavq.tasks.model_folder import KIND as TASK
from tavq.tasks.model_folder import TaskModel, load_task
from tavq.text.store import Manifest
from tavq.tokenizer import Tokenizer

EVALUATION = "evaluation.json"
"""Where a run folder keeps its metrics."""

RENAMED_PROVENANCE = {"pictures": "images", "kind_of_pictures": "kind_of_images"}
"""Old names of keys in provenance.json and their current names; `stored_hash` reads both names of its keys."""


@dataclass(frozen=True)
class Run:
    """What was found in a run folder.

    Raises (by `read_run`) UsageError where there is no run, FileError where a file of it is damaged.
    """

    folder: Path
    name: str
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]
    lines: tuple[Mapping[str, Any], ...]
    alarms: tuple[Mapping[str, Any], ...]
    evaluation: Evaluation | None
    outdated: bool = False
    """Its evaluation was written by an older version, in a format that is not read any more."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The trained model."""
        return Tokenizer.from_pretrained(self.folder)

    @cached_property
    def task(self) -> TaskModel:
        """The trained model of a task."""
        return load_task(self.folder)

    @cached_property
    def model(self) -> Mapping[str, Any]:
        """What the model's config.json says."""
        return self._config if self.of_task else read_model_config(self.folder / "model")

    @cached_property
    def _config(self) -> Mapping[str, Any]:
        return _mapping(self.folder / "model" / "config.json") or {}

    @property
    def of_task(self) -> bool:
        """Whether a task was trained, and not a tokenizer."""
        return self._config.get("kind") == TASK

    @property
    def evaluated_by(self) -> str:
        """The command that evaluates it."""
        return f"tavq {'task ' if self.of_task else ''}evaluate RUN --data DATA"

    @property
    def details(self) -> Mapping[str, Any]:
        """How its metrics were measured; empty without an evaluation."""
        return {} if self.evaluation is None else self.evaluation.details

    def metric(self, key: str) -> Metric | None:
        """A metric of its evaluation; None where it was not measured."""
        return self.evaluation[key] if self.evaluation is not None and key in self.evaluation else None

    def value(self, key: str) -> float | None:
        """The value of a metric; None where it was not measured."""
        found = self.metric(key)
        return None if found is None else found.value

    @property
    def size(self) -> int:
        """Side of the images it was trained on."""
        size = self.model.get("size")
        if not isinstance(size, int):
            raise FileError(f"{self.folder / 'model' / 'config.json'} does not say the size of its images.")
        return size

    @property
    def steps(self) -> int:
        """Steps that were trained."""
        step = self.model.get("step")
        return step if isinstance(step, int) else int(self.lines[-1].get("step", 0)) if self.lines else 0

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of a logged key."""
        found = [
            (float(line["step"]), float(line[key]))
            for line in self.lines
            if isinstance(line.get(key), int | float) and isinstance(line.get("step"), int | float)
        ]
        return [step for step, _ in found], [value for _, value in found]

    def samples(self) -> list[tuple[int, Path]]:
        """The sample grids by step."""
        paths = sorted((self.folder / "samples").glob("*.png"))
        return [(int(path.stem), path) for path in paths if re.fullmatch(r"\d+", path.stem)]


def read_run(folder: Path, name: str | None = None) -> Run:
    """The run in a folder."""
    if not folder.is_dir():
        raise UsageError(
            f"There is no run folder {folder}; give the one that `tavq train --out` wrote (or task train)."
        )
    missing = [part for part in ("model/config.json", "log.jsonl") if not (folder / part).is_file()]
    if missing:
        raise UsageError(
            f"{folder} is not a finished run: it has no {' and no '.join(missing)}. "
            "Finish it with: tavq train … --resume."
        )
    logged = [line for line in files.read_json_lines(folder / "log.jsonl") if isinstance(line, dict)]
    recipe = folder / "recipe.yaml"
    evaluation = _mapping(folder / EVALUATION)
    outdated = evaluation is not None and "format" not in evaluation  # format 1 had no number
    return Run(
        folder,
        name or folder.resolve().name,
        _read_recipe(recipe) if recipe.is_file() else {},
        _read_provenance(folder / "provenance.json"),
        tuple(line for line in logged if "alarm" not in line),
        tuple(line for line in logged if "alarm" in line),
        None if evaluation is None or outdated else evaluation_from_json(evaluation, str(folder / EVALUATION)),
        outdated,
    )


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Some runs with names that tell them apart: the folder's, or its path's last parts where that comes twice."""
    if len(folders) < 2:
        raise UsageError("A comparison needs two or more run folders.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("A comparison needs different run folders; one is named twice.")
    length, names = 1, [folder.resolve().name for folder in folders]
    while len(set(names)) < len(names):
        length += 1
        names = ["/".join(folder.resolve().parts[-length:]) for folder in folders]
    runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    tasks = [run.name for run in runs if run.of_task]
    tokenizers = [run.name for run in runs if not run.of_task]
    if tasks and tokenizers:
        raise UsageError(
            f"{tasks[0]} is a run of a task and {tokenizers[0]} one of a tokenizer; their metrics cannot be compared. "
            "Compare runs of one kind."
        )
    return runs


def _read_recipe(path: Path) -> Mapping[str, Any]:
    """The settings under their current names; as written if this version cannot build them, so a page still works."""
    settings = read_yaml(files.read_text(path), str(path))
    schema: type[RunRecipe] = TaskRecipe if "task" in settings else Recipe
    try:
        return build_stored(schema, settings, str(path)).model_dump(mode="json")
    except UsageError:
        return settings


def _read_provenance(path: Path) -> Mapping[str, Any]:
    """The provenance under current names, and so the text store's manifest in it; empty if there is none."""
    found = rename_settings(_mapping(path) or {}, RENAMED_PROVENANCE, warn=False)
    if "kind_of_images" in found:
        found["kind_of_images"] = kind_of_images(found)
    text = found.get("text")
    if isinstance(text, Mapping):
        try:
            found["text"] = build_stored(Manifest, text, str(path)).model_dump(mode="json")
        except UsageError:  # not the manifest of a store; a page shows it as it is
            return found
    return found


def _mapping(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path} must hold a JSON object.")
    return value
