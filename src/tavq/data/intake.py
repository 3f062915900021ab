"""The way into a new folder data set: every picture decoded, every line read again, what cannot stand counted."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from tavq.core.errors import DataError
from tavq.core.files import read_bytes, write_json
from tavq.data.folder import SLACK, Progress
from tavq.data.importing import ImportSummary, new_folder
from tavq.data.layouts import foreign_captions, is_picture_path
from tavq.data.pictures import check_picture, load_segmentation
from tavq.data.records import METADATA, NamedBox, Record, read_record, to_line

CLASSES = "segmentation_classes.json"

Segmentation = Callable[[int, int], bytes]
"""Gives the PNG of a picture's classes from its height and width; DataError where there is none that can be read."""


class Intake:
    """Fills a folder one picture at a time, in memory that does not grow with their number.

    What `tavq data check` would find fault with does not get in: a picture that cannot be decoded is left out, a field
    that cannot be used is left out of its record, a box is cut at the edge of its picture. `left_out` counts each.
    """

    def __init__(self, folder: Path, lines: BinaryIO, limit: int | None = None) -> None:
        self.folder, self.limit = folder, limit
        self._lines = lines  # metadata.jsonl of the folder
        self.pictures: Counter[str] = Counter()
        self.left_out: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.captions = 0

    def has_room(self, split: str) -> bool:
        """Whether the limit on pictures allows one more of the split; each that it does not is counted."""
        if self.limit is None or self.pictures[split] < self.limit:
            return True
        self.left_out["pictures beyond the limit"] += 1
        return False

    def is_free(self, name: str) -> bool:
        """Whether no file of this name was taken before."""
        return not os.path.lexists(self.folder / name)

    def add(self, record: Record, picture: bytes, segmentation: Segmentation | None = None) -> None:
        """Takes the picture and what of its record can be used.

        The record's names must be safe to write (`layouts.is_picture_path`).
        """
        if not self.is_free(record.file_name):
            self.left_out["pictures of a name that came before"] += 1
            return
        path = self._write(record.file_name, picture)
        try:
            height, width = check_picture(path)
        except DataError:
            path.unlink()
            self.left_out["pictures that cannot be read"] += 1
            return
        record = self._with_segmentation(record, segmentation, height, width)
        objects = tuple(box for thing in record.objects if (box := self._cut(thing, height, width)))
        kept, faults = read_record(to_line(replace(record, objects=objects)), 1, self.folder)
        assert kept is not None, faults  # its name was written and its split is one of ours
        self.left_out["fields that cannot be used"] += len(faults)
        self._lines.write(to_line(kept))
        self.pictures[kept.split] += 1
        self.captions += len(kept.captions)
        self.others["objects"] += len(kept.objects)
        self.others["phrases of objects"] += sum(len(thing.phrases) for thing in kept.objects)
        self.others["questions"] += len(kept.questions)
        self.others["segmentations"] += kept.segmentation is not None

    def foreign_record(
        self, name: str, split: str, fields: Mapping[str, Any], lines: Sequence[str] = (), segmentation: str = ""
    ) -> Record | None:
        """The record of the picture `name` from another project's fields, of which each that cannot be used is counted.

        Captions are `lines` where the fields have no text. None when the name cannot be one.
        """
        if not is_picture_path(name):
            return None
        line: dict[str, Any] = {"file_name": name, "split": split}
        line |= {field: fields[field] for field in ("long_text", "objects", "questions") if fields.get(field)}
        captions = foreign_captions(fields) or ([] if "long_text" in line else list(lines))
        line |= {"captions": captions} if captions else {}
        line |= {"segmentation": segmentation} if segmentation else {}
        # what JSON has no word for becomes null, which is a fault
        record, faults = read_record(json.dumps(line, default=lambda value: None).encode(), 1, self.folder)
        self.left_out["fields that cannot be used"] += len(faults)
        return record

    def finish(self, classes: Sequence[str] = ()) -> ImportSummary:
        """Flushes all to the disk (together, four times as fast as one by one); DataError when nothing was taken."""
        self._lines.flush()
        if not self.pictures:
            reasons = ", ".join(f"{count:,} {reason}" for reason, count in self.left_out.items() if count)
            raise DataError(f"There is no picture to import{f': {reasons}' if reasons else ''}.")
        if classes:
            write_json(self.folder / CLASSES, dict(enumerate(classes)))
        for place, _, names in os.walk(self.folder):
            for name in names:
                with open(os.path.join(place, name), "rb") as file:
                    os.fsync(file.fileno())
        # a plus in front of a counter leaves out what there is none of
        return ImportSummary(dict(self.pictures), self.captions, dict(+self.left_out), dict(+self.others))

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def _with_segmentation(self, record: Record, make: Segmentation | None, height: int, width: int) -> Record:
        name = record.segmentation
        if make is None or name is None or not self.is_free(name):
            return replace(record, segmentation=None)
        try:
            if load_segmentation(self._write(name, make(height, width))).shape == (height, width):
                return record
        except DataError:
            pass
        (self.folder / name).unlink(missing_ok=True)
        self.left_out["segmentations that cannot be used"] += 1
        return replace(record, segmentation=None)

    def _cut(self, thing: NamedBox, height: int, width: int) -> NamedBox | None:
        x, y, w, h = thing.box
        if min(x, y) >= -SLACK and x + w <= width + SLACK and y + h <= height + SLACK:
            return thing
        left, top, right, bottom = max(x, 0.0), max(y, 0.0), min(x + w, float(width)), min(y + h, float(height))
        if left >= right or top >= bottom:
            self.left_out["boxes outside of their picture"] += 1
            return None
        self.left_out["parts of boxes beyond the edge of their picture"] += 1
        return replace(thing, box=(left, top, right - left, bottom - top))


@contextlib.contextmanager
def taking_in(out: Path, limit: int | None = None) -> Iterator[Intake]:
    """An intake whose folder becomes `out` when the block ends without an error."""
    with new_folder(out) as folder, open(folder / METADATA, "wb") as lines:
        yield Intake(folder, lines, limit)


@dataclass(frozen=True)
class Found:
    """A picture of a published data set that is there to be read."""

    record: Record
    read: Callable[[], bytes]
    segmentation: Segmentation | None = None

    @classmethod
    def file(cls, record: Record, path: Path, segmentation: Segmentation | None = None) -> "Found":
        """A picture in a file."""
        return cls(record, partial(read_bytes, path), segmentation)


def stored(read: Callable[[], bytes]) -> Segmentation:
    """A segmentation that is published as a file of its own."""
    return lambda height, width: read()


def take_all(
    out: Path,
    found: Sequence[Found],
    left_out: Mapping[str, int],
    progress: Progress | None = None,
    limit: int | None = None,
    classes: Sequence[str] = (),
) -> ImportSummary:
    """Writes the folder data set `out` of the pictures found; `left_out` is what was counted before."""
    with taking_in(out, limit) as intake:
        intake.left_out.update(left_out)
        for done, picture in enumerate(found, 1):
            if intake.has_room(picture.record.split):
                intake.add(picture.record, picture.read(), picture.segmentation)
            if progress:
                progress(done, len(found))
        return intake.finish(classes)
