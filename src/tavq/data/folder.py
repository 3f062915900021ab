"""The folder data set: images anywhere under a folder and one line of metadata.jsonl for each."""

import hashlib
import math
import os
import posixpath
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import TypeVar

import numpy as np

from tavq.core.errors import DataError, FileError, TavqError, UsageError
from tavq.core.files import MAX_JSON, read_bytes, resolve_inside
from tavq.core.jsonl import iter_raw_lines
from tavq.data.descriptions import Descriptions
from tavq.data.images import SUFFIXES, check_image, load_segmentation
from tavq.data.records import (
    MAX_LINE,
    METADATA,
    SPLITS,
    UNPRINTABLE,
    Box,
    Fault,
    Faults,
    Record,
    hash_name,
    read_record,
)

SEGMENTATION_CLASSES = "segmentation_classes.json"
"""The file with the names of the classes by their numbers, where there are segmentations."""

SLACK = 0.5  # pixels that a box may stand out, for boxes that were rounded

BATCH = 4096  # lines whose names are compared together with all before them

T = TypeVar("T")

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class FolderDataset:
    """The records of a folder data set, in the order of metadata.jsonl, and the faults that reading it found.

    A line that cannot be read, or whose `file_name` or `split` cannot be used, is left out; any other field that
    cannot be used is left out of its record. Each becomes a fault. Unknown fields are ignored, since other readers
    of this layout use them. Without metadata.jsonl every image file is a training record without text.

    A record without a `long_text` of its own takes the one that a model described it with (`long_text*.jsonl`).

    Raises UsageError when there is no folder, no image, or none in `split`.
    """

    def __init__(self, folder: Path, split: str | None = None) -> None:
        self.folder = folder
        self.split = split
        everything, self.faults, data = _read(folder)
        self.fingerprint = hashlib.sha256(data).hexdigest()
        """The SHA-256 of metadata.jsonl (of the list of names where there is none): which images a run has seen.

        Descriptions are not in it: they come while a data set is used, and which text a run has seen is told by the
        hash of its text store.
        """
        self.records = [record for record in everything if split is None or record.split == split]
        if not self.records:
            raise _nothing(self, everything)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def subset(self, records: Iterable[Record]) -> "FolderDataset":
        """The same data set with some of its records, in the order given; faults and fingerprint stay."""
        chosen = copy(self)
        chosen.records = list(records)
        return chosen

    def path(self, file_name: str) -> Path:
        """Where an image or segmentation of this data set lies; FileError when that is outside the folder."""
        return resolve_inside(self.folder, file_name)


def load_training_split(dataset: FolderDataset, limit: int | None = None) -> FolderDataset | None:
    """The training images of the same data set, at most `limit`; None where it has none."""
    everything = FolderDataset(dataset.folder)
    chosen = [record for record in everything if record.split == "train"][:limit]
    return everything.subset(chosen) if chosen else None


def held_out_split(folder: Path) -> FolderDataset | None:
    """Return the val split of a data set, or else its test split; None where it has neither."""
    for split in ("val", "test"):
        try:
            return FolderDataset(folder, split)
        except TavqError:
            continue
    return None


def _read(folder: Path) -> tuple[list[Record], list[Fault], bytes]:
    """The records, the faults, and the bytes whose hash stands for the data."""
    metadata = _metadata(folder)
    records, faults, data = _read_metadata(folder, metadata) if metadata.exists() else _list_images(folder)
    with Descriptions(folder) as descriptions:
        if descriptions:
            records = [_described(record, descriptions) for record in records]
        return records, faults + descriptions.faults.first, data


def _metadata(folder: Path) -> Path:
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; give the folder of a data set.")
    return folder / METADATA


def _described(record: Record, descriptions: Descriptions) -> Record:
    """The record with the text that a model wrote, unless it has a long text of its own."""
    text = descriptions.text(record.file_name) if record.long_text is None else None
    return record if text is None else replace(record, long_text=text)


def _nothing(dataset: FolderDataset, everything: list[Record]) -> TavqError:
    splits = Counter(record.split for record in everything)
    if splits:
        known = ", ".join(f"{name} ({splits[name]})" for name in SPLITS if name in splits)
        return UsageError(f"{dataset.folder} has no images in the split {dataset.split!r}; it has: {known}.")
    if dataset.faults:
        return _unusable(dataset.folder, dataset.faults, len(dataset.faults))
    return _empty(dataset.folder)


def _unusable(folder: Path, faults: Sequence[Fault], count: int) -> DataError:
    metadata = folder / METADATA
    what = f"{metadata} has no usable line" if metadata.exists() else f"{folder} has no usable image"
    return DataError(f"{what}; {count} faults, first: {faults[0]}.")


def _empty(folder: Path) -> UsageError:
    return UsageError(f"{folder} holds no images; put {', '.join(sorted(SUFFIXES))} files into it.")


def _list_images(folder: Path) -> tuple[list[Record], list[Fault], bytes]:
    faults = Faults(keep=math.inf)
    records = list(_listed(folder, faults))
    return records, faults.first, "\n".join(record.file_name for record in records).encode()


def _listed(folder: Path, faults: Faults) -> Iterator[Record]:
    """A record of every image file, in the order of their names."""
    for name in _names(folder, ""):
        if UNPRINTABLE.search(name):  # a line about it could not be read back; half a surrogate is a name in no UTF-8
            faults.add([Fault(ascii(name), "the name holds control characters or broken Unicode; rename the file")])
            continue
        try:
            if resolve_inside(folder, name).is_file():
                yield Record(name)
        except FileError:
            faults.add([Fault(ascii(name), "the path leads outside the data set")])


def _names(folder: Path, above: str) -> Iterator[str]:
    """The image names under a folder, sorted; only one folder's names at a time are held."""
    with os.scandir(folder / above) as entries:
        found = sorted(
            f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name
            for entry in entries
            if not entry.name.startswith(".")
        )
    for name in found:
        if name.endswith("/"):
            yield from _names(folder, above + name)
        if Path(name).suffix.lower() in SUFFIXES:
            yield above + name.removesuffix("/")


def _read_metadata(folder: Path, path: Path) -> tuple[list[Record], list[Fault], bytes]:
    if path.stat().st_size > MAX_JSON:
        raise DataError(f"{path} holds {path.stat().st_size} bytes; at most {MAX_JSON} are read.")
    data = read_bytes(path)
    records: list[Record] = []
    faults: list[Fault] = []
    lines: dict[str, int] = {}
    for number, line in enumerate(data.removeprefix(b"\xef\xbb\xbf").split(b"\n"), 1):
        if not line.strip():
            continue
        record, found = read_record(line, number, folder)
        faults += found
        if record is None:
            continue
        first = lines.setdefault(posixpath.normpath(record.file_name), number)
        if first == number:
            records.append(record)
        else:
            faults.append(Fault(record.file_name, f"line {number} repeats the file_name of line {first}"))
    return records, faults, data


def iter_records(folder: Path, faults: Faults | None = None) -> Iterator[Record]:
    """The records that FolderDataset holds, one at a time: of a data set of any size with 8 bytes an image.

    Descriptions, where there are any, take 16 bytes more. `faults` counts what FolderDataset lists. A name whose
    64-bit hash another name has is taken for its repetition; see `hash_name`.
    """
    faults = Faults() if faults is None else faults
    records = iter_undescribed(folder, faults)
    with Descriptions(folder) as descriptions:
        for record in records:
            yield _described(record, descriptions) if descriptions else record
        faults.join(descriptions.faults)


def iter_undescribed(folder: Path, faults: Faults) -> Iterator[Record]:
    """As `iter_records`, with the texts of metadata.jsonl alone."""
    metadata = _metadata(folder)
    records = _streamed(folder, metadata, faults) if metadata.exists() else _listed(folder, faults)
    return _some(records, folder, faults)


def _some(records: Iterator[Record], folder: Path, faults: Faults) -> Iterator[Record]:
    """The records; UsageError or DataError, as FolderDataset's, where there are none."""
    none = True
    for record in records:
        none = False
        yield record
    if none:
        raise _unusable(folder, faults.first, faults.count) if faults.count else _empty(folder)


def iter_texts(folder: Path, faults: Faults | None = None, split: str | None = None) -> Iterator[tuple[str, str]]:
    """(file_name, text) of each record in the order of metadata.jsonl, "" where it has none; as `iter_records`."""
    for record in iter_records(folder, faults):
        if split is None or record.split == split:
            yield record.file_name, record.text or ""


def _streamed(folder: Path, metadata: Path, faults: Faults) -> Iterator[Record]:
    """The records of metadata.jsonl read line by line; of those with the same name the first."""
    seen = _Seen()
    for batch in _batches(_parsed(folder, metadata, faults)):
        repeated = seen.add(np.array([hash_name(record.file_name) for _, record in batch], np.uint64))
        for (number, record), again in zip(batch, repeated, strict=True):
            if again:
                faults.add([Fault(record.file_name, f"line {number} repeats the file_name of an earlier line")])
            else:
                yield record


def _parsed(folder: Path, metadata: Path, faults: Faults) -> Iterator[tuple[int, Record]]:
    for number, (place, raw) in enumerate(iter_raw_lines(metadata, MAX_LINE), 1):
        line = raw.removesuffix(b"\n") if place else raw.removesuffix(b"\n").removeprefix(b"\xef\xbb\xbf")
        if len(raw) > MAX_LINE:
            faults.add([Fault(f"{METADATA} line {number}", f"the line is longer than {MAX_LINE:,} bytes")])
        elif line.strip():
            record, found = read_record(line, number, folder)
            faults.add(found)
            if record is not None:
                yield number, record


def _batches(values: Iterable[T]) -> Iterator[list[T]]:
    source = iter(values)
    while batch := list(islice(source, BATCH)):
        yield batch


class _Seen:
    """The numbers that came before, in sorted runs of doubling length: 8 bytes each, with few copies of any."""

    def __init__(self) -> None:
        self.runs: list[np.ndarray] = []

    def add(self, numbers: np.ndarray) -> list[bool]:
        """Which of the numbers came before, in an earlier call or in this one; all of them have now."""
        again = np.ones(len(numbers), bool)
        again[np.unique(numbers, return_index=True)[1]] = False
        for run in self.runs:
            places = np.minimum(np.searchsorted(run, numbers), len(run) - 1)
            again |= run[places] == numbers
        self.runs.append(np.sort(numbers))
        while len(self.runs) > 1 and len(self.runs[-2]) <= 2 * len(self.runs[-1]):
            self.runs.append(np.sort(np.concatenate([self.runs.pop(), self.runs.pop()])))
        return [bool(one) for one in again]


def check_dataset(folder: Path, progress: Progress | None = None) -> list[Fault]:
    """Every fault of a folder data set: those of its lines, and of every image, box and segmentation it names.

    Each image is decoded whole: about 1 ms for 128 pixels a side, 10 ms for a megapixel.
    """
    records, faults, _ = _read(folder)
    if not records and not faults:
        raise _empty(folder)
    for done, record in enumerate(records, 1):
        faults += [Fault(record.file_name, reason) for reason in _faults_of(folder, record)]
        if progress:
            progress(done, len(records))
    return faults


def _faults_of(folder: Path, record: Record) -> Iterator[str]:
    path = resolve_inside(folder, record.file_name)
    shape = None
    try:
        shape = check_image(path)
    except DataError as error:
        yield str(error).removeprefix(f"{path}: ")
    if shape is not None:
        yield from _faults_of_boxes(record, *shape)
    if record.segmentation is not None:
        yield from _faults_of_segmentation(resolve_inside(folder, record.segmentation), shape)


def _faults_of_boxes(record: Record, height: int, width: int) -> Iterator[str]:
    for thing in record.objects:
        if exceeds_image(thing.box, height, width):
            yield f"the box {[*thing.box]} of {thing.name!r} leaves the image of {width} x {height} pixels"


def exceeds_image(box: Box, height: int, width: int) -> bool:
    """Whether a box leaves its image by more than rounding moves one."""
    x, y, w, h = box
    return min(x, y) < -SLACK or x + w > width + SLACK or y + h > height + SLACK


def _faults_of_segmentation(path: Path, shape: tuple[int, int] | None) -> Iterator[str]:
    try:
        found = load_segmentation(path).shape
    except DataError as error:
        yield f"segmentation {str(error).removeprefix(f'{path}: ')}"
        return
    if shape is not None and found != shape:
        yield f"segmentation has {found[1]} x {found[0]} pixels, the image {shape[1]} x {shape[0]}"
