"""The one reader of the metadata of a data set, or of its image names: records one by one, and faults."""

import posixpath
from collections.abc import Iterable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np

from tavq.core.errors import DataError, UsageError
from tavq.core.files import MAX_JSON
from tavq.core.jsonl import iter_raw_lines
from tavq.data.csv_metadata import read_rows
from tavq.data.foreign_files import advise_import
from tavq.data.images import SUFFIXES
from tavq.data.listing import find_metadata, list_folder
from tavq.data.records import MAX_LINE, METADATA, Fault, Faults, Place, Record, hash_name, read_record

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


def read_metadata(
    folder: Path, faults: Faults, names: ExactNames | HashedNames, files: list[Path] | None = None
) -> Iterator[Record]:
    """Read the records of a folder data set in the order of its metadata, without the texts of other files.

    Metadata are metadata.jsonl or metadata.csv at its top, or else those in its folders. An image in a folder that has
    none is a record without text, in the order of the names.

    Args:
        folder: the data set.
        faults: counts the faults that are met on the way.
        names: finds repeated names; of several lines with the same name the first counts.
        files: gets the files with metadata as they are read.

    Raises:
        UsageError: the folder does not exist.
        DataError: `names` are kept in full, and metadata are larger than 1 GB.
    """
    metadata_path(folder)
    top = find_metadata(folder)
    for found in [top] if top else list_folder(folder, faults):
        if not found.is_metadata:
            yield Record(found.name, found.split)
            continue
        path = folder / found.name
        if isinstance(names, ExactNames) and path.stat().st_size > MAX_JSON:
            raise DataError(f"{path} holds {path.stat().st_size:,} bytes; at most {MAX_JSON:,} are read into memory.")
        if files is not None:
            files.append(path)
        place = Place(folder, found.name, found.parent, None if found is top else found.split)
        yield from _read_lines(place, path, faults, names)


def empty_folder_error(folder: Path) -> UsageError:
    """The error for a data set without a single image file."""
    suffixes = ", ".join(sorted(SUFFIXES))
    return UsageError(f"{folder} holds no images; put {suffixes} files into it{advise_import(folder)}.")


def no_usable_record_error(folder: Path, first: Fault, count: int) -> DataError:
    """The error for a data set in which every line or image name is at fault."""
    top = find_metadata(folder)
    what = f"{folder / top.name} has no usable line" if top else f"{folder} has no usable image"
    return DataError(f"{what}; {count} faults, first: {first}.")


def _read_lines(place: Place, path: Path, faults: Faults, names: ExactNames | HashedNames) -> Iterator[Record]:
    parse = _parse_rows if path.suffix == ".csv" else _parse_lines
    for lines in _batches(parse(place, path, faults), names.batch):
        for (number, record), first in zip(lines, names.find_repeated(lines), strict=True):
            if first is None:
                yield record
            else:
                faults.add([Fault(record.file_name, f"line {number} repeats the file_name of {first}", record.split)])


def _parse_lines(place: Place, path: Path, faults: Faults) -> Iterator[Line]:
    for number, (_, raw) in enumerate(iter_raw_lines(path, MAX_LINE), 1):
        if len(raw) > MAX_LINE:
            reason = f"the line is longer than {MAX_LINE:,} bytes"
            faults.add([Fault(f"{place.file} line {number}", reason, costs_image=True)])
            continue
        line = raw.removesuffix(b"\n")
        if line.removeprefix(BYTE_ORDER_MARK).strip():
            yield from _read(line, number, place, faults)


def _parse_rows(place: Place, path: Path, faults: Faults) -> Iterator[Line]:
    try:
        for number, fields in read_rows(path):
            yield from _read(fields, number, place, faults)
    except DataError as error:
        faults.add([Fault(place.file, str(error), costs_image=True)])


def _read(line: bytes | dict[str, Any], number: int, place: Place, faults: Faults) -> Iterator[Line]:
    record, found = read_record(line, number, place)
    faults.add(found)
    if record is not None:
        yield number, record


def _batches(values: Iterable[T], size: int) -> Iterator[list[T]]:
    iterator = iter(values)
    while batch := list(islice(iterator, size)):
        yield batch
