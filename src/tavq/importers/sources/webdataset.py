"""WebDataset shards: tar files with images, their captions and their other fields side by side."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.core.errors import DataError, FileError
from tavq.core.files import parse_json, read_json
from tavq.data.folder import SEGMENTATION_CLASSES, Progress
from tavq.data.records import Record, clean_text
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.layouts import caption_lines, expand_braces, is_image_path, split_named
from tavq.importers.samples import JSON, SEGMENTATION, TEXT, Sample, read_samples
from tavq.importers.tars import SUFFIXES
from tavq.importers.writer import DatasetWriter, create_dataset


@sources.register("webdataset")
class WebDataset(Source):
    """Shards in a folder (at any depth), a single one, or a brace list: `shards/train-{000000..000009}.tar`.

    Of each sample the first image is taken, the fields `captions` (or `caption`, `sentences`, `text`), `long_text`,
    `objects`, `questions`, `split` and `file_name` of its `.json`, the lines of its `.txt` as captions where the json
    has no text, and its `.seg.png` as segmentation, whose classes are named in segmentation_classes.json beside the
    shards. The split is the json's, else the word train, val (valid,
    validation, dev) or test in the name or folder of the shard, else train.

    Differs from the package webdataset: places are files only, never URLs or `pipe:` commands, and nothing is ever
    unpickled. Memory stays bounded by one sample.
    """

    layout = "a folder of .tar files, one of them, or a brace list; in them KEY.jpg with KEY.txt and/or KEY.json"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the images unchanged to their own `file_name`, else to `out`/images/SHARD/KEY.jpg."""
        done = 0
        paths = _paths(source)
        above = source if source.is_dir() else Path(os.path.commonpath([path.parent for path in paths]))
        with create_dataset(out, limit) as writer:
            for path in paths:
                for sample in read_samples(path):
                    _take(writer, _name(path.relative_to(above)), sample)
                    done += 1
                    if progress:
                        progress(done, 0)
            return writer.finish(_classes(above / SEGMENTATION_CLASSES, writer.left_out))


def _paths(source: Path) -> list[Path]:
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.name.lower().endswith(SUFFIXES) and path.is_file())
        if not paths:
            raise DataError(
                f"There are no shards in {source}: files that end in {', '.join(SUFFIXES)} were looked for."
            )
        return paths
    paths = [Path(path) for path in expand_braces(str(source))]
    gone = next((path for path in paths if not path.is_file()), None)
    if gone is not None:
        raise DataError(f"There is no shard {gone}; give a folder of .tar files, one of them, or a brace list.")
    return paths


def _name(path: Path) -> str:
    """The name of a shard: its path without endings, below what all of them have in common."""
    name = path.as_posix()
    return next(name[: -len(end)] for end in (*SUFFIXES[::-1], "") if name.lower().endswith(end))


def _classes(path: Path, left_out: Counter[str]) -> dict[int, str]:
    """The names of the classes from the file that `tavq data export` leaves beside its shards."""
    if not path.is_file():
        return {}
    try:
        given = read_json(path)
    except FileError:
        given = None
    given = given if isinstance(given, dict) else {"": None}
    names = {int(number): clean_text(name) for number, name in given.items() if re.fullmatch("[0-9]{1,5}", number)}
    usable = {number: name for number, name in names.items() if name is not None}
    left_out["names of classes that cannot be used"] += len(given) - len(usable)
    return usable


def _take(writer: DatasetWriter, shard: str, sample: Sample) -> None:
    writer.left_out["members that are too large"] += sample.too_large
    if sample.image is None:
        writer.left_out["samples without an image"] += 1
        return
    record = _record(writer, shard, sample)
    if record is None:
        writer.left_out["samples whose key cannot be a file name"] += 1
    elif writer.has_room(record.split):
        place = record.segmentation if record.segmentation != record.file_name else None
        if SEGMENTATION not in sample.parts or not writer.write_segmentation(place, sample.parts[SEGMENTATION]):
            record = replace(record, segmentation=None)
        writer.add(record, sample.image)


def _record(writer: DatasetWriter, shard: str, sample: Sample) -> Record | None:
    """What the sample's json and text say of its image, None where it can have no name."""
    fields = _fields(writer, sample)
    name = fields.get("file_name")
    if not (is_image_path(name) and writer.is_name_free(str(name))):
        name = f"images/{shard}/{sample.key}{sample.suffix}"
    split = split_named(fields.get("split")) or _split(shard)
    return writer.build_record(str(name), split, fields, _lines(writer, sample), _place(writer, shard, sample, fields))


def _place(writer: DatasetWriter, shard: str, sample: Sample, fields: Mapping[str, Any]) -> str:
    """Where the sample's segmentation goes; "" where it has none."""
    if SEGMENTATION not in sample.parts:
        return ""
    place = fields.get("segmentation")
    own = is_image_path(place) and PurePosixPath(str(place)).suffix == ".png" and writer.is_name_free(str(place))
    return str(place) if own else f"segmentation/{shard}/{sample.key}.png"


def _fields(writer: DatasetWriter, sample: Sample) -> Mapping[str, Any]:
    if JSON not in sample.parts:
        return {}
    try:
        fields = parse_json(sample.parts[JSON].decode("utf-8"), sample.key)
        json.dumps(fields)  # it may be nested deeper than can be written again
        if isinstance(fields, dict):
            return fields
    except (FileError, UnicodeDecodeError, RecursionError, ValueError):
        pass
    writer.left_out["json files that cannot be read"] += 1
    return {}


def _lines(writer: DatasetWriter, sample: Sample) -> list[str]:
    try:
        return list(caption_lines(sample.parts.get(TEXT, b"").decode("utf-8")))
    except UnicodeDecodeError:
        writer.left_out["texts that are not UTF-8"] += 1
        return []


def _split(shard: str) -> str:
    words = re.split(r"[^a-z]+", shard.lower())
    return next((split for word in reversed(words) if (split := split_named(word))), "train")
