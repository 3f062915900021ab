"""`tavq data`: make, check, import and export folder data sets."""

from dataclasses import asdict
from pathlib import Path
from typing import Any

from cyclopts import App

from tavq.cli import console
from tavq.cli.console import Count, Seed

app = App(
    name="data",
    help="Make, check, import and export folder data sets.\n\nExample: tavq data scenes images --images 500",
)


class _Listing(App):
    """A command whose help ends with every class of its registry; they are only loaded when it is shown."""

    @property
    def help_epilogue(self) -> str:
        from tavq.importers.exporting import formats
        from tavq.importers.importing import sources

        registry: Any = sources if self.name == ("import",) else formats
        return "\n".join(f"{name}: {registry[name].layout}\n" for name in registry)

    @help_epilogue.setter
    def help_epilogue(self, value: str | None) -> None:
        """Ignore the value: the list is the registry's."""


def _listing(name: str) -> App:
    """Add a command without a function to the group."""
    listing = _Listing(name=name)
    app.command(listing)
    return listing


@app.command
def scenes(out: Path, /, *, images: Count = 1000, size: Count = 64, seed: Seed = 0) -> None:
    """Writes the embedded data set: drawn scenes with long true text, boxes, questions and segmentation.

    Example: tavq data scenes scenes --images 64 --size 64 --seed 1

    Args:
        out: The folder to write; the same seed gives the same bytes.
        images: How many images.
        size: Side of an image in pixels.
        seed: Which images; image i depends on the seed and i only.
    """
    from tavq.scenes import write_scenes

    with console.bar("Drawing scenes", images) as bar:
        write_scenes(out, images, size, seed, bar)
    console.say(f"{images:,} scenes are in {out}. Next: tavq text {out}")


@app.command
def check(folder: Path, /, *, json: Path | None = None) -> int:
    """Names every fault of a folder data set; exit code 1 when there are any.

    Example: tavq data check scenes

    Args:
        folder: The folder data set.
        json: Also write the faults to this file.
    """
    from tavq.data.folder import check_dataset

    with console.bar("Checking") as bar:
        faults = check_dataset(folder, bar)
    for fault in faults:
        print(fault)
    console.write_json(json, {"faults": [str(fault) for fault in faults], "count": len(faults)})
    console.say(f"{len(faults):,} faults in {folder}." if faults else f"No fault in {folder}.")
    return 1 if faults else 0


@_listing("import").default
def import_(kind: str, source: Path, out: Path, /, *, limit: Count | None = None, json: Path | None = None) -> None:
    """Turns a data set as it is distributed into a folder data set.

    Example: tavq data import flickr8k downloads/flickr8k flickr8k

    Args:
        kind: Which data set; they are listed below with the files that each one looks for.
        source: The folder with its files (a single shard, a brace list or a name on the hub where the kind reads such).
        out: The folder to write.
        limit: Take only so many images of each split.
        json: Also write the counts to this file.
    """
    from tavq.importers.importing import sources

    with console.bar(f"Importing {kind}") as bar:
        summary = sources[kind]().run(source, out, bar, limit)
    rows = [[f"images in {split}", count] for split, count in summary.images.items()]
    rows += [["captions", summary.captions], *([what, count] for what, count in summary.others.items())]
    rows += [[f"left out: {why}", count] for why, count in summary.left_out.items()]
    console.table(f"{kind} in {out}", ["", "count"], rows)
    console.write_json(json, asdict(summary))
    console.say(f"{sum(summary.images.values()):,} images are in {out}. Next: tavq data check {out}")


@_listing("export").default
def export(folder: Path, out: Path, /, *, to: str, shard_size: Count = 1000, json: Path | None = None) -> None:
    """Writes a folder data set in a form that other projects read.

    Example: tavq data export scenes shards --to webdataset --shard-size 500

    Args:
        folder: The folder data set.
        out: The folder to write; the same data set gives the same bytes.
        to: Which form; they are listed below with the files that each one writes.
        shard_size: How many images a file holds at most.
        json: Also write the counts to this file.
    """
    from tavq.importers.exporting import formats

    with console.bar(f"Exporting to {to}") as bar:
        summary = formats[to]().run(folder, out, shard_size, bar)
    rows = [[f"images in {split}", count] for split, count in summary.images.items()]
    rows += [["files", summary.files], *([f"left out: {why}", count] for why, count in summary.left_out.items())]
    console.table(f"{folder} in {out}", ["", "count"], rows)
    console.write_json(json, asdict(summary))
    console.say(f"{sum(summary.images.values()):,} images are in {out}.")
