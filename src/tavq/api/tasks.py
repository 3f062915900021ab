"""Train and evaluate tasks on the codes of a tokenizer."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from tavq import recipes
from tavq.api.calls import (
    Budget,
    PathLike,
    Progress,
    TrainingProgress,
    count_up_to,
    warn_of_faults,
    warn_of_unread_shards,
)
from tavq.api.images import image_config
from tavq.api.measuring import open_network
from tavq.api.text import warn_of_changed_text
from tavq.api.tracking import require_run, track_evaluation
from tavq.core import files
from tavq.core.config import build
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.records import Fault
from tavq.data.workers import explain_dead_workers
from tavq.evaluation.task import evaluate_task as measure
from tavq.evaluation.text_questions import open_reader
from tavq.evaluation.text_retrieval import open_aligned
from tavq.metrics.record import Evaluation, evaluation_as_json
from tavq.model_folder import find_model, read_config, read_model_config
from tavq.ops.collective import join_processes, rank
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import GenerationTask, Sampling, tasks
from tavq.tasks.model_folder import TaskModel, load_task
from tavq.text.store import TextStore
from tavq.training.start import Resume
from tavq.training.task.trainer import TaskTrainer
from tavq.training.tracking import tracking


def train_task(
    recipe: str | TaskRecipe,
    *,
    tokenizer: PathLike,
    data: PathLike,
    out: PathLike,
    settings: Mapping[str, Any] | None = None,
    resume: Resume = False,
    text: PathLike | None = None,
    segmentation_tokenizer: PathLike | None = None,
    log_to: Iterable[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Train a task with the tokenizer frozen. Images are tokenized once and cached.

    Args:
        recipe: the name of a shipped recipe of a task, a YAML file, or a TaskRecipe.
        tokenizer: a tokenizer's model folder, run folder or hub name.
        data: a folder data set.
        out: the run folder.
        settings: settings to change by dotted name; of a recipe given by name or file.
        resume: continue from the newest checkpoint; the result is bit-for-bit that of an uninterrupted run.
            "auto" starts the run if there is none yet, and returns at once if it is complete.
        text: the text store, where the task reads text; by default DATA/text.
        segmentation_tokenizer: a tokenizer of segmentation maps, where the task reads them.
        log_to: also log to `tensorboard` or `wandb`; what goes wrong there does not end the run.
        progress: called with (step, steps, note) after each step.

    Returns:
        The run folder.

    Raises:
        UsageError: there is no such recipe, tokenizer or data set, or a setting or argument is not accepted.
        DataError: the data cannot be used.
        FileError: a file is damaged, or the run folder cannot be written.
        TrainingError: a loss was not finite.
    """
    chosen = recipe if isinstance(recipe, TaskRecipe) else recipes.load_task(recipe, settings)
    with join_processes(), tracking(TrainingProgress(progress, _losses), log_to) as reporter:
        dataset = FolderDataset(Path(data), "train")
        warn_of_unread_shards(Path(data))
        needs = tasks[chosen.task.name].required_conditions(chosen.task)
        _refuse_unused(chosen.task.name, needs, {"text": text, "segmentation_tokenizer": segmentation_tokenizer})
        store = None
        if "text" in needs:
            store = TextStore.find(dataset.home, None if text is None else Path(text))
        if store is not None:
            warn_of_changed_text(store, dataset)
        trainer = TaskTrainer(
            chosen,
            _name(tokenizer),
            dataset,
            Path(out),
            store,
            reporter=reporter,
            segmentation_tokenizer=None if segmentation_tokenizer is None else _name(segmentation_tokenizer),
        )
        trainer.run(resume)
    return Path(out)


def commands_of(run: PathLike) -> frozenset[str]:
    """Return the commands that use the trained model in a run folder."""
    config = read_config(Path(run) / "model")
    return tasks[config["model"]["task"]["name"]].commands


def _losses(line: dict[str, Any]) -> str:
    """Format a task's losses; only they have a name of two parts."""
    return ", ".join(f"{key.rpartition('/')[2]} {value:.3f}" for key, value in line.items() if "/" in key)


def _refuse_unused(task: str, needs: frozenset[str], arguments: Mapping[str, Any]) -> None:
    """Raise UsageError where an argument names what the task would ignore."""
    for name, value in arguments.items():
        what = name.partition("_")[0]
        if value is not None and what not in needs:
            flag = "--" + name.replace("_", "-")
            raise UsageError(f"Task {task!r} with these settings does not use {what}; remove {flag} {value}.")


def _name(model: PathLike) -> str:
    return str(model)


@explain_dead_workers()
def evaluate_task(
    run: PathLike,
    *,
    data: PathLike,
    split: str = "test",
    text: PathLike | None = None,
    features: Iterable[str] = ("scenes",),
    aligned: PathLike | None = None,
    reader: PathLike | None = None,
    limit: int | None = None,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    guidance: float = 1.0,
    steps: int | None = None,
    fault_budget: Budget | None = None,
    workers: int | None = None,
    log_to: Iterable[str] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a task on a split, together with trivial baselines.

    The result is also written to evaluation.json of the run folder.

    Args:
        run: a task's model folder, run folder or hub name.
        data: a folder data set.
        split: train, val or test.
        text: the text store, where the task reads text; by default DATA/text.
        features: feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        aligned: a tokenizer with an aligner that ranks generated images against their texts (tasks that read text).
        reader: a model of the task vqa that answers the data set's questions about generated images.
        limit: measure only the first images, against as many training images.
        temperature: as for `generate`, like the next four; for generation tasks only.
        top_k: sample from the k most likely tokens.
        top_p: sample from the most likely tokens that together have this probability.
        guidance: classifier-free guidance scale; 1 is off.
        steps: number of decoding steps, for tasks that decode many tokens at once.
        fault_budget: how many images may be unreadable before the call fails: a number (by default 100), or a share of
            them such as "5%".
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        log_to: also log the metrics to `tensorboard` or `wandb`, where the training of the run was logged.
        progress: called with (images, total, note) after each batch.

    Returns:
        The metrics with their 95 % intervals (`result["accuracy"].value`), and how they were measured
        (`result.details`); `evaluation.json` holds the same.

    Raises:
        UsageError: there is no such model, data set, split or network, or the task does not use an argument.
        FileError: a file is damaged, or the text store does not fit the model.
    """
    sampling = make_sampling(temperature, top_k, top_p, guidance, steps)
    require_run(run, Path(run), log_to)
    with join_processes():
        model = load_task(_name(run)).to(default_device())
        _check_sampling(model, sampling)
        dataset = FolderDataset(Path(data), split)
        needs = model.task.required_conditions(model.config.task)
        _refuse_unused(model.config.task.name, needs, {"text": text})
        store = None
        if "text" in needs:
            store = TextStore.open(dataset.home / "text" if text is None else Path(text))
            store.check_encoder(model.metadata.get("text"))
        ranker = None if aligned is None else open_aligned(str(aligned), model, store)
        answerer = None if reader is None else open_reader(str(reader), model)
        networks = [open_network(name).to(default_device()) for name in features]
        count = count_up_to(min(len(dataset), limit or len(dataset)), progress)
        config = image_config(model.size, fault_budget, workers)
        faults: list[Fault] = []
        measured = measure(model, dataset, networks, sampling, store, limit, count, ranker, answerer, config, faults)
        warn_of_faults(faults)
        details = {
            **measured.details,
            "faults": len(faults),
            "data": Path(data).name,
            "data_sha256": dataset.fingerprint,
            "split": split,
            "limit": limit,
            "model": model.metadata.get("sha256"),
            "reader": None if answerer is None else answerer.metadata.get("sha256"),
            "aligned": None if aligned is None else read_model_config(find_model(str(aligned))).get("sha256"),
        }
        result = replace(measured, details=details)
        if rank() == 0 and (Path(run) / "recipe.yaml").is_file():
            files.write_json(Path(run) / "evaluation.json", evaluation_as_json(result))
            track_evaluation(Path(run), result, log_to)
    return result


def _check_sampling(model: TaskModel, sampling: Sampling) -> None:
    if isinstance(model.task, GenerationTask):
        model.task.check_sampling(sampling)
    elif sampling != Sampling():
        raise UsageError(f"Task {model.config.task.name!r} does not sample; remove the sampling options.")


def make_sampling(
    temperature: float, top_k: int | None, top_p: float | None, guidance: float, steps: int | None
) -> Sampling:
    """Return the sampling settings; raises UsageError where one is out of its range."""
    given = {"temperature": temperature, "top_k": top_k, "top_p": top_p, "guidance": guidance, "steps": steps}
    return build(Sampling, given, "The call")
