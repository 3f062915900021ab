"""Studies: files that list recipes and seeds, one row of a table each, and the shipped ones."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field, model_validator

from tavq import recipes
from tavq.core.config import Config, build, read_yaml
from tavq.core.errors import UsageError, unknown_name
from tavq.recipes.schema import PublishedConfig, Recipe, TaskRecipe

STUDIES = "studies"
"""The folder of the shipped studies."""

NAME = r"[A-Za-z0-9][A-Za-z0-9.+_-]*"
"""Rows and tasks name folders, so their names have no spaces or slashes."""

Name = Annotated[str, Field(pattern=f"^{NAME}$", max_length=60)]

METRICS = (
    "psnr", "ssim", "fid", "fd_*", "usage_deep", "perplexity_low", "perplexity_middle", "perplexity_deep",
    "code_text_gap", "retrieval/*/recall@5", "probe_code_text_cosine",
)  # fmt: skip
"""Columns of a study that names none."""


class StudyText(Config):
    """The text store of rows that read text; it is checked before the first training."""

    store: str = "text"
    """Its folder in the data set's."""
    encoder: str | None = None
    """The encoder that it must have been made by; null takes any."""
    each_caption: bool = False
    """It must keep captions apart (`tavq text --each-caption`)."""


class StudyRow(Config):
    """One method of a study: a recipe of a tokenizer with the settings that this row changes."""

    recipe: str
    """A shipped recipe, or the path of a YAML file, relative to the study's."""
    title: str = ""
    """As the table calls it; by default its name."""
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings to change by dotted name."""
    text: StudyText | None = None
    """In place of the study's."""
    published: tuple[PublishedConfig, ...] | None = None
    """What papers report for this row; by default what its recipe says."""


class StudyTask(Config):
    """A task that is trained and evaluated on the tokenizer of every row."""

    recipe: str
    settings: dict[str, Any] = Field(default_factory=dict)
    metrics: tuple[str, ...] = ()
    """Columns: keys of its evaluation, or patterns with `*`; by default its main metrics."""


class StudyConfig(Config):
    """A table of a paper, or of one's own: rows by name, and what all rows share."""

    description: str = ""
    source: str = ""
    """The paper and its table; empty for a study of one's own."""
    seeds: tuple[Annotated[int, Field(ge=0, lt=2**63)], ...] = Field((0,), min_length=1)
    settings: dict[str, Any] = Field(default_factory=dict)
    """Settings to change in every row; those of a row come after them."""
    text: StudyText = StudyText()
    features: tuple[str, ...] = ("scenes",)
    """Feature networks of the evaluation, as `tavq evaluate --features`."""
    metrics: tuple[str, ...] = METRICS
    """Columns: keys of an evaluation, or patterns with `*`."""
    rows: dict[Name, StudyRow] = Field(min_length=1)
    tasks: dict[Name, StudyTask] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _seeds_differ(self) -> "StudyConfig":
        if len(set(self.seeds)) < len(self.seeds):
            raise ValueError(f"seeds must differ, and {list(self.seeds)} repeats one")
        return self


class Study:
    """A study with its recipes loaded, so that a wrong setting is found before the first training.

    Args:
        name: as the user gave it: a shipped study, or a YAML file.
        config: its settings.
        changes: settings to change in every row, by dotted name; they come last.
        chosen: names of the rows to run; by default all.
        seeds: in place of those of the file.

    Raises:
        UsageError: a row does not exist, or a recipe or a setting is not accepted.
    """

    def __init__(
        self,
        name: str,
        config: StudyConfig,
        changes: Mapping[str, Any] | None = None,
        chosen: Sequence[str] | None = None,
        seeds: Sequence[int] | None = None,
    ) -> None:
        for row in chosen or ():
            if row not in config.rows:
                raise UsageError(unknown_name("row", row, list(config.rows)))
        self.name, self.config = name, config
        self.seeds = tuple(config.seeds if seeds is None else dict.fromkeys(seeds))
        self.rows = [row for row in config.rows if chosen is None or row in chosen]
        self._changes = changes or {}
        for row in self.rows:
            self.recipe(row, self.seeds[0])
        for task in config.tasks:
            self.task_recipe(task, self.seeds[0])

    @property
    def title(self) -> str:
        """Its name; that of a file without its folder and suffix."""
        return Path(self.name).stem if recipes.is_path(self.name) else self.name

    def recipe(self, row: str, seed: int) -> Recipe:
        """The recipe of a row with a seed."""
        chosen = self.config.rows[row]
        settings = {**self.config.settings, **chosen.settings, **self._changes, "train.seed": seed}
        return recipes.load(recipes.relative_to(self.name, chosen.recipe), settings)

    def task_recipe(self, task: str, seed: int) -> TaskRecipe:
        """The recipe of a task with a seed."""
        chosen = self.config.tasks[task]
        settings = {**chosen.settings, "train.seed": seed}
        return recipes.load_task(recipes.relative_to(self.name, chosen.recipe), settings)

    def text(self, row: str) -> StudyText:
        """The text store of a row."""
        return self.config.rows[row].text or self.config.text

    def published(self, row: str) -> tuple[PublishedConfig, ...]:
        """What papers report for a row."""
        own = self.config.rows[row].published
        return self.recipe(row, self.seeds[0]).published if own is None else own


def load_study(
    name_or_path: str,
    changes: Mapping[str, Any] | None = None,
    chosen: Sequence[str] | None = None,
    seeds: Sequence[int] | None = None,
) -> Study:
    """Load a shipped study by name, or a YAML file by path; see `Study` for the other arguments.

    Raises:
        UsageError: there is no such study or row, or a recipe or a setting is not accepted.
    """
    if recipes.is_path(name_or_path) and not Path(name_or_path).is_file():
        raise UsageError(f"There is no study file {name_or_path!r}.")
    if not recipes.is_path(name_or_path) and name_or_path not in recipes.names(STUDIES):
        raise UsageError(unknown_name("study", name_or_path, recipes.names(STUDIES)) + " A file's path ends in .yaml.")
    settings = read_yaml(recipes.text_of(name_or_path, STUDIES), f"Study {name_or_path}")
    return Study(name_or_path, build(StudyConfig, settings, f"Study {name_or_path}"), changes, chosen, seeds)


def run_folder(out: Path, row: str, seed: int, task: str | None = None) -> Path:
    """Where a row's run with a seed lies, or the run of a task on it."""
    return out / row / (f"seed-{seed}" if task is None else f"seed-{seed}-{task}")
