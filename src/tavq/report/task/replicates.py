"""Groups runs of a task that differ only in their seeds into one row of a table, and estimates its metrics."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tavq.core.config import flatten_settings
from tavq.metrics import intervals
from tavq.recipes.identity import COSMETIC_SETTINGS, TOKENIZER_METHOD_HASH, stored_hash
from tavq.report.run import Run

FREE = COSMETIC_SETTINGS | {"train.seed"}
"""Settings that may differ within a row."""

MADE_OF = ("data_sha256", "text", "segmentation_tokenizer", "size", "schedule_changes")
"""Keys of the provenance that runs of a row share."""

MEASURED_ON = ("data_sha256", "split", "images", "limit", "sampling", "feature_weights", "reader", "aligned")
"""Keys of the evaluation that runs of a row share."""

SEEN = {"codes": "codes", "features": "features before quantization", "none": "no image at all"}
"""What the task reads of an image, by `task.image.source`."""


@dataclass(frozen=True)
class Row:
    """Runs that differ only in their seeds and their tokenizers' seeds, in the order they were given."""

    name: str
    runs: tuple[Run, ...]

    @property
    def evaluated(self) -> list[Run]:
        """The runs with an evaluation."""
        return [run for run in self.runs if run.evaluation is not None]

    @property
    def waiting(self) -> list[Run]:
        """The runs without an evaluation, which no metric includes."""
        return [run for run in self.runs if run.evaluation is None]

    @property
    def tokenizers(self) -> list[Run]:
        """The first evaluated run on each tokenizer; empty for blind tasks."""
        first: dict[str, Run] = {}
        for run in self.evaluated:
            if uses_image(run):
                first.setdefault(tokenizer_sha256(run), run)
        return list(first.values())


@dataclass(frozen=True)
class Estimate:
    """A metric of a row: the mean over its trainings, its 95 % interval, and what the interval is over."""

    value: float
    interval: tuple[float, float] | None
    over: str | None
    """ "tokenizers", "seeds" of the task on one tokenizer, "images" (a run's own interval, where there is one
    value), or None without an interval."""
    each: tuple[float, ...]
    """The value of each run."""


def estimate_mean(runs: Sequence[Run], key: str) -> Estimate | None:
    """Estimate a metric from the runs that have it; None if none has.

    With several tokenizers, each counts once, by the mean over its runs: runs on one tokenizer share its errors, so
    treating them as independent would make the interval too narrow.
    """
    measured = [(run, value) for run in runs if (value := run.value(key)) is not None]
    if not measured:
        return None
    each = tuple(value for _, value in measured)
    groups: dict[str, list[float]] = {}
    for run, value in measured:
        groups.setdefault(tokenizer_sha256(run) if uses_image(run) else "", []).append(value)
    means, over = [sum(group) / len(group) for group in groups.values()], "tokenizers"
    if len(means) == 1:
        means, over = list(each), "seeds"
    ends = intervals.student_interval(means)
    interval = (ends[0], ends[1]) if ends else None
    if len(set(means)) == 1:  # equal values: training does not affect the metric, so only images vary
        metric = measured[0][0].metric(key)
        interval, over = None if metric is None else metric.interval, "images"
    return Estimate(sum(means) / len(means), interval, over if interval else None, each)


# --- which runs belong together ---------------------------------------------------------------------------------


def group_replicates(runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """Group runs into rows; also a sentence for each run left out because it repeats another one with the same seed."""
    groups: dict[tuple[str, str | None], list[Run]] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: run.evaluation is None):  # runs without an evaluation join the others
        made = _key([_settings(run), _method(run), [run.provenance.get(key) for key in MADE_OF], run.steps])
        measured = None if run.evaluation is None else _key([run.details.get(key) for key in MEASURED_ON])
        near = next((key for key in groups if key[0] == made), None) if measured is None else None
        group = groups.setdefault(near or (made, measured), [])
        double = next((other for other in group if _training(other) == _training(run)), None)
        if double is None:
            group.append(run)
        else:
            repeated.append(f"{run.name} repeats {double.name} with its seed {training_seed(run)}, and is left out.")
    ordered = [sorted(group, key=runs.index) for group in groups.values()]
    ordered.sort(key=lambda group: runs.index(group[0]))
    return [Row(name, tuple(group)) for name, group in zip(_names(ordered), ordered, strict=True)], repeated


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _settings(run: Run) -> dict[str, Any]:
    return {key: value for key, value in flatten_settings(run.recipe) if key not in FREE}


def training_seed(run: Run) -> Any:
    """The seed of its training."""
    return run.model.get("seed")


def _method(run: Run) -> str:
    """The hash that its tokenizer shares with other seeds, else that of its weights; "" for a blind task."""
    return (stored_hash(run.provenance, TOKENIZER_METHOD_HASH) or tokenizer_sha256(run)) if uses_image(run) else ""


def _training(run: Run) -> tuple[Any, Any]:
    """What distinguishes it within its row: its seed, and its tokenizer's seed, or weights if the seed is unknown."""
    if not uses_image(run):
        return training_seed(run), None
    seed_known = stored_hash(run.provenance, TOKENIZER_METHOD_HASH) is not None
    return training_seed(run), run.provenance.get("tokenizer_seed") if seed_known else tokenizer_sha256(run)


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """Name each group after its input; groups with the same input also after the settings that differ."""
    names, full = [], []
    for group in groups:
        evaluated = [run for run in group if run.evaluation is not None]
        names.append(describe_input(evaluated or group))
    for name, group in zip(names, groups, strict=True):
        same = [other for other, known in zip(groups, names, strict=True) if known == name]
        settings = [_settings(other[0]) for other in same]
        own = _settings(group[0])
        differing = [f"{key} {value}" for key, value in own.items() if _differs(key, settings)]
        if len(same) > 1:
            name += f" ({', '.join(differing) if 0 < len(differing) <= 2 else group[0].name})"
        full.append(name)
    unique = []
    for name, group in zip(full, groups, strict=True):
        unique.append(name if full.count(name) == 1 else f"{name} ({group[0].name})")
    return unique


def _differs(key: str, settings: Sequence[Mapping[str, Any]]) -> bool:
    return len({_key(values.get(key)) for values in settings}) > 1


# --- the input of a task ------------------------------------------------------------------------------------------


def tokenizer_name(run: Run) -> str:
    """The name of the tokenizer's folder; the start of its sha256 if the run did not record it."""
    name = run.provenance.get("tokenizer_name")
    return name if isinstance(name, str) else f"tokenizer {str(run.provenance.get('tokenizer'))[:8]}"


def tokenizer_sha256(run: Run) -> str:
    """The sha256 of its tokenizer's weights."""
    return str(run.provenance.get("tokenizer"))


def image_source(run: Run) -> str | None:
    """What an understanding task reads of an image; None for a generation task."""
    task = run.recipe.get("task")
    image = task.get("image") if isinstance(task, Mapping) else None
    return str(image.get("source", "codes")) if isinstance(image, Mapping) else None


def uses_image(run: Run) -> bool:
    """Whether the task uses its tokenizer: False for a blind one."""
    return image_source(run) != "none"


def task_name(run: Run) -> str:
    """The name of the task that was trained."""
    task = run.recipe.get("task")
    return str(task.get("name", "?")) if isinstance(task, Mapping) else "?"


def describe_input(runs: Sequence[Run]) -> str:
    """The input of the runs of a row, each tokenizer named once: `ta-0, ta-1: codes`."""
    if not uses_image(runs[0]):
        return SEEN["none"]
    names, source = ", ".join(dict.fromkeys(map(tokenizer_name, runs))), image_source(runs[0])
    return names if source is None else f"{names}: {SEEN.get(source, source)}"
