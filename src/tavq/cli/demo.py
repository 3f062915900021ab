"""`tavq demo`: the main job on the embedded data set, end to end."""

import time
from pathlib import Path

from tavq import api
from tavq.cli import console, reports, tokenizers
from tavq.cli.console import Count, Seed
from tavq.cli.data import scenes
from tavq.cli.text import text
from tavq.core.errors import UsageError

METHODS = ("vqgan", "ta-vqgan")


def demo(
    *, out: Path = Path("demo"), images: Count = 2000, size: Count = 64, steps: Count | None = None, seed: Seed = 0
) -> None:
    """Draws scenes, encodes their text, trains VQ-GAN and TA-VQ alike, and compares them on held-out scenes.

    Example: tavq demo --out demo

    Args:
        out: The folder for data, runs and the report; must be new or empty.
        images: How many scenes to draw.
        size: Side of a scene in pixels.
        steps: Training steps of each method; by default the recipes' own.
        seed: Seed of the scenes and of both trainings.
    """
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is there already and not an empty folder; remove it or choose another --out.")
    started = time.monotonic()
    data = out / "scenes"
    scenes(data, images=images, size=size, seed=seed)
    text(data)
    runs = [out / method for method in METHODS]
    changes = {"train.seed": seed, "data.size": size, **({"train.steps": steps} if steps else {})}
    for method, run in zip(METHODS, runs, strict=True):
        with console.bar(f"Training {method}") as bar:
            api.train(f"{method}-tiny", data=data, out=run, settings=changes, progress=bar)
    for run in runs:
        tokenizers.evaluate(str(run), data=data)
        reports.report(run)
    reports.compare(*runs, out=out / "report.html", data=data)
    console.say(f"Done in {(time.monotonic() - started) / 60:.1f} minutes. Open {(out / 'report.html').resolve()}")
