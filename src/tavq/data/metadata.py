"""The one reader of metadata.jsonl, or of the image names of a folder without it: records one by one, and faults."""

import os
import posixpath
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np

from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.files import resolve_inside
from tavq.core.jsonl import iter_raw_lines
from tavq.data.images import SUFFIXES
from tavq.data.own_output import RUN_IMAGES, is_own_output, is_run_folder
from tavq.data.records import MAX_LINE, METADATA, UNPRINTABLE, Fault, Faults, Record, hash_name, read_record

BYTE_ORDER_MARK = b"\xef\xbb\xbf"

T = TypeVar("T")
Line = tuple[int, Record]
"""The number of a line of metadata.jsonl and its record."""


class ExactNames:
    """Names by their line, compared in full: for readers that hold every record in memory anyway."""

    batch: ClassVar[int] = 1  # so that the faults come in the order of their lines

    def __init__(self) -> None:
        self._lines: dict[str, int] = {}

    def find_repeated(self, lines: list[Line]) -> list[str | None]:
        """For each line which line had its name before, or None."""
        found: list[str | None] = []
        for number, record in lines:
            first = self._lines.setdefault(posixpath.normpath(record.file_name), number)
            found.append(None if first == number else f"line {first}")
        return found


class HashedNames:
    """64-bit hashes of names in sorted runs of doubling length: 8 bytes a name, for data sets larger than memory.

    A name whose hash equals that of another one counts as repeated; see `hash_name` for the chance.
    """

    batch: ClassVar[int] = 4096

    def __init__(self) -> None:
        self.runs: list[np.ndarray] = []

    def find_repeated(self, lines: list[Line]) -> list[str | None]:
        """For each line "an earlier line" if that had its name, or None."""
        hashes = np.array([hash_name(record.file_name) for _, record in lines], np.uint64)
        return ["an earlier line" if repeated else None for repeated in self._add(hashes)]

    def _add(self, hashes: np.ndarray) -> np.ndarray:
        """Which of the hashes came before, in an earlier call or in this one."""
        repeated = np.ones(len(hashes), bool)
        repeated[np.unique(hashes, return_index=True)[1]] = False
        for run in self.runs:
            positions = np.minimum(np.searchsorted(run, hashes), len(run) - 1)
            repeated |= run[positions] == hashes
        self.runs.append(np.sort(hashes))
        while len(self.runs) > 1 and len(self.runs[-2]) <= 2 * len(self.runs[-1]):
            self.runs.append(np.sort(np.concatenate([self.runs.pop(), self.runs.pop()])))
        return repeated


def metadata_path(folder: Path) -> Path:
    """Where the metadata of a data set is, if it has any; UsageError if the folder does not exist."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; give the folder of a data set.")
    return folder / METADATA


def read_metadata(folder: Path, faults: Faults, names: ExactNames | HashedNames) -> Iterator[Record]:
    """Read the records of a folder data set in the order of metadata.jsonl, without the texts of other files.

    Without metadata.jsonl every image file is a record, in the order of their names.

    Args:
        folder: the data set.
        faults: counts the faults that are met on the way.
        names: finds repeated names; of several lines with the same name the first counts.

    Raises:
        UsageError: the folder does not exist.
    """
    path = metadata_path(folder)
    return _read_lines(folder, path, faults, names) if path.exists() else _list_images(folder, faults)


def empty_folder_error(folder: Path) -> UsageError:
    """The error for a data set without a single image file."""
    return UsageError(f"{folder} holds no images; put {', '.join(sorted(SUFFIXES))} files into it.")


def no_usable_record_error(folder: Path, first: Fault, count: int) -> DataError:
    """The error for a data set in which every line or image name is at fault."""
    path = folder / METADATA
    what = f"{path} has no usable line" if path.exists() else f"{folder} has no usable image"
    return DataError(f"{what}; {count} faults, first: {first}.")


def _read_lines(folder: Path, path: Path, faults: Faults, names: ExactNames | HashedNames) -> Iterator[Record]:
    for lines in _batches(_parse_lines(folder, path, faults), names.batch):
        for (number, record), first in zip(lines, names.find_repeated(lines), strict=True):
            if first is None:
                yield record
            else:
                faults.add([Fault(record.file_name, f"line {number} repeats the file_name of {first}", record.split)])


def _parse_lines(folder: Path, path: Path, faults: Faults) -> Iterator[Line]:
    for number, (_, raw) in enumerate(iter_raw_lines(path, MAX_LINE), 1):
        if len(raw) > MAX_LINE:
            reason = f"the line is longer than {MAX_LINE:,} bytes"
            faults.add([Fault(f"{METADATA} line {number}", reason, costs_image=True)])
            continue
        line = raw.removesuffix(b"\n")
        if line.removeprefix(BYTE_ORDER_MARK).strip():
            record, found = read_record(line, number, folder)
            faults.add(found)
            if record is not None:
                yield number, record


def _batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch


def _list_images(folder: Path, faults: Faults) -> Iterator[Record]:
    """A record of every image file, in the order of their names."""
    is_run = is_run_folder(folder)
    for name in _image_names(folder, ""):
        if is_run and RUN_IMAGES.fullmatch(name):
            continue
        # no line of metadata.jsonl could hold it, and half of a surrogate pair cannot be written as UTF-8
        if UNPRINTABLE.search(name):
            reason = "the name contains control characters or invalid Unicode; rename the file"
            faults.add([Fault(ascii(name), reason, "train", costs_image=True)])
            continue
        try:
            if resolve_inside(folder, name).is_file():
                yield Record(name)
        except FileError:
            faults.add([Fault(ascii(name), "the path leads outside the data set", "train", costs_image=True)])


def _image_names(folder: Path, parent: str) -> Iterator[str]:
    """The image names under a folder, sorted; only one folder's names are in memory at a time.

    What tavq wrote there is passed over: a run inside a folder of images would add its samples to the data, and could
    not be resumed because these are others now.
    """
    with os.scandir(folder / parent) as entries:
        visible = [entry for entry in entries if not entry.name.startswith(".")]
        # the slash sorts a folder's images where their full paths belong: `b-1/x.png`, `b.png`, `b/c.png`
        names = sorted(f"{entry.name}/" if entry.is_dir(follow_symlinks=False) else entry.name for entry in visible)
    if parent and is_own_output(names):
        return
    for name in names:
        if name.endswith("/"):
            yield from _image_names(folder, parent + name)
        if Path(name).suffix.lower() in SUFFIXES:
            yield parent + name.removesuffix("/")
