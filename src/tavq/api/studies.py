"""Run a study: train and evaluate each of its rows with each seed, and tabulate the results."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tavq import recipes
from tavq.api.calls import PathLike, inform, warn
from tavq.api.tasks import evaluate_task, train_task
from tavq.api.text import build_text_store
from tavq.api.tokenizers import evaluate, train
from tavq.core import files
from tavq.core.errors import StoppedError, TavqError
from tavq.core.parallel import Job, Progress, run_in_parallel
from tavq.data.folder import FolderDataset
from tavq.interfaces import codebooks
from tavq.recipes.schema import RunRecipe
from tavq.recipes.study import STUDIES, Study, load_study, run_folder
from tavq.report.run import EVALUATION, read_run
from tavq.report.study import TABLE, StudyTable, as_json, as_markdown, tabulate
from tavq.text.store import TextStore

SPLIT = "test"


@dataclass(frozen=True)
class StudyResult:
    """The table of a study, and what went wrong.

    Attributes:
        table: of all that was evaluated, in this call or before.
        failures: a message for each row and seed that could not be trained or evaluated.
    """

    table: StudyTable
    failures: tuple[str, ...]


@dataclass(frozen=True)
class _Call:
    """What every worker of a study needs to know."""

    study: Study
    data: Path
    out: Path
    text: Path | None
    limit: int | None


def list_studies() -> list[dict[str, Any]]:
    """Return what each shipped study is: its rows with what papers report for them, and its tasks."""
    return [_describe(load_study(name)) for name in recipes.names(STUDIES)]


def _describe(study: Study) -> dict[str, Any]:
    rows = []
    for name, row in study.config.rows.items():
        published = [number.model_dump(mode="json") for number in study.published(name)]
        rows.append({"name": name, "title": row.title, "recipe": row.recipe, "published": published})
    return {
        "name": study.name,
        "description": study.config.description,
        "source": study.config.source,
        "seeds": list(study.seeds),
        "rows": rows,
        "tasks": list(study.config.tasks),
    }


def run_study(
    study: str | Study,
    *,
    data: PathLike,
    out: PathLike,
    text: PathLike | None = None,
    limit: int | None = None,
    jobs: int = 1,
    progress: Callable[[int, int, int | None, str], None] | None = None,
) -> StudyResult:
    """Train and evaluate every row of a study with every seed, and write OUT/study.json and OUT/study.md.

    The same call continues a study that was stopped: what is finished is kept, a training goes on from its newest
    checkpoint. A row that fails does not stop the others.

    Args:
        study: the name of a shipped study, a YAML file, or what `load_study` returned.
        data: a folder data set; rows are evaluated on its split `test`.
        out: the folder of the study; runs are OUT/ROW/seed-N, and OUT/ROW/seed-N-TASK for tasks.
        text: the text store; by default DATA/text, which is built where it is missing and a row needs it.
        limit: evaluate on the first images only.
        jobs: how many runs to train side by side, each in a process with one thread.
        progress: called with (worker, done, total, note), with workers counted from 0.

    Returns:
        The table of all that was evaluated, and a message for each row and seed that failed.

    Raises:
        UsageError: there is no such study, row, recipe or data set, or a setting is not accepted.
    """
    chosen = study if isinstance(study, Study) else load_study(study)
    call = _Call(chosen, Path(data), Path(out), None if text is None else Path(text), limit)
    _prepare_text(call)
    units = [(row, seed) for seed in chosen.seeds for row in chosen.rows]
    jobs = min(jobs, len(units))
    workers = [Job(f"worker {index}", _run_units, (call, units[index::jobs])) for index in range(jobs)]
    failures = [failure for found in run_in_parallel(workers, progress or _ignore) for failure in found]
    table = tabulate_study(chosen, out)
    return StudyResult(table, tuple(failures))


def tabulate_study(study: Study, out: PathLike) -> StudyTable:
    """Tabulate what a study has evaluated so far, and write OUT/study.json and OUT/study.md."""
    folder = Path(out)
    table = tabulate(study, folder)
    files.write_json(folder / f"{TABLE}.json", as_json(table))
    files.write_text(folder / f"{TABLE}.md", as_markdown(table))
    return table


def _ignore(worker: int, done: int, total: int | None, note: str) -> None:
    """Show no progress."""


def _prepare_text(call: _Call) -> None:
    """Build the default text store, if it is missing, with all that any row reads.

    Workers would otherwise build it at the same time.
    """
    rows = [row for row in call.study.rows if call.study.config.rows[row].text is None]
    models = [call.study.recipe(row, call.study.seeds[0]).model for row in rows]
    readers = [model for model in models if model.reads_text]
    folder = FolderDataset(call.data, "train").folder
    if not readers or call.text is not None or TextStore.find(folder, None, verify=False) is not None:
        return
    inform(f"{folder} has no text store yet; building it with all that the study reads.")
    build_text_store(
        folder,
        full_text=any(model.reads_full_text for model in readers),
        word_graph=any(codebooks[model.codebook.name].reads_text for model in readers),
    )


def _run_units(call: _Call, units: Sequence[tuple[str, int]], progress: Progress) -> list[str]:
    """Run rows with seeds one after the other, and return the messages of those that failed."""
    failures = []
    for done, (row, seed) in enumerate(units):
        name = f"{row}, seed {seed}"
        try:
            _run_unit(call, row, seed, _reporter(progress, name, done, len(units)))
        except StoppedError:
            raise
        except TavqError as error:
            failures.append(f"{name}: {error}")
            warn(failures[-1])
    return failures


def _reporter(progress: Progress, name: str, done: int, total: int) -> Callable[[int, int | None, str], None]:
    """Report the units that are done, with the progress of the current one as the note."""

    def report(step: int, steps: int | None, note: str) -> None:
        progress(done, total, f"{name}: {step:,}{f' of {steps:,}' if steps else ''} {note}".rstrip())

    return report


def _run_unit(call: _Call, row: str, seed: int, progress: Callable[[int, int | None, str], None]) -> None:
    """Train and evaluate one row with one seed, then the study's tasks on it."""
    shared: dict[str, Any] = {"data": call.data, "progress": progress}
    measured: dict[str, Any] = {"split": SPLIT, "features": call.study.config.features, "limit": call.limit}
    run, recipe = run_folder(call.out, row, seed), call.study.recipe(row, seed)
    own_text = call.study.config.rows[row].text
    text = call.text if own_text is None else call.data / own_text
    if not _is_trained(run, recipe, call.data):
        train(recipe, out=run, resume=_is_started(run), text=text, **shared)
    if not _is_evaluated(run, call):
        evaluate(run, text=text, **measured, **shared)
    for task in call.study.config.tasks:
        task_run, task_recipe = run_folder(call.out, row, seed, task), call.study.task_recipe(task, seed)
        if not _is_trained(task_run, task_recipe, call.data):
            train_task(task_recipe, tokenizer=run, out=task_run, resume=_is_started(task_run), **shared)
        if not _is_evaluated(task_run, call):
            evaluate_task(task_run, **measured, **shared)


def _is_started(run: Path) -> bool:
    return (run / "recipe.yaml").is_file()


def _is_trained(run: Path, recipe: RunRecipe, data: Path) -> bool:
    """Whether a run has reached its last step with this data and these settings.

    Where it has not, or was made of something else, resuming it continues or says what differs.
    """
    if not (run / "model" / "config.json").is_file() or not _is_started(run):
        return False
    finished = read_run(run)
    return (
        finished.steps == recipe.train.steps
        and finished.recipe == recipe.model_dump(mode="json")
        and finished.provenance.get("data_sha256") == FolderDataset(data, "train").fingerprint
    )


def _is_evaluated(run: Path, call: _Call) -> bool:
    """Whether a run's evaluation is of its model, on this split, with this limit and these networks."""
    if not (run / EVALUATION).is_file():
        return False
    finished = read_run(run)
    details = finished.details
    protocol = details.get("protocol")
    model, limit = details.get("model"), details.get("limit")
    if protocol is not None:  # a tokenizer's evaluation
        model, limit = protocol["model"]["sha256"], protocol["data"]["first"]
    networks = {name.partition("=")[0] for name in call.study.config.features}
    return (
        model == finished.model.get("sha256")
        and limit == call.limit
        and details.get("data_sha256") == FolderDataset(call.data, SPLIT).fingerprint
        and networks <= set(details.get("feature_weights", networks))
    )
