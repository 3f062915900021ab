"""`tavq data`: make, check, import and export folder data sets."""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Seed, Workers
from tavq.cli.help import add_with_list

app = App(
    name="data",
    help="Make, check, import and export folder data sets.\n\nExample: tavq data scenes images --images 500",
)


@app.command
def scenes(
    out: Path, /, *, images: Count = 1000, size: Count = 64, seed: Seed = 0, workers: Workers | None = None
) -> None:
    """Write the embedded data set: rendered scenes with long true text, boxes, questions and segmentation.

    Example: tavq data scenes scenes --images 64 --size 64 --seed 1

    Args:
        out: The folder to write; the same seed gives the same bytes.
        images: Number of images.
        size: Side of an image in pixels.
        seed: Seed; image i depends on the seed and i only.
        workers: Processes that draw; by default one a core, at most 8, for 500 images or more.
    """
    with console.bar("Rendering scenes", images) as bar:
        api.make_scenes(out, images=images, size=size, seed=seed, workers=workers, progress=bar)
    console.say(f"{images:,} scenes are in {out}. Next: tavq text {out}")


@app.command
def check(folder: Path, /, *, json: Path | None = None) -> int:
    """List every fault of a folder data set; the exit code is 1 if there is one.

    Example: tavq data check scenes

    Args:
        folder: The folder data set.
        json: Also write the faults to this file.
    """
    with console.bar("Checking") as bar:
        faults = api.check_dataset(folder, progress=bar)
    lines = [str(fault) for fault in faults]
    with console.saved_as_json(json, {"faults": lines, "count": len(faults)}):
        for line in lines:
            console.show(line)
    console.say(f"{folder} has {len(faults):,} faults." if faults else f"{folder} has no faults.")
    return 1 if faults else 0


def import_(kind: str, source: Path, out: Path, /, *, limit: Count | None = None, json: Path | None = None) -> None:
    """Convert a published data set to a folder data set.

    Example: tavq data import flickr8k downloads/flickr8k flickr8k

    Args:
        kind: Which data set; they are listed below with the files that each needs.
        source: The folder with its files; for some kinds also a single shard, a brace list or a hub name.
        out: The folder to write.
        limit: Convert at most this many images per split.
        json: Also write the counts to this file.
    """
    with console.bar(f"Importing {kind}") as bar:
        summary = api.import_dataset(kind, source, out, limit=limit, progress=bar)
    rows = [["captions", summary.captions], *([what, count] for what, count in summary.others.items())]
    with console.saved_as_json(json, asdict(summary)):
        _print(f"{kind} in {out}", summary.images, rows, summary.left_out)
    console.say(f"{sum(summary.images.values()):,} images are in {out}. Next: tavq data check {out}")


def export(folder: Path, out: Path, /, *, to: str, shard_size: Count = 1000, json: Path | None = None) -> None:
    """Write a folder data set in a format that other projects read.

    Example: tavq data export scenes shards --to webdataset --shard-size 500

    Args:
        folder: The folder data set.
        out: The folder to write; the same data set gives the same bytes.
        to: Which format; they are listed below with the files that each writes.
        shard_size: Maximum number of images per file.
        json: Also write the counts to this file.
    """
    with console.bar(f"Exporting to {to}") as bar:
        summary = api.export_dataset(folder, out, to=to, shard_size=shard_size, progress=bar)
    with console.saved_as_json(json, asdict(summary)):
        _print(f"{folder} in {out}", summary.images, [["files", summary.files]], summary.left_out)
    console.say(f"{sum(summary.images.values()):,} images are in {out}.")


add_with_list(app, "import", import_, lambda: api.list_importers())
add_with_list(app, "export", export, lambda: api.list_exporters())


def _print(title: str, images: Mapping[str, int], rows: list[list[Any]], left_out: Mapping[str, int]) -> None:
    by_split = [[f"images in {split}", count] for split, count in images.items()]
    reasons = [[f"left out: {reason}", count] for reason, count in left_out.items()]
    console.print_table(title, ["", "count"], [*by_split, *rows, *reasons])
