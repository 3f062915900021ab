"""Reads a run folder for a page: model and log, and where they exist the recipe, provenance and metrics."""

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
from tavq.model_folder import kind_of_images, read_config, read_model_config
from tavq.recipes.schema import Recipe, RunRecipe, TaskRecipe
from tavq.tasks.model_folder import KIND as TASK
from tavq.tasks.model_folder import TaskModel, load_task
from tavq.text.store import Manifest
from tavq.tokenizer import Tokenizer

EVALUATION = "evaluation.json"
"""File of a run folder that has its metrics."""

START = "evaluation_start.json"
"""File of a run folder that has the metrics of the model that the run started from."""

RENAMED_PROVENANCE = {"pictures": "images", "kind_of_pictures": "kind_of_images"}
"""Old names of keys in provenance.json and their current names; `stored_hash` reads both names of its keys."""


@dataclass(frozen=True)
class Run:
    """The contents of a run folder."""

    folder: Path
    name: str
    recipe: Mapping[str, Any]
    provenance: Mapping[str, Any]
    lines: tuple[Mapping[str, Any], ...]
    alarms: tuple[Mapping[str, Any], ...]
    evaluation: Evaluation | None
    outdated: bool = False
    """An older version wrote its evaluation, in a format that is no longer read."""
    start: Evaluation | None = None
    """The metrics before the first step, where they were measured."""

    @cached_property
    def tokenizer(self) -> Tokenizer:
        """The trained model."""
        return Tokenizer.from_pretrained(self.folder).prepare()

    @cached_property
    def task(self) -> TaskModel:
        """The trained model of a task."""
        return load_task(self.folder)

    @cached_property
    def model(self) -> Mapping[str, Any]:
        """The model's config.json."""
        return self._config if self.is_task else read_model_config(self.folder / "model")

    @cached_property
    def _config(self) -> Mapping[str, Any]:
        path = self.folder / "model" / "config.json"
        config = read_config(path.parent) if path.is_file() else {}
        if not isinstance(config, dict):
            raise FileError(f"{path} must hold a JSON object.")
        return config

    @property
    def is_task(self) -> bool:
        """Whether the run trained a task rather than a tokenizer."""
        return self._config.get("kind") == TASK

    @property
    def evaluate_command(self) -> str:
        """The command that evaluates the run."""
        return f"tavq {'task ' if self.is_task else ''}evaluate RUN --data DATA"

    @property
    def details(self) -> Mapping[str, Any]:
        """How its metrics were computed; empty without an evaluation."""
        return {} if self.evaluation is None else self.evaluation.details

    def metric(self, key: str) -> Metric | None:
        """A metric of its evaluation; None if it was not computed."""
        return self.evaluation[key] if self.evaluation is not None and key in self.evaluation else None

    def value(self, key: str) -> float | None:
        """The value of a metric; None if it was not computed."""
        metric = self.metric(key)
        return None if metric is None else metric.value

    @property
    def size(self) -> int:
        """Side in pixels of the images it was trained on."""
        size = self.model.get("size")
        if not isinstance(size, int):
            raise FileError(f"{self.folder / 'model' / 'config.json'} has no image size; `size` must be an integer.")
        return size

    @property
    def steps(self) -> int:
        """Number of training steps."""
        step = self.model.get("step")
        if isinstance(step, int):
            return step
        return int(self.lines[-1].get("step", 0)) if self.lines else 0

    def curve(self, key: str) -> tuple[list[float], list[float]]:
        """Steps and values of a logged key."""
        steps, values = [], []
        for line in self.lines:
            step, value = line.get("step"), line.get(key)
            if isinstance(step, int | float) and isinstance(value, int | float):
                steps.append(float(step))
                values.append(float(value))
        return steps, values

    def samples(self) -> list[tuple[int, Path]]:
        """The steps and files of the sample grids, without links out of the run: a page would hold those images."""
        paths = sorted((self.folder / "samples").glob("*.png"))
        root = self.folder.resolve()
        grids = [path for path in paths if re.fullmatch(r"[0-9]+", path.stem) and path.resolve().is_relative_to(root)]
        return [(int(path.stem), path) for path in grids]


def read_run(folder: Path, name: str | None = None) -> Run:
    """Read the run in `folder`, called `name` (default: the folder's name).

    Raises:
        UsageError: `folder` is not a finished run.
        FileError: a file of the run is damaged.
    """
    if not folder.is_dir():
        raise UsageError(
            f"The run folder {folder} does not exist; give the --out folder of `tavq train` or `tavq task train`."
        )
    missing = [part for part in ("model/config.json", "log.jsonl") if not (folder / part).is_file()]
    if missing:
        raise UsageError(
            f"{folder} is not a finished run: it has no {' and no '.join(missing)}. "
            "Finish it with: tavq train … --resume."
        )
    logged = [line for line in files.read_json_lines(folder / "log.jsonl") if isinstance(line, dict)]
    lines = [line for line in logged if "alarm" not in line]
    alarms = [line for line in logged if "alarm" in line]
    recipe = folder / "recipe.yaml"
    evaluation = _read_mapping(folder / EVALUATION)
    outdated = evaluation is not None and "format" not in evaluation  # format 1 had no number
    current = None
    if evaluation is not None and not outdated:
        current = evaluation_from_json(evaluation, str(folder / EVALUATION))
    start = _read_mapping(folder / START)
    return Run(
        folder,
        name or folder.resolve().name,
        _read_recipe(recipe) if recipe.is_file() else {},
        _read_provenance(folder / "provenance.json"),
        tuple(lines),
        tuple(alarms),
        current,
        outdated,
        None if start is None else evaluation_from_json(start, str(folder / START)),
    )


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """Read runs and give them distinct names: the folder's, or as many of its last parts as needed.

    Raises:
        UsageError: fewer than two folders, one folder twice, or runs of tokenizers and of tasks.
        FileError: a file of a run is damaged.
    """
    if len(folders) < 2:
        raise UsageError("A comparison needs at least two run folders.")
    if len({folder.resolve() for folder in folders}) < len(folders):
        raise UsageError("A comparison needs different run folders; one is given twice.")
    length, names = 1, [folder.resolve().name for folder in folders]
    while len(set(names)) < len(names):
        length += 1
        names = ["/".join(folder.resolve().parts[-length:]) for folder in folders]
    runs = [read_run(folder, name) for folder, name in zip(folders, names, strict=True)]
    tasks = [run.name for run in runs if run.is_task]
    tokenizers = [run.name for run in runs if not run.is_task]
    if tasks and tokenizers:
        raise UsageError(
            f"{tasks[0]} is a task's run and {tokenizers[0]} a tokenizer's; their metrics cannot be compared. "
            "Give either tokenizer runs or task runs."
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
    provenance = rename_settings(_read_mapping(path) or {}, RENAMED_PROVENANCE, warn=False)
    if "kind_of_images" in provenance:
        provenance["kind_of_images"] = kind_of_images(provenance)
    text = provenance.get("text")
    if isinstance(text, Mapping):
        try:
            provenance["text"] = build_stored(Manifest, text, str(path)).model_dump(mode="json")
        except UsageError:  # not the manifest of a store; a page shows it as it is
            return provenance
    return provenance


def _read_mapping(path: Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    value = files.read_json(path)
    if not isinstance(value, dict):
        raise FileError(f"{path} must hold a JSON object.")
    return value
