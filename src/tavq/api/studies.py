"""Run a study: train and evaluate each of its rows with each seed, and tabulate the results."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tavq import recipes
from tavq.api.calls import PathLike, warn
from tavq.api.tasks import evaluate_task, train_task
from tavq.api.text import ensure_store
from tavq.api.tokenizers import evaluate, train
from tavq.core import files
from tavq.core.devices import device_of_job
from tavq.core.errors import FileError, StoppedError, TavqError, UsageError
from tavq.core.memory import TRAINING_ADVICE, describe_out_of_memory, is_out_of_memory
from tavq.core.parallel import Job, Progress, run_in_parallel
from tavq.core.torchrun import launched_processes
from tavq.data.folder import FolderDataset
from tavq.data.shards import find_home
from tavq.interfaces import codebooks
from tavq.recipes.schema import RunRecipe
from tavq.recipes.study import STUDIES, Study, StudyText, load_study, run_folder
from tavq.report.run import EVALUATION, read_run
from tavq.report.study import (
    TABLE,
    StudyTable,
    as_json,
    as_markdown,
    has_settings,
    measured_images,
    tabulate,
)
from tavq.text.store import TextStore
from tavq.tokenizer import TokenizerConfig

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
    features: tuple[str, ...]

    def place(self, row: str) -> Path:
        """The folder of the text store that a row reads."""
        return self.text or find_home(self.data) / self.study.text(row).store

    def open_store(self, row: str) -> TextStore | None:
        """The text store of a row, unchecked; None without one."""
        named = self.text is not None or self.study.text(row).store != StudyText().store
        place = self.place(row) if named else None
        missing = place is not None and not place.exists()
        return None if missing else TextStore.find(find_home(self.data), place, verify=False)


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
    features: Iterable[str] | None = None,
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
        text: the text store of all rows; by default those that the study names, or DATA/text, which is built or
            extended where a row needs it.
        features: feature networks of the distances, in place of the study's: `scenes`, `inception=FILE` and so on.
        limit: evaluate on the first images only.
        jobs: how many runs to train side by side, each in a process with one thread; they take the GPUs in
            turn.
        progress: called with (worker, done, total, note), with workers counted from 0.

    Returns:
        The table of all that was evaluated, and a message for each row and seed that failed.

    Raises:
        UsageError: there is no such study, row, recipe or data set, a setting is not accepted, or a text store is
            missing or was made by another encoder than the study's.
    """
    chosen = study if isinstance(study, Study) else load_study(study)
    if launched_processes() > 1:
        raise UsageError("A study starts processes of its own (--jobs); run it without torchrun.")
    if Path(out).exists() and not Path(out).is_dir():
        raise UsageError(f"{out} is a file; choose a folder for the study with --out.")
    networks = chosen.config.features if features is None else tuple(features)
    call = _Call(chosen, Path(data), Path(out), None if text is None else Path(text), limit, networks)
    _prepare_text(call)
    units = [(row, seed) for seed in chosen.seeds for row in chosen.rows]
    jobs = min(jobs, len(units))
    workers = [
        Job(f"worker {index}", _run_units, (call, units[index::jobs]), device_of_job(index)) for index in range(jobs)
    ]
    failures = [failure for found in run_in_parallel(workers, progress or _ignore) for failure in found]
    table = tabulate_study(chosen, out, limit, data=data)
    return StudyResult(table, tuple(failures))


def tabulate_study(study: Study, out: PathLike, limit: int | None = None, data: PathLike | None = None) -> StudyTable:
    """Tabulate what a study has evaluated so far, and write OUT/study.json and OUT/study.md.

    Runs that were measured on another data set than `data`, where it is given, are left out.
    """
    folder = Path(out)
    fingerprint = None if data is None else FolderDataset(Path(data), SPLIT).fingerprint
    table = tabulate(study, folder, limit, fingerprint)
    files.write_json(folder / f"{TABLE}.json", as_json(table))
    files.write_text(folder / f"{TABLE}.md", as_markdown(table))
    return table


def _ignore(worker: int, done: int, total: int | None, note: str) -> None:
    """Show no progress."""


def _prepare_text(call: _Call) -> None:
    """Check the text stores that rows name; build or extend the default one with all that its rows read.

    Before the first training, as a row would fail hours later, and workers would build one store at the same time.
    """
    dataset = FolderDataset(call.data, "train")
    plain = []
    for row in call.study.rows:
        model, wanted = call.study.recipe(row, call.study.seeds[0]).model, call.study.text(row)
        if not model.reads_text:
            continue
        if call.text is None and wanted == StudyText():
            plain.append(model)
        else:
            _check_store(call, row, model)
    if plain:
        ensure_store(dataset, plain)


def _check_store(call: _Call, row: str, model: TokenizerConfig) -> None:
    """Raise UsageError, with the command to run, unless the store of a row exists and is what the study asks for."""
    place, wanted = call.place(row), call.study.text(row)
    command = f"tavq text {call.data} --out {place}" + (f" --encoder {wanted.encoder}" if wanted.encoder else "")
    command += " --each-caption" * wanted.each_caption + " --full-text" * model.reads_full_text
    command += " --word-graph" * codebooks[model.codebook.name].reads_text
    try:
        manifest = TextStore.open(place, verify=False).manifest
    except FileError as error:
        raise UsageError(f"Row {row!r} reads the text store {place}: {error} Build it with: {command}") from error
    if call.text is not None:  # chosen by hand, whatever the study says
        return
    made = manifest.encoder.name
    if wanted.encoder is not None and made.rstrip("/").rpartition("/")[2] != wanted.encoder.rpartition("/")[2]:
        raise UsageError(
            f"Row {row!r} needs a text store made by the encoder {wanted.encoder!r}, and {place} was made by {made!r}. "
            f"Build it with: {command}, or use another store with --text."
        )
    if wanted.each_caption and not manifest.each_caption:
        raise UsageError(
            f"Row {row!r} needs a text store that keeps captions apart, and {place} joins them. Build it with: "
            f"{command}, or use another store with --text."
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
        except (TavqError, RuntimeError, MemoryError) as error:
            if not isinstance(error, TavqError) and not is_out_of_memory(error):
                raise
            lacking = not isinstance(error, TavqError)
            failures.append(f"{name}: {describe_out_of_memory(error, TRAINING_ADVICE) if lacking else error}")
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
    measured: dict[str, Any] = {"split": SPLIT, "features": call.features, "limit": call.limit}
    run, recipe = run_folder(call.out, row, seed), call.study.recipe(row, seed)
    store = call.open_store(row)
    text = None if store is None else store.folder
    if not _is_trained(run, recipe, call.data, store if recipe.model.reads_text else None):
        train(recipe, out=run, resume=_is_started(run), text=text, **shared)
    if not _is_evaluated(run, call, store):
        evaluate(run, text=text, **measured, **shared)
    for task in call.study.config.tasks:
        task_run, task_recipe = run_folder(call.out, row, seed, task), call.study.task_recipe(task, seed)
        if not _is_trained(task_run, task_recipe, call.data, None):
            train_task(task_recipe, tokenizer=run, out=task_run, resume=_is_started(task_run), **shared)
        if not _is_evaluated(task_run, call, None):
            evaluate_task(task_run, **measured, **shared)


def _is_started(run: Path) -> bool:
    return (run / "recipe.yaml").is_file()


def _is_trained(run: Path, recipe: RunRecipe, data: Path, store: TextStore | None) -> bool:
    """Whether a run has reached its last step with this data, text and these settings.

    Where it has not, or was made of something else, resuming it continues or says what differs.

    Args:
        run: the run folder.
        recipe: what it should be.
        data: the data set.
        store: the text that it should be trained with; None does not compare the text.
    """
    if not (run / "model" / "config.json").is_file() or not _is_started(run):
        return False
    finished = read_run(run)
    return (
        has_settings(finished, recipe)
        and finished.provenance.get("data_sha256") == FolderDataset(data, "train").fingerprint
        and (store is None or _hash_of(finished.provenance.get("text")) == store.manifest.sha256)
    )


def _hash_of(manifest: Any) -> str | None:
    """The hash of a text store in a run's records; None without one."""
    return manifest.get("sha256") if isinstance(manifest, Mapping) else None


def _is_evaluated(run: Path, call: _Call, store: TextStore | None) -> bool:
    """Whether a run's evaluation is of its model, on this split, with this text, limit and these networks."""
    if not (run / EVALUATION).is_file():
        return False
    finished = read_run(run)
    details = finished.details
    protocol = details.get("protocol")
    model = details.get("model") if protocol is None else protocol["model"]["sha256"]
    same_text = protocol is None or _hash_of(protocol.get("text")) == (None if store is None else store.manifest.sha256)
    networks = {name.partition("=")[0] for name in call.features}
    return (
        model == finished.model.get("sha256")
        and same_text
        and measured_images(finished) == call.limit
        and details.get("data_sha256") == FolderDataset(call.data, SPLIT).fingerprint
        and networks <= set(details.get("feature_weights", networks))
    )
