"""The only way to write an imported data set: decodes every image, re-reads every line, counts what it leaves out."""

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
from tavq.data.foreign_fields import make_line
from tavq.data.foreign_names import is_image_path
from tavq.data.images import check_image, encode_png, has_exif_turn, load_segmentation
from tavq.data.records import METADATA, SPLITS, NamedBox, Record, clean_text, read_record, to_line
from tavq.importers.importing import ImportSummary
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
    WRONG_SIZE,
)
from tavq.importers.rescaling import Size, clip_box, has_same_aspect_ratio, resize_classes, scale_box


class DatasetWriter:
    """Writes a folder data set one image at a time; memory does not grow with their number.

    Whatever `tavq data check` would report is left out and counted in `left_out`:
    - an image that cannot be decoded, and a field that cannot be used;
    - boxes and segmentations that refer to stored pixels which EXIF rotates, because data sets do not say whether
      they were annotated before or after the rotation;
    - the part of a box beyond the edge of its image, except for what rounding explains (`folder.BOX_TOLERANCE`).

    Boxes and segmentations are rescaled to the size of the image file.
    """

    def __init__(self, folder: Path, lines: BinaryIO, limit: int | None, left_out: Counter[str]) -> None:
        self.folder, self.limit, self.left_out = folder, limit, left_out
        self._lines = lines  # metadata.jsonl of the folder
        self.images: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self.captions = 0

    def has_room(self, split: str) -> bool:
        """Whether the limit allows one more image of the split; counts each image that it does not."""
        if self.limit is None or self.images[split] < self.limit:
            return True
        self.left_out[BEYOND_LIMIT] += 1
        return False

    def is_name_free(self, name: str) -> bool:
        """Whether no file of this name was written before."""
        return not os.path.lexists(self.folder / name)

    def write_segmentation(self, name: str | None, segmentation: bytes) -> bool:
        """Write the segmentation of an image that is added later; return False if the name is taken."""
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
        reason, shape = self._write_image(record.file_name, image)
        if shape is None:
            self.left_out[reason] += 1
            self._remove(record.segmentation)
            return False
        if not upright and has_exif_turn(self.folder / record.file_name):
            record = self._without_annotations(record)
        actual = (shape[1], shape[0])
        size, record = self._check_size(record, size or actual, actual)
        rescaled = (self._fit_box(thing, size, actual) for thing in record.objects)
        objects = tuple(thing for thing in rescaled if thing is not None)
        segmentation = self._fit_segmentation(record.segmentation, size, actual)
        self._write_record(replace(record, objects=objects, segmentation=segmentation))
        return True

    def build_record(
        self, name: str, split: str, fields: Mapping[str, Any], lines: Sequence[str] = (), segmentation: str = ""
    ) -> Record | None:
        """Build a record from another project's fields; counts each field that cannot be used.

        Args:
            name: the path of the image; None is returned if it is not safe to write.
            split: of the image.
            fields: long_text, objects, questions and captions are used.
            lines: the captions if the fields have no text.
            segmentation: its path, or "".
        """
        if not is_image_path(name):
            return None
        line = make_line(name, split, fields, lines, segmentation)
        # a value that JSON cannot express becomes null, which is a fault
        record, faults = read_record(json.dumps(line, default=lambda value: None).encode(), 1, self.folder)
        self.left_out[UNUSABLE_FIELD] += len(faults)
        return record

    def finish(self, classes: Mapping[int, str] | None = None, positions: Sequence[int] | None = None) -> ImportSummary:
        """Complete the data set and return the summary; DataError if it has no image.

        Args:
            classes: the class names of the segmentations.
            positions: of each record in metadata.jsonl, if they were not added in order.
        """
        self._lines.flush()
        if not self.images:
            raise DataError(f"There are no images to import{explain_left_out(self.left_out)}.")
        if positions is not None and list(positions) != sorted(positions):
            lines = read_bytes(self.folder / METADATA).splitlines(keepends=True)
            write_bytes(self.folder / METADATA, b"".join(lines[index] for index in np.argsort(positions)))
        if classes and self.others["segmentations"]:
            write_json(self.folder / SEGMENTATION_CLASSES, classes)
        images = {split: self.images[split] for split in SPLITS if split in self.images}
        # a plus in front of a Counter drops its zeros
        return ImportSummary(images, self.captions, dict(+self.left_out), dict(+self.others))

    def _write_image(self, name: str, data: bytes) -> tuple[str, tuple[int, int] | None]:
        """Write an image; return ("", (height, width)), or the reason why it cannot be used and None."""
        if not self.is_name_free(name):
            return SAME_NAME, None
        path = self._write(name, data)
        try:
            return "", check_image(path)
        except DataError:
            path.unlink()
            return UNREADABLE, None

    def _write_record(self, record: Record) -> None:
        """Write the line of a record without the fields that a reader could not use."""
        captions = tuple(clean_text(caption) or caption for caption in record.captions)
        kept, faults = read_record(to_line(replace(record, captions=captions)), 1, self.folder)
        assert kept is not None, faults  # its file was written and its split is valid
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

    def _check_size(self, record: Record, size: Size, actual: Size) -> tuple[Size, Record]:
        """The size that the boxes refer to; without the boxes if the listed size cannot be that of the image.

        A box that is beyond the listed size and inside the image shows that the boxes refer to the image itself.
        """
        if has_same_aspect_ratio(size, actual):
            return size, record
        boxes = [thing.box for thing in record.objects]
        beyond = any(exceeds_image(box, size[1], size[0]) for box in boxes)
        if beyond and not any(exceeds_image(box, actual[1], actual[0]) for box in boxes):
            return actual, record
        self.left_out[WRONG_SIZE] += len(boxes)
        return actual, replace(record, objects=())

    def _fit_box(self, thing: NamedBox, size: Size, actual: Size) -> NamedBox | None:
        box = scale_box(thing.box, size, actual)
        if not exceeds_image(box, actual[1], actual[0]):
            return replace(thing, box=box)
        clipped = clip_box(box, actual)
        self.left_out[BOX_OUTSIDE if clipped is None else BOX_CUT] += 1
        return None if clipped is None else replace(thing, box=clipped)

    def _fit_segmentation(self, name: str | None, size: Size, actual: Size) -> str | None:
        if name is None:
            return None
        path = self.folder / name
        with contextlib.suppress(DataError):
            classes = load_segmentation(path)
            if classes.shape == actual[::-1]:
                return name
            if has_same_aspect_ratio(classes.shape[::-1], size):
                resized = resize_classes(classes, actual)
                path.write_bytes(encode_png(resized.astype(np.uint8 if resized.max() < 256 else np.uint16)))
                return name
        self._remove(name)
        self.left_out[UNUSABLE_SEGMENTATION] += 1
        return None


@contextlib.contextmanager
def create_dataset(
    out: Path, limit: int | None = None, left_out: Counter[str] | None = None
) -> Iterator[DatasetWriter]:
    """Create the folder data set `out`, which appears when the block ends without an error.

    Args:
        out: the folder; UsageError if it exists and is not empty.
        limit: the maximum number of images of each split.
        left_out: a counter to continue.
    """
    with create_folder(out) as folder, open(folder / METADATA, "wb") as lines:
        yield DatasetWriter(folder, lines, limit, Counter() if left_out is None else left_out)


def explain_left_out(left_out: Mapping[str, int]) -> str:
    """The end of a sentence that says what was left out, for errors about an empty data set."""
    counts = ", ".join(f"{count:,} {reason}" for reason, count in left_out.items() if count)
    return f": {counts}" if counts else ""
