"""The one way into a new folder data set: every image decoded, every line read again, what cannot stand counted."""

import contextlib
import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from tavq.core.errors import DataError
from tavq.core.files import create_folder, read_bytes, write_bytes, write_json
from tavq.data.folder import SEGMENTATION_CLASSES, exceeds_image
from tavq.data.images import check_image, encode_png, has_exif_turn, load_segmentation
from tavq.data.records import METADATA, SPLITS, NamedBox, Record, read_record, to_line
from tavq.importers.annotations import find_captions
from tavq.importers.importing import ImportSummary
from tavq.importers.layouts import is_image_path
from tavq.importers.reasons import (
    BEYOND_LIMIT,
    BOX_CUT,
    BOX_OUTSIDE,
    SAME_NAME,
    TURNED_BOX,
    TURNED_SEGMENTATION,
    UNREADABLE,
    UNUSABLE_FIELD,
    UNUSABLE_SEGMENTATION,
)
from tavq.importers.rescaling import Size, cut_box, in_proportion, scale_box, scale_classes


class DatasetWriter:
    """Fills a folder one image at a time, in memory that does not grow with their number.

    What `tavq data check` would find fault with does not get in, and `left_out` counts it:
    - an image that cannot be decoded is left out, a field that cannot be used is left out of its record;
    - boxes and segmentations come to the size of the image; those that refer to stored pixels which EXIF turns are
      left out, since nobody says which way they were drawn;
    - a box that stands out is cut at the edge, and left out where nothing of it is inside. One that stands out by less
      than rounding explains (`folder.SLACK`) stays as it is.
    """

    def __init__(self, folder: Path, lines: BinaryIO, limit: int | None, left_out: Counter[str]) -> None:
        self.folder, self.limit, self.left_out = folder, limit, left_out
        self._lines = lines  # metadata.jsonl of the folder
        self.images: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.captions = 0

    def has_room(self, split: str) -> bool:
        """Whether the limit on images allows one more of the split; each that it does not is counted."""
        if self.limit is None or self.images[split] < self.limit:
            return True
        self.left_out[BEYOND_LIMIT] += 1
        return False

    def is_name_free(self, name: str) -> bool:
        """Whether no file of this name was taken before."""
        return not os.path.lexists(self.folder / name)

    def write_segmentation(self, name: str | None, segmentation: bytes) -> bool:
        """Puts a segmentation where the record of an image that is yet to come says, if that place is free."""
        if name is None or not self.is_name_free(name):
            return False
        self._write(name, segmentation)
        return True

    def add(self, record: Record, image: bytes, size: Size | None = None, upright: bool = True) -> bool:
        """Write an image and the usable fields of its record; return whether the image could be used.

        Args:
            record: its names must be safe to write (`layouts.is_image_path`), and its segmentation must have been
                written already (`write_segmentation`).
            image: the bytes of the image file.
            size: the image size that boxes and segmentation refer to; None for the image's own.
            upright: whether they refer to the upright image, as in every folder data set, or to its stored pixels.
        """
        reason, shape = self._take(record.file_name, image)
        if shape is None:
            self.left_out[reason] += 1
            self._remove(record.segmentation)
            return False
        if not upright and has_exif_turn(self.folder / record.file_name):
            record = self._without_annotations(record)
        height, width = shape
        size = size or (width, height)
        objects = tuple(box for thing in record.objects if (box := self._fit(thing, size, (width, height))))
        segmentation = self._fit_segmentation(record.segmentation, size, (width, height))
        self._note(replace(record, objects=objects, segmentation=segmentation))
        return True

    def build_record(
        self, name: str, split: str, fields: Mapping[str, Any], lines: Sequence[str] = (), segmentation: str = ""
    ) -> Record | None:
        """The record of the image `name` from another project's fields, of which each that cannot be used is counted.

        Captions are `lines` where the fields have no text. None when the name cannot be one.
        """
        if not is_image_path(name):
            return None
        line: dict[str, Any] = {"file_name": name, "split": split}
        line |= {field: fields[field] for field in ("long_text", "objects", "questions") if fields.get(field)}
        captions = find_captions(fields) or ([] if "long_text" in line else list(lines))
        line |= {"captions": captions} if captions else {}
        line |= {"segmentation": segmentation} if segmentation else {}
        # what JSON has no word for becomes null, which is a fault
        record, faults = read_record(json.dumps(line, default=lambda value: None).encode(), 1, self.folder)
        self.left_out[UNUSABLE_FIELD] += len(faults)
        return record

    def finish(self, classes: Mapping[int, str] | None = None, order: Sequence[int] | None = None) -> ImportSummary:
        """Ends metadata.jsonl, its lines by the numbers in `order` where it is given; the summary.

        `classes` are the names of the numbers in segmentations. DataError when no image was taken.
        """
        self._lines.flush()
        if not self.images:
            raise DataError(f"There is no image to import{explain_left_out(self.left_out)}.")
        if order is not None and list(order) != sorted(order):
            lines = read_bytes(self.folder / METADATA).splitlines(keepends=True)
            write_bytes(self.folder / METADATA, b"".join(lines[place] for place in np.argsort(order)))
        if classes and self.others["segmentations"]:
            write_json(self.folder / SEGMENTATION_CLASSES, classes)
        images = {split: self.images[split] for split in SPLITS if split in self.images}
        # a plus in front of a counter leaves out what there is none of
        return ImportSummary(images, self.captions, dict(+self.left_out), dict(+self.others))

    def _take(self, name: str, data: bytes) -> tuple[str, tuple[int, int] | None]:
        """(height, width) of the image after writing it; else why it cannot be taken."""
        if not self.is_name_free(name):
            return SAME_NAME, None
        path = self._write(name, data)
        try:
            return "", check_image(path)
        except DataError:
            path.unlink()
            return UNREADABLE, None

    def _note(self, record: Record) -> None:
        """Writes the line of a record, without what a reader would find fault with."""
        kept, faults = read_record(to_line(record), 1, self.folder)
        assert kept is not None, faults  # its name was written and its split is one of ours
        self.left_out[UNUSABLE_FIELD] += len(faults)
        self._lines.write(to_line(kept))
        self.images[kept.split] += 1
        self.captions += len(kept.captions)
        self.others["objects"] += len(kept.objects)
        self.others["phrases of objects"] += sum(len(thing.phrases) for thing in kept.objects)
        self.others["questions"] += len(kept.questions)
        self.others["segmentations"] += kept.segmentation is not None

    def _write(self, name: str, data: bytes) -> Path:
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        return path

    def _remove(self, name: str | None) -> None:
        if name is not None:
            (self.folder / name).unlink(missing_ok=True)

    def _without_annotations(self, record: Record) -> Record:
        self.left_out[TURNED_BOX] += len(record.objects)
        self.left_out[TURNED_SEGMENTATION] += record.segmentation is not None
        self._remove(record.segmentation)
        return replace(record, objects=(), segmentation=None)

    def _fit(self, thing: NamedBox, size: Size, into: Size) -> NamedBox | None:
        box = scale_box(thing.box, size, into)
        if not exceeds_image(box, into[1], into[0]):
            return replace(thing, box=box)
        cut = cut_box(box, into)
        self.left_out[BOX_OUTSIDE if cut is None else BOX_CUT] += 1
        return None if cut is None else replace(thing, box=cut)

    def _fit_segmentation(self, name: str | None, size: Size, into: Size) -> str | None:
        if name is None:
            return None
        path = self.folder / name
        with contextlib.suppress(DataError):
            classes = load_segmentation(path)
            if classes.shape == into[::-1]:
                return name
            if in_proportion(classes.shape[::-1], size):
                fitted = scale_classes(classes, into)
                path.write_bytes(encode_png(fitted.astype(np.uint8 if fitted.max() < 256 else np.uint16)))
                return name
        self._remove(name)
        self.left_out[UNUSABLE_SEGMENTATION] += 1
        return None


@contextlib.contextmanager
def create_dataset(
    out: Path, limit: int | None = None, left_out: Counter[str] | None = None
) -> Iterator[DatasetWriter]:
    """An intake whose folder becomes `out` when the block ends without an error; `left_out` is counted on."""
    with create_folder(out) as folder, open(folder / METADATA, "wb") as lines:
        yield DatasetWriter(folder, lines, limit, Counter() if left_out is None else left_out)


def explain_left_out(left_out: Mapping[str, int]) -> str:
    """The end of a sentence that says why nothing is left."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
    return f": {counts}" if counts else ""
