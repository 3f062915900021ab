"""The folder data set: pictures anywhere under a folder and one line of metadata.jsonl for each."""

import hashlib
import posixpath
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

from tavq.core.errors import DataError, FileError, TavqError, UsageError
from tavq.core.files import MAX_JSON, inside, read_bytes
from tavq.data.pictures import SUFFIXES, check_picture, load_segmentation
from tavq.data.records import METADATA, SPLITS, Fault, Record, read_record

SLACK = 0.5  # pixels that a box may stand out, for boxes that were rounded

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class FolderDataset:
    """The records of a folder data set, in the order of metadata.jsonl, and the faults that reading it found.

    A line that cannot be read, or whose `file_name` or `split` cannot be used, is left out; any other field that
    cannot be used is left out of its record. Each becomes a fault. Unknown fields are ignored, since other readers
    of this layout use them. Without metadata.jsonl every picture file is a training record without text.

    Raises UsageError when there is no folder, no picture, or none in `split`.
    """

    def __init__(self, folder: Path, split: str | None = None) -> None:
        self.folder = folder
        self.split = split
        everything, self.faults, data = _read(folder)
        self.fingerprint = hashlib.sha256(data).hexdigest()
        """The SHA-256 of metadata.jsonl (of the list of names where there is none): which data a run has seen."""
        self.records = [record for record in everything if split is None or record.split == split]
        if not self.records:
            raise _nothing(self, everything)

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> Record:
        return self.records[index]

    def __iter__(self) -> Iterator[Record]:
        return iter(self.records)

    def path(self, file_name: str) -> Path:
        """Where a picture or segmentation of this data set lies; FileError when that is outside the folder."""
        return inside(self.folder, file_name)


def _read(folder: Path) -> tuple[list[Record], list[Fault], bytes]:
    """The records, the faults, and the bytes whose hash stands for the data."""
    if not folder.is_dir():
        raise UsageError(f"There is no folder {folder}; give the folder of a data set.")
    metadata = folder / METADATA
    return _read_metadata(folder, metadata) if metadata.exists() else _list_pictures(folder)


def _nothing(dataset: FolderDataset, everything: list[Record]) -> TavqError:
    splits = Counter(record.split for record in everything)
    if splits:
        known = ", ".join(f"{name} ({splits[name]})" for name in SPLITS if name in splits)
        return UsageError(f"{dataset.folder} has no pictures in the split {dataset.split!r}; it has: {known}.")
    if dataset.faults:
        return DataError(
            f"{dataset.folder / METADATA} has no usable line; {len(dataset.faults)} faults, first: {dataset.faults[0]}."
        )
    return _empty(dataset.folder)


def _empty(folder: Path) -> UsageError:
    return UsageError(f"{folder} holds no pictures; put {', '.join(sorted(SUFFIXES))} files into it.")


def _list_pictures(folder: Path) -> tuple[list[Record], list[Fault], bytes]:
    paths = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in SUFFIXES)
    names = sorted(path.as_posix() for path in paths if not any(part.startswith(".") for part in path.parts))
    records: list[Record] = []
    faults: list[Fault] = []
    for name in names:
        try:
            if inside(folder, name).is_file():
                name.encode()
                records.append(Record(name))
        except (FileError, UnicodeEncodeError):
            faults.append(Fault(ascii(name), "the path leads outside the data set or is not UTF-8"))
    return records, faults, "\n".join(record.file_name for record in records).encode()


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


def check(folder: Path, progress: Progress | None = None) -> list[Fault]:
    """Every fault of a folder data set: those of its lines, and of every picture, box and segmentation it names.

    Each picture is decoded whole: about 1 ms for 128 pixels a side, 10 ms for a megapixel.
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
    path = inside(folder, record.file_name)
    shape = None
    try:
        shape = check_picture(path)
    except DataError as error:
        yield str(error).removeprefix(f"{path}: ")
    if shape is not None:
        yield from _faults_of_boxes(record, *shape)
    if record.segmentation is not None:
        yield from _faults_of_segmentation(inside(folder, record.segmentation), shape)


def _faults_of_boxes(record: Record, height: int, width: int) -> Iterator[str]:
    for thing in record.objects:
        x, y, w, h = thing.box
        if min(x, y) < -SLACK or x + w > width + SLACK or y + h > height + SLACK:
            yield f"the box {[x, y, w, h]} of {thing.name!r} leaves the picture of {width} x {height} pixels"


def _faults_of_segmentation(path: Path, shape: tuple[int, int] | None) -> Iterator[str]:
    try:
        found = load_segmentation(path).shape
    except DataError as error:
        yield f"segmentation {str(error).removeprefix(f'{path}: ')}"
        return
    if shape is not None and found != shape:
        yield f"segmentation has {found[1]} x {found[0]} pixels, the picture {shape[1]} x {shape[0]}"
