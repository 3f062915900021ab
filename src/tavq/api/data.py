"""Make, check, import and export folder data sets."""

from pathlib import Path

from tavq.api.calls import PathLike, Progress, warn_of_unread_shards, without_note
from tavq.core.cores import one_worker_a_core
from tavq.data.folder import check_dataset as find_faults
from tavq.data.records import Fault
from tavq.importers.exporting import ExportSummary, formats
from tavq.importers.importing import ImportSummary, sources
from tavq.scenes import write_scenes

IMAGES, SIZE, SHARD_SIZE = 1000, 64, 1000

MANY = 500
"""Scenes from which on the start of other processes pays."""


def make_scenes(
    out: PathLike,
    *,
    images: int = IMAGES,
    size: int = SIZE,
    seed: int = 0,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write the embedded data set: rendered scenes with long true text, boxes, questions and segmentation.

    Args:
        out: the folder to write; the same seed gives the same bytes.
        images: number of images.
        size: side of an image in pixels.
        seed: image i depends on the seed and i only.
        workers: processes that draw; by default one a core, at most 8, where there are 500 images or more. 0 draws in
            this process.
        progress: called with (images, total, note).

    Returns:
        The folder.

    Raises:
        UsageError: `out` already holds something.
        DataError: a process that draws died.
    """
    if workers is None:
        workers = one_worker_a_core() if images >= MANY else 0
    write_scenes(Path(out), images, size, seed, without_note(progress), workers)
    return Path(out)


def check_dataset(folder: PathLike, *, progress: Progress | None = None) -> list[Fault]:
    """Return every fault of a folder data set; each image is decoded.

    Raises UsageError where there is no folder or no image.
    """
    warn_of_unread_shards(Path(folder))
    return find_faults(Path(folder), without_note(progress))


def import_dataset(
    kind: str, source: PathLike, out: PathLike, *, limit: int | None = None, progress: Progress | None = None
) -> ImportSummary:
    """Convert a published data set to a folder data set.

    Args:
        kind: which data set, such as flickr8k; `list_importers` names them.
        source: the folder with its files, as they are distributed.
        out: the folder to write.
        limit: convert at most this many images per split.
        progress: called with (images, total, note).

    Returns:
        What was written, and what was left out and why.

    Raises:
        UsageError: there is no such kind, or `out` already holds something.
        DataError: `source` does not have the expected files.
    """
    return sources[kind]().run(Path(source), Path(out), without_note(progress), limit)


def export_dataset(
    folder: PathLike, out: PathLike, *, to: str, shard_size: int = SHARD_SIZE, progress: Progress | None = None
) -> ExportSummary:
    """Write a folder data set in a format that other projects read.

    Args:
        folder: the folder data set.
        out: the folder to write; the same data set gives the same bytes.
        to: the format, such as webdataset; `list_exporters` names them.
        shard_size: maximum number of images per file.
        progress: called with (images, total, note).

    Returns:
        What was written, and what was left out and why.

    Raises:
        UsageError: there is no such format or data set, or `out` already holds something.
    """
    return formats[to]().run(Path(folder), Path(out), shard_size, without_note(progress))


def list_importers() -> dict[str, str]:
    """Return the kinds of data sets that `import_dataset` reads, each with the files it expects."""
    return {name: sources[name].layout for name in sources}


def list_exporters() -> dict[str, str]:
    """Return the formats that `export_dataset` writes, each with its files."""
    return {name: formats[name].layout for name in formats}
