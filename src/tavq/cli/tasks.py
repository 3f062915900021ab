"""`tavq task`: train and evaluate tasks on a tokenizer's codes."""

from pathlib import Path

from cyclopts import App

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, NonNegative, Probability, Workers
from tavq.cli.devices import with_device, with_precision
from tavq.cli.help import add_with_list, shipped_task_recipes
from tavq.cli.metric_table import print_evaluation
from tavq.cli.tracking import LogTo
from tavq.cli.train import Resume, Settings
from tavq.metrics.record import evaluation_as_json

app = App(
    name="task",
    help="Train tasks on a tokenizer's codes.\n\nExample: tavq task train unconditional-tiny --tokenizer run "
    "--data scenes --out drawer",
)


@with_device
def train(
    task: str,
    /,
    *settings: Settings,
    tokenizer: str,
    data: Path,
    out: Path,
    resume: Resume = False,
    text: Path | None = None,
    segmentation_tokenizer: str | None = None,
    log_to: LogTo = (),
) -> None:
    """Train a task on the codes of a tokenizer, with the tokenizer frozen.

    Images are tokenized once and cached.

    Example: tavq task train unconditional-tiny --tokenizer run --data scenes --out prior

    Args:
        task: A shipped recipe (listed below) or a YAML file.
        tokenizer: A model folder, a run folder or a hub name.
        data: A folder data set.
        out: The run folder.
        resume: Continue from the newest checkpoint; the result is bit-for-bit that of an uninterrupted run.
            `auto` starts the run if there is none yet, for schedulers that repeat the command.
        text: The text store, where the task reads text; by default DATA/text.
        segmentation_tokenizer: A tokenizer of segmentation maps, where the task reads them.
    """
    changes = api.parse_overrides(settings)
    with console.bar(f"Training {task}") as bar:
        api.train_task(
            task, tokenizer=tokenizer, data=data, out=out, settings=changes, resume=resume, text=text,
            segmentation_tokenizer=segmentation_tokenizer, log_to=log_to, progress=bar,
        )  # fmt: skip
    if console.is_first_process() and (bar.done or resume != "auto"):  # else it said that the run is complete
        command = min(api.commands_of(out) - {"complete"}, default="task evaluate")
        console.say(f"The model is in {out / 'model'}. Next: tavq {command} {out}")


add_with_list(app, "train", train, shipped_task_recipes, "Shipped recipes:")


@app.command
@with_device
@with_precision
def evaluate(
    run: str,
    /,
    *,
    data: Path,
    split: str = "test",
    text: Path | None = None,
    features: tuple[str, ...] = ("scenes",),
    aligned: str | None = None,
    reader: str | None = None,
    limit: Count | None = None,
    temperature: NonNegative = 1.0,
    top_k: Count | None = None,
    top_p: Probability | None = None,
    guidance: NonNegative = 1.0,
    steps: Count | None = None,
    fault_budget: str | None = None,
    workers: Workers | None = None,
    log_to: LogTo = (),
    json: Path | None = None,
) -> None:
    """Measure a task on a split, together with trivial baselines.

    The result is also written to evaluation.json in the run folder.

    Example: tavq task evaluate painter --data scenes --aligned run-ta

    Args:
        run: A task's model folder, run folder or hub name.
        data: A folder data set.
        split: train, val or test.
        text: The text store, where the task reads text; by default DATA/text.
        features: Feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        aligned: A tokenizer with an aligner that ranks generated images against their texts (tasks that read text).
        reader: A model of the task vqa that answers the data set's questions about generated images.
        limit: Measure only the first images, against as many training images.
        temperature: Sampling temperature, as in `tavq generate`; 0 takes the most likely token (generation tasks only).
        top_k: Sample from the k most likely tokens (generation tasks only).
        top_p: Sample from the most likely tokens that together have this probability (generation tasks only).
        guidance: Classifier-free guidance scale (1 = off).
        steps: Number of decoding steps, for tasks that decode many tokens at once.
        fault_budget: How many images may be unreadable: a number (by default 100), or a share of them such as 5%.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        json: Also write the result to this file.
    """
    with console.bar(f"Evaluating {run}") as bar:
        result = api.evaluate_task(
            run, data=data, split=split, text=text, features=features, aligned=aligned, reader=reader, limit=limit,
            temperature=temperature, top_k=top_k, top_p=top_p, guidance=guidance, steps=steps,
            fault_budget=fault_budget, workers=workers, log_to=log_to, progress=bar,
        )  # fmt: skip
    with console.saved_as_json(json, evaluation_as_json(result)):
        print_evaluation(f"{run} on {data} ({split})", result)
