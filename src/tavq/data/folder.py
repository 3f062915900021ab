"""The folder data set: images anywhere under a folder and one line of metadata.jsonl for each."""

import hashlib
import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import copy
from dataclasses import replace
from functools import lru_cache
from pathlib import Path, PurePosixPath

from tavq.core.addresses import full_address, hide_secrets, is_remote
from tavq.core.errors import DataError, TavqError, UsageError
from tavq.core.files import sha256
from tavq.core.inside import resolve_inside
from tavq.data.descriptions import Descriptions
from tavq.data.images import check_image, load_segmentation
from tavq.data.metadata import (
    ExactNames,
    HashedNames,
    empty_folder_error,
    metadata_path,
    no_usable_record_error,
    read_metadata,
)
from tavq.data.records import SPLITS, Box, Fault, Faults, Record
from tavq.data.shards import ShardReader, find_collection, find_home, is_shard_name
from tavq.data.storage import DataFile, FolderStorage, Storage

SEGMENTATION_CLASSES = "segmentation_classes.json"
"""The file with the class names by class index, for data sets with segmentations."""

BOX_TOLERANCE = 0.5  # pixels that a box may extend beyond the image: annotations are often rounded

Progress = Callable[[int, int], None]
"""Called with (done, total)."""


class FolderDataset:
    """The records of a folder data set, in the order of metadata.jsonl, and the faults found while reading it.

    A line that cannot be read, or whose `file_name` or `split` cannot be used, is left out; any other field that
    cannot be used is left out of its record. Each becomes a fault. Unknown fields are ignored, since other readers
    of this layout use them. Without metadata.jsonl the folder is read as an imagefolder (`data.listing`): metadata.csv,
    metadata in its folders, folders as splits; any other image is a training record without text.

    A record without a `long_text` of its own gets the one that a model wrote (`long_text*.jsonl`).

    Raises UsageError if the folder does not exist, holds no image, or none of `split`.
    """

    def __init__(self, folder: Path, split: str | None = None) -> None:
        self.folder = folder
        """The folder, or what names the shards: a tar file, a pattern or an address (`core.addresses`)."""
        self.split = split
        files: list[Path] = []
        shards = _open_shards(folder, keep_files=True)
        all_records, self._all_faults = _read_records(folder, shards, files)
        self.storage: Storage = FolderStorage(folder) if shards is None else shards.storage()
        self.faults = _faults_of(self._all_faults, split)
        """What cannot be used of the split; where no split can be known, as of a broken line, it counts in each."""
        self.fingerprint = _fingerprint(folder, files, all_records) if shards is None else shards.fingerprint
        """The SHA-256 of metadata.jsonl, or else of other metadata and the list of names: which images a run has seen.

        Descriptions do not count: they are added while a data set is in use, and the hash of the text store already
        records which text a run has seen.
        """
        self.records = [record for record in all_records if split is None or record.split == split]
        if not self.records:
            raise _no_record_error(self, all_records)

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

    def of_split(self, split: str) -> "FolderDataset":
        """The records of a split and its faults; there may be none."""
        chosen = self.subset(record for record in self if record.split == split)
        chosen.split, chosen.faults = split, _faults_of(self._all_faults, split)
        return chosen

    @property
    def home(self) -> Path:
        """The folder of what is made for the data set, such as its text store."""
        return find_home(self.folder)

    @property
    def address(self) -> str:
        """The absolute path of the data set, or its address, without a password."""
        return hide_secrets(full_address(self.folder))

    @property
    def name(self) -> str:
        """The last part of the address."""
        return PurePosixPath(self.address).name

    def file(self, file_name: str) -> DataFile:
        """The file of an image or segmentation of this data set; FileError if there can be none of this name."""
        return self.storage.file(file_name)

    def path(self, file_name: str) -> Path:
        """The path of an image or segmentation in a folder; shards have none, see `file`."""
        return resolve_inside(self.folder, file_name)


def load_training_split(dataset: FolderDataset, limit: int | None = None) -> FolderDataset | None:
    """The training images of the same folder, at most `limit`; None if there are none."""
    train = FolderDataset(dataset.folder).of_split("train")
    return train.subset(train.records[:limit]) if train.records else None


def load_held_out_split(folder: Path) -> FolderDataset | None:
    """The validation split of a data set, or else its test split; None if it has neither."""
    for split in ("val", "test"):
        try:
            return FolderDataset(folder, split)
        except TavqError:
            continue
    return None


def _faults_of(faults: list[Fault], split: str | None) -> list[Fault]:
    return [fault for fault in faults if split is None or fault.split in (None, split)]


def is_dataset(place: Path) -> bool:
    """Whether a place can be read as a data set: a folder, shards or a remote address; not a single image."""
    return place.is_dir() or is_shard_name(place) or is_remote(place)


@lru_cache(4)
def open_storage(place: Path) -> Storage:
    """The files of a data set, where its records are not needed; shards are indexed once for a process."""
    shards = _open_shards(place, keep_files=True)
    if shards is None:
        return FolderStorage(place)
    for _ in shards.read(Faults()):
        pass
    return shards.storage()


def _open_shards(place: Path, keep_files: bool) -> ShardReader | None:
    collection = find_collection(place)
    return None if collection is None else ShardReader.open(collection, keep_files)


def _read_records(
    folder: Path, shards: ShardReader | None, files: list[Path] | None = None
) -> tuple[list[Record], list[Fault]]:
    faults = Faults(keep=math.inf)
    found = read_metadata(folder, faults, ExactNames(), files) if shards is None else shards.read(faults)
    return list(_add_descriptions(found, find_home(folder), faults)), faults.first


def _fingerprint(folder: Path, files: list[Path], records: Iterable[Record]) -> str:
    if files == [metadata_path(folder)]:
        return sha256(files[0])
    parts = [*map(sha256, files), *(record.file_name for record in records)]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _add_descriptions(records: Iterable[Record], folder: Path, faults: Faults) -> Iterator[Record]:
    """The records, with the text that a model wrote for those without a long text of their own."""
    with Descriptions(folder) as descriptions:
        for record in records:
            descriptions.mark(record.file_name)
            text = descriptions.text(record.file_name) if descriptions and record.long_text is None else None
            yield record if text is None else replace(record, long_text=text)
        faults.merge(descriptions.faults)
        faults.add(descriptions.find_unmatched())


def _no_record_error(dataset: FolderDataset, all_records: list[Record]) -> TavqError:
    splits = Counter(record.split for record in all_records)
    if splits:
        known = ", ".join(f"{name} ({splits[name]})" for name in SPLITS if name in splits)
        return UsageError(f"{dataset.folder} has no images in the split {dataset.split!r}; it has: {known}.")
    if dataset._all_faults:
        return no_usable_record_error(dataset.folder, dataset._all_faults[0], len(dataset._all_faults))
    return empty_folder_error(dataset.folder)


def iter_records(folder: Path, faults: Faults | None = None, descriptions: bool = True) -> Iterator[Record]:
    """Iterate over the records that FolderDataset holds without holding them: 8 bytes an image, for any size.

    Args:
        folder: the data set.
        faults: counts what FolderDataset lists. A name with the same 64-bit hash as another one is counted as its
            repetition; see `hash_name`.
        descriptions: also read the texts that a model wrote, which takes 16 more bytes a line.

    Raises:
        UsageError: the folder does not exist or holds no image.
        DataError: every line or name is at fault.
    """
    faults = Faults() if faults is None else faults
    shards = _open_shards(folder, keep_files=False)
    found = read_metadata(folder, faults, HashedNames()) if shards is None else shards.read(faults)
    records = _require_one(found, folder, faults)
    return _add_descriptions(records, find_home(folder), faults) if descriptions else records


def _require_one(records: Iterator[Record], folder: Path, faults: Faults) -> Iterator[Record]:
    """The records; raises an error as FolderDataset does if there is none."""
    empty = True
    for record in records:
        empty = False
        yield record
    if empty and faults.count:
        raise no_usable_record_error(folder, faults.first[0], faults.count)
    if empty:
        raise empty_folder_error(folder)


def iter_texts(folder: Path, faults: Faults | None = None, split: str | None = None) -> Iterator[tuple[str, str]]:
    """Iterate over (file_name, text) of each record in the order of metadata.jsonl, "" for a record without text."""
    for record in iter_records(folder, faults):
        if split is None or record.split == split:
            yield from record.texts(each_caption=False)


def check_dataset(folder: Path, progress: Progress | None = None) -> list[Fault]:
    """Find every fault of a folder data set: in its lines, and in every image, box and segmentation they name.

    Decodes each image completely: about 1 ms for 128 pixels a side, 10 ms for a megapixel.
    """
    shards = _open_shards(folder, keep_files=True)
    records, faults = _read_records(folder, shards)
    storage: Storage = FolderStorage(folder) if shards is None else shards.storage()
    if not records and not faults:
        raise empty_folder_error(folder)
    for done, record in enumerate(records, 1):
        faults += [Fault(record.file_name, reason, record.split) for reason in _find_faults(storage, record)]
        if progress:
            progress(done, len(records))
    return faults


def _find_faults(storage: Storage, record: Record) -> Iterator[str]:
    path = storage.file(record.file_name)
    shape = None
    try:
        shape = check_image(path)
    except DataError as error:
        yield str(error).removeprefix(f"{path}: ")
    if shape is not None:
        yield from _find_box_faults(record, *shape)
    if record.segmentation is not None:
        yield from _find_segmentation_faults(storage.file(record.segmentation), shape)


def _find_box_faults(record: Record, height: int, width: int) -> Iterator[str]:
    for thing in record.objects:
        if exceeds_image(thing.box, height, width):
            yield f"the box {[*thing.box]} of {thing.name!r} extends beyond the image of {width} x {height} pixels"


def exceeds_image(box: Box, height: int, width: int) -> bool:
    """Whether a box extends beyond its image by more than rounding explains."""
    x, y, w, h = box
    return min(x, y) < -BOX_TOLERANCE or x + w > width + BOX_TOLERANCE or y + h > height + BOX_TOLERANCE


def _find_segmentation_faults(path: DataFile, shape: tuple[int, int] | None) -> Iterator[str]:
    try:
        found = load_segmentation(path).shape
    except DataError as error:
        yield f"segmentation: {str(error).removeprefix(f'{path}: ')}"
        return
    if shape is not None and found != shape:
        yield f"segmentation: it has {found[1]} x {found[0]} pixels, but the image has {shape[1]} x {shape[0]}"
