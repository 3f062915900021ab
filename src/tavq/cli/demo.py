"""`tavq demo`: the main job on the embedded data set, end to end."""

import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tavq import api
from tavq.cli import console, reports
from tavq.cli.console import Count, Seed
from tavq.cli.data import scenes
from tavq.cli.devices import with_device
from tavq.cli.metric_table import print_evaluation
from tavq.cli.text import print_store
from tavq.core.errors import TavqError, UsageError
from tavq.core.parallel import Job, Progress, one_thread, run_in_parallel
from tavq.metrics.record import Evaluation

METHODS = ("vqgan", "ta-vqgan")


@with_device
def demo(
    *, out: Path = Path("demo"), images: Count = 2000, size: Count = 64, steps: Count | None = None, seed: Seed = 0
) -> None:
    """Train VQ-GAN and TA-VQ on generated scenes, side by side, and compare them on held-out scenes.

    Each training uses one processor core. With the same seed the result is the same, bit for bit, on every run.

    Example: tavq demo --out demo

    Args:
        out: The folder for data, runs and the report; must be new or empty.
        images: Number of scenes.
        size: Side of a scene in pixels.
        steps: Training steps of each method; by default those of the recipes.
        seed: Seed of the scenes and of both trainings.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} exists and is not an empty folder; remove it or choose another --out.")
    started = time.monotonic()
    data, runs = out / "scenes", [out / method for method in METHODS]
    changes: dict[str, Any] = {"train.seed": seed, "data.size": size}
    if steps is not None:
        changes["train.steps"] = steps
    try:
        scenes(data, images=images, size=size, seed=seed)
        _run([_job(f"Training {run.name}", index, _train, run, data, changes) for index, run in enumerate(runs)])
        print_store(api.TextStore.open(data / "text", verify=False), samples=False)
        results = _run([_job(f"Evaluating {run.name}", index, _evaluate, run, data) for index, run in enumerate(runs)])
        for run, result in zip(runs, results, strict=True):
            print_evaluation(f"{run} on {data} (test)", result)
        with one_thread():
            reports.compare(*runs, out=out / "report.html", data=data, overview=out / "overview.png")
    except KeyboardInterrupt:
        raise TavqError(f"Stopped. {out} is incomplete; remove it before you run the demo again.") from None
    console.say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes. Open {(out / 'report.html').resolve()}")
    console.say(f"See what its codes mean: tavq explore {shlex.join(map(str, (runs[-1], '--data', data)))}")


def _job(name: str, index: int, function: Callable[..., Any], *arguments: Any) -> Job:
    return Job(name, function, arguments, api.device_of_job(index))


def _run(jobs: Sequence[Job]) -> list[Any]:
    """Run jobs side by side, each with a bar."""
    with console.bars([job.name for job in jobs]) as bars:
        return run_in_parallel(jobs, lambda job, done, total, note: bars[job](done, total, note))


def _train(run: Path, data: Path, changes: Mapping[str, Any], progress: Progress) -> None:
    """Train the tiny recipe of the method that a run folder is named after; first encode the text if it reads text.

    The text is encoded here, and not before, so that a method without text trains at the same time.
    """
    from tavq import recipes

    recipe = recipes.load(f"{run.name}-tiny", changes)
    if recipe.model.reads_text:
        api.build_text_store(data, jobs=1, progress=progress)
    api.train(recipe, data=data, out=run, progress=progress)


def _evaluate(run: Path, data: Path, progress: Progress) -> Evaluation:
    """Evaluate a run on the test split and write its report; return the evaluation."""
    from tavq.report.page import write_report

    result = api.evaluate(run, data=data, progress=progress)
    write_report(run, data, progress=progress)
    return result
