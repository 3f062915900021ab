"""The table of a study: a row for each method, with means over its seeds beside what papers report."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path
from statistics import median
from typing import Any

from tavq.core.config import flatten_settings
from tavq.core.markdown import table_lines
from tavq.metrics.intervals import student_interval
from tavq.metrics.record import Group, Interval, Metric
from tavq.recipes.identity import COSMETIC_SETTINGS
from tavq.recipes.schema import PublishedConfig, RunRecipe
from tavq.recipes.study import Study, run_folder
from tavq.report.run import EVALUATION, Run, read_run

TABLE = "study"
"""The files that a study writes are called so, with the suffixes .json and .md."""

SECONDS = Metric(
    "seconds_per_epoch",
    "seconds per epoch",
    Group("training", "Training"),
    better=-1,
    decimals=0,
    meaning="Seconds of training per pass over the training images, on the machine of the run.",
)
"""A column that a study can have beside the metrics of evaluations."""


@dataclass(frozen=True)
class Column:
    """A metric of the tokenizers, or of a task on them."""

    metric: Metric
    task: str | None = None

    @property
    def heading(self) -> str:
        """What the table calls it."""
        whose = "" if self.metric.baseline is None else f"{self.metric.baseline.title}: "
        return ("" if self.task is None else f"{self.task}: ") + whose + self.metric.title + self.metric.arrow


@dataclass(frozen=True)
class Cell:
    """A metric of a row.

    Attributes:
        each: the value of each seed that has one.
        interval: 95 %: of the mean over seeds by Student's t, or over images where there is one seed.
    """

    each: tuple[float, ...]
    interval: Interval | None

    @property
    def mean(self) -> float | None:
        """The mean over seeds; None without a value."""
        return sum(self.each) / len(self.each) if self.each else None


@dataclass(frozen=True)
class StudyLine:
    """A row of the table."""

    name: str
    title: str
    seeds: tuple[int, ...]
    """Those that were evaluated."""
    cells: tuple[Cell, ...]
    published: tuple[PublishedConfig, ...]


@dataclass(frozen=True)
class StudyTable:
    """The results of a study so far."""

    study: Study
    columns: tuple[Column, ...]
    lines: tuple[StudyLine, ...]

    @property
    def headings(self) -> list[str]:
        """The headings of all columns."""
        published = ["published"] if any(line.published for line in self.lines) else []
        return ["method", "seeds", *(column.heading for column in self.columns), *published]

    def rows(self) -> Iterator[list[str]]:
        """The texts of each row."""
        has_published = any(line.published for line in self.lines)
        for line in self.lines:
            cells = [_cell_text(column, cell) for column, cell in zip(self.columns, line.cells, strict=True)]
            published = [_published_text(line.published)] if has_published else []
            yield [line.title, str(len(line.seeds)), *cells, *published]

    @property
    def notes(self) -> list[str]:
        """What a reader of the table must know."""
        found = [text for text in (self.study.config.description, self.study.config.source) if text]
        counts = sorted({len(line.seeds) for line in self.lines})
        if counts and counts[-1] > 1:
            found.append("Means over seeds; 95 % intervals by Student's t over seeds, where there are two or more.")
        if any(count == 1 for count in counts):
            found.append("Of a row with one seed the interval is over images: another seed may lie outside it.")
        return found


def tabulate(study: Study, out: Path, limit: int | None = None, fingerprint: str | None = None) -> StudyTable:
    """Read what was evaluated under `out`: all rows, also where only some were run; the others are empty.

    Runs with other settings than the study's, or measured on another number of images, are left out.

    Args:
        study: the rows.
        out: the folder of the study.
        limit: the number of images that runs must have been measured on; None for all.
        fingerprint: of the data set that they must have been measured on, after a later `tavq evaluate RUN` with
            another one too; None takes any.
    """
    tasks: list[str | None] = [None, *study.config.tasks]
    runs = {
        (row, task): _read(study, out, row, task, limit, fingerprint) for row in study.config.rows for task in tasks
    }
    columns: list[Column] = []
    for task in tasks:
        patterns = study.config.metrics if task is None else study.config.tasks[task].metrics
        found = [run for row in study.config.rows for run in runs[row, task].values()]
        columns += [Column(metric, task) for metric in _choose(found, patterns)]
    lines = [
        StudyLine(
            name,
            row.title or name,
            tuple(runs[name, None]),
            tuple(_cell(runs[name, column.task], column.metric.key) for column in columns),
            study.published(name),
        )
        for name, row in study.config.rows.items()
    ]
    return StudyTable(study, tuple(columns), tuple(lines))


def _read(
    study: Study, out: Path, row: str, task: str | None, limit: int | None, fingerprint: str | None
) -> dict[int, Run]:
    """The evaluated runs of a row by seed."""
    found = {}
    for seed in sorted({*study.config.seeds, *study.seeds}):
        folder = run_folder(out, row, seed, task)
        if not (folder / EVALUATION).is_file():
            continue
        run = read_run(folder)
        recipe = study.recipe(row, seed) if task is None else study.task_recipe(task, seed)
        same_data = fingerprint in (None, run.details.get("data_sha256"))
        if same_data and has_settings(run, recipe) and measured_images(run) == limit:
            found[seed] = run
    return found


FILLED_IN = ("text_width", "vocabulary", "adjectives", "nouns", "edges", "word_width", "words", "answers", "classes")
"""Last parts of the names of settings that training fills in from the data."""


def has_settings(run: Run, recipe: RunRecipe) -> bool:
    """Whether a run was trained to the end with these settings."""
    expected = dict(flatten_settings(recipe.model_dump(mode="json")))
    found = dict(flatten_settings(run.recipe))
    names = [name for name in expected if name not in COSMETIC_SETTINGS and name.split(".")[-1] not in FILLED_IN]
    return run.steps == recipe.train.steps and all(found.get(name) == expected[name] for name in names)


def measured_images(run: Run) -> int | None:
    """The limit on the images that a run was measured on; None for the whole split."""
    protocol = run.details.get("protocol")
    limit = run.details.get("limit") if protocol is None else protocol["data"]["first"]
    return None if limit is None else int(limit)


def _choose(runs: Sequence[Run], patterns: Sequence[str]) -> list[Metric]:
    """The metrics that have a value in some run, in the order of the patterns; without patterns the main ones."""
    known: dict[str, Metric] = {}
    for run in runs:
        for key, metric in _measured(run).items():
            known.setdefault(key, metric)
    if not patterns:
        return [metric for metric in known.values() if metric.main and metric.baseline is None]
    matched = [key for pattern in patterns for key in known if fnmatchcase(key, pattern)]
    return [known[key] for key in dict.fromkeys(matched)]


def _measured(run: Run) -> dict[str, Metric]:
    """The metrics of a run that have a value, by their keys."""
    metrics = (
        [] if run.evaluation is None else [metric for metric in run.evaluation.metrics if metric.value is not None]
    )
    images = run.provenance.get("images")
    # the first line has the start-up in it, and after a resume so may others: the median is of a step as such
    seconds = [line["seconds_per_step"] for line in run.lines[1:] if line.get("seconds_per_step")]
    if seconds and images:
        metrics.append(SECONDS.measured(median(seconds) * images / run.recipe["train"]["batch"]))
    return {metric.key: metric for metric in metrics}


def _cell(runs: Mapping[int, Run], key: str) -> Cell:
    measured = [metric for run in runs.values() if (metric := _measured(run).get(key)) is not None]
    values = [metric.value for metric in measured if metric.value is not None]
    if len(values) == 1:
        return Cell(tuple(values), measured[0].interval)
    ends = student_interval(values)
    return Cell(tuple(values), (ends[0], ends[1]) if ends else None)


# --- as a person and as a script reads it -------------------------------------------------------------------------


def _cell_text(column: Column, cell: Cell) -> str:
    interval = column.metric.interval_text(cell.interval)
    return column.metric.text(cell.mean) + (f" ({interval})" if interval else "")


def _published_text(published: Sequence[PublishedConfig]) -> str:
    return ", ".join(f"{number.metric} {number.value:g} ({number.source})" for number in published) or "–"


def as_markdown(table: StudyTable) -> str:
    """The notes and the table in Markdown."""
    lines = table_lines(table.headings, list(table.rows()))
    return "\n".join([f"# {table.study.title}", "", *table.notes, "", *lines, ""])


def as_json(table: StudyTable) -> dict[str, Any]:
    """The values of each seed, means and intervals, by row and column."""
    return {
        "study": table.study.title,
        "description": table.study.config.description,
        "source": table.study.config.source,
        "rows": {line.name: _line_as_json(table, line) for line in table.lines},
    }


def _line_as_json(table: StudyTable, line: StudyLine) -> dict[str, Any]:
    cells = {}
    for column, cell in zip(table.columns, line.cells, strict=True):
        key = column.metric.key if column.task is None else f"{column.task}/{column.metric.key}"
        ends = None if cell.interval is None else list(cell.interval)
        cells[key] = {"mean": cell.mean, "interval": ends, "each": list(cell.each)}
    published = [number.model_dump(mode="json") for number in line.published]
    return {"title": line.title, "seeds": list(line.seeds), "metrics": cells, "published": published}
