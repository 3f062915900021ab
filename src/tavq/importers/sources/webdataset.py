"""WebDataset shards: tar files in which images, captions and other fields are neighbouring members."""

import json
import os
import re
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.core.errors import DataError, FileError
from tavq.core.files import MAX_JSON, parse_json, read_json
from tavq.data.folder import SEGMENTATION_CLASSES, Progress
from tavq.data.foreign_files import SHARDS
from tavq.data.foreign_names import expand_braces, is_image_path, parse_split, split_captions
from tavq.data.foreign_text import decode_foreign
from tavq.data.records import Record, clean_text
from tavq.data.samples import JSON, SEGMENTATION, TEXT, Sample, read_samples
from tavq.data.shards import find_split, strip_suffix
from tavq.importers.importing import ImportSummary, Source, sources
from tavq.importers.writer import DatasetWriter, create_dataset

UNUSABLE_NAMES = "class names that cannot be used"


@sources.register("webdataset")
class WebDataset(Source):
    """Shards in a folder (at any depth), a single shard, or a brace list: `shards/train-{000000..000009}.tar`.

    Uses the first image of each sample (`KEY.jpg` before `KEY.rgb.jpg`); the fields `captions` (or `caption`,
    `sentences`, `text`), `long_text`, `objects`, `questions`, `split` and `file_name` of its `.json`; the lines of its
    `.txt` as captions if the json has no text; and its `.seg.png` as segmentation, whose classes are named in
    segmentation_classes.json next to the shards. The split is the json's, else the word train, val (valid, validation,
    dev) or test in the name or folder of the shard, else train.

    Differs from the package webdataset: reads files only, never URLs or `pipe:` commands, and never unpickles;
    members of a sample need not be neighbours. Memory is bounded by one sample where they are, else by the texts.
    """

    layout = "a folder of .tar files, one of them, or a brace list; they contain KEY.jpg with KEY.txt and/or KEY.json"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the images unchanged to their own `file_name`, else to `out`/images/SHARD/KEY.jpg."""
        done = 0
        paths = _find_shards(source)
        root = source if source.is_dir() else Path(os.path.commonpath([path.parent for path in paths]))
        with create_dataset(out, limit) as writer:
            for path in paths:
                for sample in read_samples(path):
                    _add_sample(writer, strip_suffix(path.relative_to(root).as_posix()), sample)
                    done += 1
                    if progress:
                        progress(done, 0)
            return writer.finish(_read_classes(root / SEGMENTATION_CLASSES, writer.left_out))


def _find_shards(source: Path) -> list[Path]:
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.name.lower().endswith(SHARDS) and path.is_file())
        if not paths:
            raise DataError(f"There are no shards in {source}; expected files that end in {', '.join(SHARDS)}.")
        return paths
    paths = [Path(path) for path in expand_braces(str(source))]
    missing = next((path for path in paths if not path.is_file()), None)
    if missing is not None:
        raise DataError(f"There is no shard {missing}; give a folder of .tar files, one of them, or a brace list.")
    return paths


def _read_classes(path: Path, left_out: Counter[str]) -> dict[int, str]:
    """Read the class names that `tavq data export` writes next to its shards."""
    if not path.is_file():
        return {}
    try:
        content = read_json(path, MAX_JSON)
    except FileError:
        content = None
    if not isinstance(content, dict):
        left_out[UNUSABLE_NAMES] += 1
        return {}
    names = {int(key): clean_text(name) for key, name in content.items() if re.fullmatch("[0-9]{1,5}", key)}
    usable = {index: name for index, name in names.items() if name is not None}
    left_out[UNUSABLE_NAMES] += len(content) - len(usable)
    return usable


def _add_sample(writer: DatasetWriter, shard: str, sample: Sample) -> None:
    writer.left_out["members that are too large"] += sample.too_large
    writer.left_out["images beyond the first of their sample"] += sample.more_images
    if sample.image is None:
        writer.left_out["samples without an image"] += 1
        return
    record = _build_record(writer, shard, sample)
    if record is None:
        writer.left_out["samples whose key cannot be a file name"] += 1
    elif writer.has_room(record.split):
        path = record.segmentation if record.segmentation != record.file_name else None
        if SEGMENTATION not in sample.parts or not writer.write_segmentation(path, sample.parts[SEGMENTATION]):
            record = replace(record, segmentation=None)
        writer.add(record, sample.image)


def _build_record(writer: DatasetWriter, shard: str, sample: Sample) -> Record | None:
    """The record of a sample; None if its name is not safe to write."""
    fields = _read_fields(writer, sample)
    name = fields.get("file_name")
    if not (is_image_path(name) and writer.is_name_free(str(name))):
        name = f"images/{shard}/{sample.key}{sample.suffix}"
    split = parse_split(fields.get("split")) or find_split(shard)
    captions = _read_captions(writer, sample)
    segmentation = _choose_segmentation_path(writer, shard, sample, fields)
    return writer.build_record(str(name), split, fields, captions, segmentation)


def _choose_segmentation_path(writer: DatasetWriter, shard: str, sample: Sample, fields: Mapping[str, Any]) -> str:
    """The path to write the sample's segmentation to; "" if it has none."""
    if SEGMENTATION not in sample.parts:
        return ""
    path = fields.get("segmentation")
    usable = is_image_path(path) and PurePosixPath(str(path)).suffix == ".png" and writer.is_name_free(str(path))
    return str(path) if usable else f"segmentation/{shard}/{sample.key}.png"


def _read_fields(writer: DatasetWriter, sample: Sample) -> Mapping[str, Any]:
    if JSON not in sample.parts:
        return {}
    try:
        fields = parse_json(decode_foreign(sample.parts[JSON], writer.others), sample.key)
        json.dumps(fields)  # it may be nested too deeply to be written again
        if isinstance(fields, dict):
            return fields
    except (FileError, RecursionError, ValueError):
        pass
    writer.left_out["json files that cannot be read"] += 1
    return {}


def _read_captions(writer: DatasetWriter, sample: Sample) -> list[str]:
    return list(split_captions(decode_foreign(sample.parts.get(TEXT, b""), writer.others)))
