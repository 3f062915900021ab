"""WebDataset shards: tar files with pictures, their captions and their other fields side by side."""

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.core.errors import DataError, FileError
from tavq.core.files import parse_json
from tavq.data.folder import Progress
from tavq.data.importing import ImportSummary, Source, sources
from tavq.data.intake import Intake, taking_in
from tavq.data.layouts import caption_lines, expand_braces, is_picture_path, split_named
from tavq.data.records import Record
from tavq.data.shards import JSON, SEGMENTATION, TEXT, Sample, read_samples

SHARDS = (".tar", ".tar.gz", ".tgz")


@sources.register("webdataset")
class WebDataset(Source):
    """Shards in a folder (at any depth), a single one, or a brace list: `shards/train-{000000..000009}.tar`.

    Of each sample the first picture is taken, the fields `captions` (or `caption`, `sentences`, `text`), `long_text`,
    `objects`, `questions`, `split` and `file_name` of its `.json`, the lines of its `.txt` as captions where the json
    has no text, and its `.seg.png` as segmentation. The split is the json's, else the word train, val (valid,
    validation, dev) or test in the name or folder of the shard, else train.

    Differs from the package webdataset: places are files only, never URLs or `pipe:` commands, and nothing is ever
    unpickled. Memory stays bounded by one sample.
    """

    layout = "a folder of .tar files, one of them, or a brace list; in them KEY.jpg with KEY.txt and/or KEY.json"

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the pictures unchanged to their own `file_name`, else to `out`/images/SHARD/KEY.jpg."""
        done = 0
        with taking_in(out, limit) as intake:
            for name, path in _shards(source):
                for sample in read_samples(path):
                    _take(intake, name, sample)
                    done += 1
                    if progress:
                        progress(done, 0)
            return intake.finish()


def _shards(source: Path) -> Iterator[tuple[str, Path]]:
    """Each shard with its name (its path without endings, below what all have in common)."""
    if source.is_dir():
        paths = sorted(path for path in source.rglob("*") if path.name.lower().endswith(SHARDS) and path.is_file())
        if not paths:
            raise DataError(f"There are no shards in {source}: files that end in {', '.join(SHARDS)} were looked for.")
    else:
        paths = [Path(path) for path in expand_braces(str(source))]
        gone = next((path for path in paths if not path.is_file()), None)
        if gone is not None:
            raise DataError(f"There is no shard {gone}; give a folder of .tar files, one of them, or a brace list.")
    above = source if source.is_dir() else Path(os.path.commonpath([path.parent for path in paths]))
    for path in paths:
        name = path.relative_to(above).as_posix()
        yield next(name[: -len(end)] for end in (*SHARDS[::-1], "") if name.lower().endswith(end)), path


def _take(intake: Intake, shard: str, sample: Sample) -> None:
    intake.left_out["members that are too large"] += sample.too_large
    if sample.picture is None:
        intake.left_out["samples without a picture"] += 1
        return
    record = _record(intake, shard, sample)
    if record is None:
        intake.left_out["samples whose key cannot be a file name"] += 1
    elif intake.has_room(record.split):
        segmentation = sample.parts.get(SEGMENTATION)
        intake.add(record, sample.picture, None if segmentation is None else lambda height, width: segmentation)


def _record(intake: Intake, shard: str, sample: Sample) -> Record | None:
    """What the sample's json and text say of its picture, None where it can have no name."""
    fields = _fields(intake, sample)
    name = fields.get("file_name")
    if not (is_picture_path(name) and intake.is_free(str(name))):
        name = f"images/{shard}/{sample.key}{sample.suffix}"
    split = split_named(fields.get("split")) or _split(shard)
    return intake.foreign_record(
        str(name), split, fields, _lines(intake, sample), _place(intake, shard, sample, fields)
    )


def _place(intake: Intake, shard: str, sample: Sample, fields: Mapping[str, Any]) -> str:
    """Where the sample's segmentation goes; "" where it has none."""
    if SEGMENTATION not in sample.parts:
        return ""
    place = fields.get("segmentation")
    own = is_picture_path(place) and PurePosixPath(str(place)).suffix == ".png" and intake.is_free(str(place))
    return str(place) if own else f"segmentation/{shard}/{sample.key}.png"


def _fields(intake: Intake, sample: Sample) -> Mapping[str, Any]:
    if JSON not in sample.parts:
        return {}
    try:
        fields = parse_json(sample.parts[JSON].decode("utf-8"), sample.key)
        json.dumps(fields)  # it may be nested deeper than can be written again
        if isinstance(fields, dict):
            return fields
    except (FileError, UnicodeDecodeError, RecursionError, ValueError):
        pass
    intake.left_out["json files that cannot be read"] += 1
    return {}


def _lines(intake: Intake, sample: Sample) -> list[str]:
    try:
        return list(caption_lines(sample.parts.get(TEXT, b"").decode("utf-8")))
    except UnicodeDecodeError:
        intake.left_out["texts that are not UTF-8"] += 1
        return []


def _split(shard: str) -> str:
    words = re.split(r"[^a-z]+", shard.lower())
    return next((split for word in reversed(words) if (split := split_named(word))), "train")
