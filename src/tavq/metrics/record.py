"""A metric as one record, from where it is measured to the page, table, log and JSON file that show it.

A record without a value says what is measured; `measured` fills in the value. What a metric is called, what it means
and which way is better is written once, beside the code that computes it; pages, tables and files only render records.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import MISSING, asdict, dataclass, fields, replace
from typing import Any, Literal

from tavq.core.checks import is_number
from tavq.core.errors import DataError, FileError

FORMAT = 2
"""Of a JSON file with metrics. Format 1 had no number: its metrics were bare values under parsed names."""

Interval = tuple[float, float]
"""The lower and the upper end of a 95 % interval."""


@dataclass(frozen=True)
class Group:
    """Metrics that share a table, with the table's heading and what is worth knowing about all of them."""

    name: str
    title: str
    note: str = ""


@dataclass(frozen=True)
class Baseline:
    """What a metric is compared with: a trivial answer that a model should beat, or a bound that it cannot pass."""

    name: str
    title: str
    meaning: str


UNTRAINED = Baseline("untrained", "untrained", "The same network with random weights; training should beat it.")
NEAREST = Baseline("nearest", "nearest copy", "A copy of the training image whose condition is nearest.")
CONSTANT = Baseline("constant", "constant answer", "The best single answer for the training set, without an image.")
SHUFFLED = Baseline("shuffled", "another image's", "The same, measured against the text of another image: chance.")
CHANCE = Baseline("chance", "chance", "A random order.")


@dataclass(frozen=True)
class Metric:
    """One metric of a model, or of a baseline.

    Attributes:
        name: unique among the metrics of one evaluation that have the same baseline.
        title: what a table calls it.
        group: the table that it belongs to.
        value: None where it is undefined or not measured yet.
        interval: 95 %, over images unless the group says otherwise.
        standard_error: of estimates that have one in place of an interval.
        count: the items that the value is a mean over, where they were counted.
        better: 1 where more is better, -1 where less is, 0 where neither.
        baseline: whose value it is; None for the model's own.
        meaning: one or two sentences for somebody who meets the metric for the first time.
        warning: why the value is biased or must not be compared; empty where all is well.
        decimals: digits after the point; one at most from 100 on.
        unit: printed after the value.
        percent: printed as a percentage; the value is a fraction.
        main: a comparison shows it first.
    """

    name: str
    title: str
    group: Group
    value: float | None = None
    interval: Interval | None = None
    standard_error: float | None = None
    count: int | None = None
    better: Literal[-1, 0, 1] = 0
    baseline: Baseline | None = None
    meaning: str = ""
    warning: str = ""
    decimals: int = 3
    unit: str = ""
    percent: bool = False
    main: bool = False

    @property
    def key(self) -> str:
        """The name by which files and scripts find it: `psnr`, `untrained/psnr`."""
        return self.name if self.baseline is None else f"{self.baseline.name}/{self.name}"

    @property
    def arrow(self) -> str:
        """Which way is better, as a table's heading shows it."""
        return {1: " ↑", -1: " ↓", 0: ""}[self.better]

    def measured(self, value: float | None, interval: Sequence[float] | None = None, **others: Any) -> "Metric":
        """A copy with its value; NaN counts as undefined."""
        defined = None if value is None or value != value else value
        ends = None if interval is None else (interval[0], interval[1])
        return replace(self, value=defined, interval=ends, **others)

    # --- as a person reads it -----------------------------------------------------------------------------------

    def text(self, value: float | None) -> str:
        """A value of this metric."""
        if value is None:
            return "–"
        if self.percent:
            return f"{value:.1%}".replace("-", "−")
        return self._with_unit(f"{value:,.{self._decimals(value)}f}")

    def interval_text(self, ends: Sequence[float] | None) -> str:
        """An interval of this metric; empty where there is none."""
        return "" if ends is None else f"{self.text(ends[0])} – {self.text(ends[1])}"

    def difference(self, value: float | None, other: float | None) -> str:
        """How far one value is above another: signed, as precise as both are printed; `=` where they print the same."""
        if value is None or other is None:
            return "–"
        if self.text(value) == self.text(other):
            return "="
        if self.percent:
            return f"{100 * (value - other):+.1f} points".replace("-", "−")
        return self._with_unit(f"{value - other:+,.{self._decimals(max(value, other, key=abs))}f}")

    def best(self, values: Sequence[float | None]) -> list[int]:
        """Positions of the best values: empty without a direction, below two values, or where all print the same."""
        known = [value for value in values if value is not None]
        if self.better == 0 or len(known) < 2 or len({self.text(value) for value in known}) == 1:
            return []
        top = self.text(max(known) if self.better > 0 else min(known))
        return [position for position, value in enumerate(values) if value is not None and self.text(value) == top]

    def _decimals(self, value: float) -> int:
        return min(self.decimals, 1) if abs(value) >= 100 else self.decimals

    def _with_unit(self, text: str) -> str:
        return text.replace("-", "−") + (f" {self.unit}" if self.unit else "")


def for_baseline(baseline: Baseline, metrics: Sequence[Metric]) -> list[Metric]:
    """The same metrics as those of a baseline."""
    return [replace(metric, baseline=baseline) for metric in metrics]


def by_key(metrics: Sequence[Metric]) -> dict[str, Metric]:
    """Metrics by their keys."""
    return {metric.key: metric for metric in metrics}


@dataclass(frozen=True)
class Evaluation:
    """The metrics of a model, and how they were measured (data, split, protocol).

    `evaluation["psnr"].value` is a value by its key, `"psnr" in evaluation` whether it was measured at all.

    Raises DataError where two metrics have the same key.
    """

    metrics: tuple[Metric, ...]
    details: Mapping[str, Any]

    def __post_init__(self) -> None:
        keys = [metric.key for metric in self.metrics]
        repeated = [key for key in dict.fromkeys(keys) if keys.count(key) > 1]
        if repeated:
            raise DataError(f"Two metrics are called {repeated[0]!r}; give each a name of its own.")

    def __getitem__(self, key: str) -> Metric:
        for metric in self.metrics:
            if metric.key == key:
                return metric
        raise KeyError(f"{key!r} was not measured; known: {', '.join(self)}")

    def __contains__(self, key: object) -> bool:
        return any(metric.key == key for metric in self.metrics)

    def __iter__(self) -> Iterator[str]:
        return (metric.key for metric in self.metrics)

    @property
    def warnings(self) -> list[str]:
        """What must be known before a value is used, each warning once."""
        return list(dict.fromkeys(metric.warning for metric in self.metrics if metric.warning))


# --- JSON -------------------------------------------------------------------------------------------------------

EVERY = ("title", "group", "value", "interval", "better")
"""Fields that a file always has; others are left out where they have their default."""


def metrics_as_json(metrics: Sequence[Metric]) -> dict[str, Any]:
    """`format`, `metrics` by key, and the `groups` and `baselines` that these name."""
    baselines = {metric.baseline.name: metric.baseline for metric in metrics if metric.baseline is not None}
    return {
        "format": FORMAT,
        "metrics": {metric.key: _metric_as_json(metric) for metric in metrics},
        "groups": _table(metric.group for metric in metrics),
        "baselines": _table(baselines.values()),
    }


def evaluation_as_json(evaluation: Evaluation) -> dict[str, Any]:
    """The details, then what `metrics_as_json` gives."""
    found = metrics_as_json(evaluation.metrics)
    return {"format": found.pop("format"), **evaluation.details, **found}


def _metric_as_json(metric: Metric) -> dict[str, Any]:
    stored: dict[str, Any] = {}
    for field in fields(Metric):
        value = getattr(metric, field.name)
        if field.name in EVERY or (field.default is not MISSING and value != field.default):
            stored[field.name] = value
    stored["group"] = metric.group.name
    stored["interval"] = None if metric.interval is None else list(metric.interval)
    if metric.baseline is not None:
        stored |= {"name": metric.name, "baseline": metric.baseline.name}
    return stored


def _table(values: Any) -> dict[str, dict[str, str]]:
    """Groups or baselines by name."""
    table = {value.name: asdict(value) for value in values}
    for stored in table.values():
        stored.pop("name")
    return table


TABLES = ("format", "metrics", "groups", "baselines")


def evaluation_from_json(content: Any, path: str) -> Evaluation:
    """The inverse of `evaluation_as_json`.

    Raises:
        FileError: the file is of an older version, or damaged; it says which command measures again.
    """
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise FileError(
            f"{path} was written by another version and does not hold metrics in format {FORMAT}; measure again with "
            "tavq evaluate RUN --data DIR (or tavq task evaluate)."
        )
    try:
        groups = {name: Group(name, **group) for name, group in content["groups"].items()}
        baselines = {name: Baseline(name, **baseline) for name, baseline in content["baselines"].items()}
        metrics = [
            _metric_from_json(key, stored, groups, baselines, path) for key, stored in content["metrics"].items()
        ]
    except (AttributeError, KeyError, TypeError) as error:
        raise FileError(f"{path} is damaged ({error}); measure again.") from error
    return Evaluation(tuple(metrics), {key: value for key, value in content.items() if key not in TABLES})


def _metric_from_json(
    key: str,
    stored: Mapping[str, Any],
    groups: Mapping[str, Group],
    baselines: Mapping[str, Baseline],
    path: str,
) -> Metric:
    values = {"name": key, **stored}
    _check_numbers(key, values, path)
    if values.get("interval") is not None:
        values["interval"] = tuple(values["interval"])
    name = values.get("baseline")
    values |= {"group": groups[stored["group"]], "baseline": None if name is None else baselines[name]}
    return Metric(**values)


def _check_numbers(key: str, values: Mapping[str, Any], path: str) -> None:
    for field in ("value", "standard_error"):
        if not (values.get(field) is None or is_number(values[field])):
            raise FileError(f"{path}: {key!r} must be a number, not {values[field]!r:.40}; measure again.")
    ends = values.get("interval")
    if not (ends is None or (isinstance(ends, list) and len(ends) == 2 and all(map(is_number, ends)))):
        raise FileError(f"{path}: the interval of {key!r} must be two numbers, not {ends!r:.40}; measure again.")
