"""Runs of a task that differ in nothing but seeds, as one row of a table; and what such a row says."""

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

MADE_OF = ("data_sha256", "text", "segmentation_tokenizer", "size")
"""Of a run's provenance."""

MEASURED_ON = ("data_sha256", "split", "images", "limit", "sampling", "feature_weights", "reader", "aligned")
"""Of its evaluation."""

SEEN = {"codes": "codes", "features": "features before quantization", "none": "no image at all"}
"""What is seen of an image, by `task.image.source`."""


@dataclass(frozen=True)
class Row:
    """Runs that differ in nothing but their seeds and their tokenizers' seeds, in the order they were named."""

    name: str
    runs: tuple[Run, ...]

    @property
    def evaluated(self) -> list[Run]:
        """Those that were; each has one evaluation."""
        return [run for run in self.runs if run.evaluation is not None]

    @property
    def waiting(self) -> list[Run]:
        """Those that were not evaluated yet, and have no part in any figure."""
        return [run for run in self.runs if run.evaluation is None]

    @property
    def tokenizers(self) -> list[Run]:
        """The first evaluated run on each tokenizer that is looked through; empty where no image is seen."""
        first: dict[str, Run] = {}
        for run in self.evaluated:
            if sees(run):
                first.setdefault(tokenizer_sha256(run), run)
        return list(first.values())


@dataclass(frozen=True)
class Estimate:
    """A figure of a row: the mean over its trainings, its 95 % interval, and over what that is."""

    value: float
    interval: tuple[float, float] | None
    over: str | None
    """ "tokenizers", "seeds" of the task on one tokenizer, "images" (a run's own interval, where there is one
    value), or None without an interval."""
    each: tuple[float, ...]
    """Of each run."""


def estimate(runs: Sequence[Run], key: str) -> Estimate | None:
    """A figure of the runs that have it; None where none has.

    Where there are several tokenizers, each counts once, by the mean over its runs: runs on one tokenizer share what
    it can and cannot show, so that taken for independent they would promise too much.
    """
    found = [(run, value) for run in runs if (value := run.value(key)) is not None]
    if not found:
        return None
    each = tuple(value for _, value in found)
    groups: dict[str, list[float]] = {}
    for run, value in found:
        groups.setdefault(tokenizer_sha256(run) if sees(run) else "", []).append(value)
    trained, over = [sum(group) / len(group) for group in groups.values()], "tokenizers"
    if len(trained) == 1:
        trained, over = list(each), "seeds"
    ends = intervals.student_interval(trained)
    pair = (ends[0], ends[1]) if ends else None
    if len(set(trained)) == 1:  # no training has a part in it, or by chance none shows
        metric = found[0][0].metric(key)
        pair, over = None if metric is None else metric.interval, "images"
    return Estimate(sum(trained) / len(trained), pair, over if pair else None, each)


# --- which runs belong together ---------------------------------------------------------------------------------


def rows_of(runs: Sequence[Run]) -> tuple[list[Row], list[str]]:
    """The runs by row, and a sentence for each that repeats another with its seed and is left out."""
    groups: dict[tuple[str, str | None], list[Run]] = {}
    repeated = []
    for run in sorted(runs, key=lambda run: run.evaluation is None):  # those that were not evaluated join the others
        made = _key([_settings(run), _method(run), [run.provenance.get(key) for key in MADE_OF], run.steps])
        measured = None if run.evaluation is None else _key([run.details.get(key) for key in MEASURED_ON])
        near = next((key for key in groups if key[0] == made), None) if measured is None else None
        group = groups.setdefault(near or (made, measured), [])
        double = next((other for other in group if _training(other) == _training(run)), None)
        if double is None:
            group.append(run)
        else:
            repeated.append(f"{run.name} repeats {double.name} with its seed {seed_of(run)}, and is left out.")
    ordered = [sorted(group, key=runs.index) for group in groups.values()]
    ordered.sort(key=lambda group: runs.index(group[0]))
    return [Row(name, tuple(group)) for name, group in zip(_names(ordered), ordered, strict=True)], repeated


def _key(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=str)


def _settings(run: Run) -> dict[str, Any]:
    return {key: value for key, value in flatten_settings(run.recipe) if key not in FREE}


def seed_of(run: Run) -> Any:
    """The seed of its training."""
    return run.model.get("seed")


def _method(run: Run) -> str:
    """What its tokenizer shares with those of other seeds, of one that does not tell its weights; "" of none."""
    return (stored_hash(run.provenance, TOKENIZER_METHOD_HASH) or tokenizer_sha256(run)) if sees(run) else ""


def _training(run: Run) -> tuple[Any, Any]:
    """What tells it from the other runs of its row: its seed, and its tokenizer's or, of one unknown, its weights."""
    if not sees(run):
        return seed_of(run), None
    told = stored_hash(run.provenance, TOKENIZER_METHOD_HASH) is not None
    return seed_of(run), run.provenance.get("tokenizer_seed") if told else tokenizer_sha256(run)


def _names(groups: Sequence[Sequence[Run]]) -> list[str]:
    """What each group sees; where two see the same, with what tells them apart."""
    names = [seen([run for run in group if run.evaluation is not None] or group) for group in groups]
    full = []
    for name, group in zip(names, groups, strict=True):
        alike = [other for other, known in zip(groups, names, strict=True) if known == name]
        settings = [_settings(other[0]) for other in alike]
        own = _settings(group[0])
        apart = [key for key in own if len({_key(found.get(key)) for found in settings}) > 1]
        told = ", ".join(f"{key} {own[key]}" for key in apart)
        if len(alike) > 1:
            name += f" ({told if 0 < len(apart) <= 2 else group[0].name})"
        full.append(name)
    return [
        name if full.count(name) == 1 else f"{name} ({group[0].name})" for name, group in zip(full, groups, strict=True)
    ]


# --- what is seen -----------------------------------------------------------------------------------------------


def tokenizer_of(run: Run) -> str:
    """The name of the tokenizer's folder; of runs that did not keep it the beginning of its sha256."""
    name = run.provenance.get("tokenizer_name")
    return name if isinstance(name, str) else f"tokenizer {str(run.provenance.get('tokenizer'))[:8]}"


def tokenizer_sha256(run: Run) -> str:
    """Of its tokenizer's weights."""
    return str(run.provenance.get("tokenizer"))


def source_of(run: Run) -> str | None:
    """What a reading task sees of an image; None of a task that draws."""
    task = run.recipe.get("task")
    image = task.get("image") if isinstance(task, Mapping) else None
    return str(image.get("source", "codes")) if isinstance(image, Mapping) else None


def sees(run: Run) -> bool:
    """Whether anything of an image is seen, so that the tokenizer has a part in the run."""
    return source_of(run) != "none"


def task_of(run: Run) -> str:
    """The name of the task that was trained."""
    task = run.recipe.get("task")
    return str(task.get("name", "?")) if isinstance(task, Mapping) else "?"


def seen(runs: Sequence[Run]) -> str:
    """What runs of one row see, each tokenizer named once: `ta-0, ta-1: codes`."""
    if not sees(runs[0]):
        return SEEN["none"]
    names, source = ", ".join(dict.fromkeys(map(tokenizer_of, runs))), source_of(runs[0])
    return names if source is None else f"{names}: {SEEN.get(source, source)}"
