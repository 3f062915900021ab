"""What every importer of a published data set stands on: its interface, its pictures, and the folder it writes."""

import contextlib
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import ClassVar

from tavq.core.errors import DataError, UsageError
from tavq.core.files import read_bytes, write_bytes, write_folder
from tavq.core.registry import Registry
from tavq.data.folder import Progress
from tavq.data.pictures import SUFFIXES
from tavq.data.records import METADATA, Record, to_line
from tavq.data.tars import open_tar, read_member, tar_members


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote: pictures by split and captions in all; what it left out, by reason; what else it wrote."""

    pictures: Mapping[str, int]
    captions: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)


class Source:
    """A published data set that can be turned into a folder data set."""

    name: ClassVar[str]
    layout: ClassVar[str]
    """Which files it looks for, in one line for the help text."""

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the data set in `source` to the new folder `out`, all of it or nothing.

        `limit` takes at most that many pictures of each split. Raises DataError when `source` is not laid out as
        expected, UsageError when `out` already holds something.
        """
        raise TypeError(f"{type(self).__name__} must define run")


sources: Registry[type[Source]] = Registry("data source", "tavq.data.sources")


@contextlib.contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """A folder to fill that becomes `out` when the block ends without an error; what `out` holds is never replaced."""
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already holds something; give a new folder to write the data set to.")
    with write_folder(out) as folder:
        yield folder


def write_records(folder: Path, records: Iterable[Record]) -> None:
    """Writes metadata.jsonl."""
    write_bytes(folder / METADATA, b"".join(to_line(record) for record in records))


def summarize(records: Sequence[Record], left_out: Mapping[str, int]) -> ImportSummary:
    """The counts of what was written; what there is none of is not listed."""
    splits = Counter(record.split for record in records)
    captions = sum(len(record.captions) for record in records)
    others = {
        "objects": sum(len(record.objects) for record in records),
        "phrases of objects": sum(len(thing.phrases) for record in records for thing in record.objects),
        "questions": sum(len(record.questions) for record in records),
        "segmentations": sum(record.segmentation is not None for record in records),
    }
    return ImportSummary(dict(splits), captions, _counted(left_out), _counted(others))


def _counted(counts: Mapping[str, int]) -> dict[str, int]:
    return {name: count for name, count in counts.items() if count}


def find_file(source: Path, name: str, folders: Sequence[str] = ()) -> Path:
    """The file `name` in `source` or in one of its `folders`; DataError says where it was looked for."""
    if not source.is_dir():
        raise UsageError(f"There is no folder {source}; give the folder that holds the published data set.")
    places = [source, *(source / folder for folder in folders)]
    found = next((place / name for place in places if (place / name).is_file()), None)
    if found is None:
        raise DataError(f"There is no file {name} in {' or '.join(map(str, places))}; is this the right folder?")
    return found


def is_picture_name(name: str) -> bool:
    """Whether a name from a foreign file is a plain picture file name, with no folder in it."""
    plain = PurePosixPath(name).name == name and name.isprintable() and not name.startswith(".")
    return plain and PurePosixPath(name).suffix.lower() in SUFFIXES


class PictureFiles:
    """The picture files of a published data set by their plain names, from a folder or from a tar file.

    Nothing is ever unpacked under a name that the tar file chose: only members that are asked for are read, as bytes.
    """

    def __init__(self, source: Path, folders: Sequence[str], archives: str) -> None:
        self.place = _place_of_pictures(source, folders, archives)
        self.names = frozenset(name for name in _names(self.place) if is_picture_name(name))

    def contents(self, wanted: Sequence[str]) -> Iterator[tuple[str, bytes]]:
        """The pictures `wanted`, all of them in `names`, with their bytes, in the order in which they are stored."""
        return _contents(self.place, frozenset(wanted))

    def copy(self, wanted: Sequence[str], folder: Path, done: Callable[[], None]) -> None:
        """Writes the pictures `wanted`, all of them in `names`, into `folder` byte for byte.

        For use inside `new_folder`: a part is never seen, so the files are flushed to the disk together at the end,
        four times as fast as one by one.
        """
        folder.mkdir(parents=True, exist_ok=True)
        for name, data in self.contents(wanted):
            (folder / name).write_bytes(data)
            done()
        for name in wanted:
            with open(folder / name, "rb") as file:
                os.fsync(file.fileno())


def _place_of_pictures(source: Path, folders: Sequence[str], archives: str) -> Path:
    for name in folders:
        if (source / name).is_dir():
            return source / name
    found = sorted(source.glob(archives))
    if len(found) == 1:
        return found[0]
    looked = f"the folders {', '.join(folders)} and the files {archives}"
    if found:
        raise DataError(f"{source} holds several of {archives}: {', '.join(p.name for p in found)}; leave one of them.")
    raise DataError(f"There are no pictures in {source}: {looked} were looked for.")


def _names(place: Path) -> Iterator[str]:
    if place.is_dir():
        yield from (path.name for path in place.iterdir() if path.is_file())
        return
    with open_tar(place) as archive:
        yield from (PurePosixPath(member.name).name for member in tar_members(place, archive))


def _contents(place: Path, wanted: frozenset[str]) -> Iterator[tuple[str, bytes]]:
    if place.is_dir():
        for name in sorted(wanted):
            yield name, read_bytes(place / name)
        return
    left = set(wanted)
    with open_tar(place) as archive:
        for member in archive:
            name = PurePosixPath(member.name).name
            if member.isfile() and name in left:
                left.remove(name)
                yield name, read_member(place, archive, member)
