"""A collection of WebDataset shards as a data set: one tar file, a folder of them, or a pattern `s-{000..999}.tar`.

The records are those that `tavq data import webdataset` writes, with the same names; nothing is unpacked.
"""

import hashlib
import itertools
import json
import os
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.core.addresses import cache_folder, full_address, hide_secrets, is_remote
from tavq.core.errors import FileError, UsageError
from tavq.core.files import parse_json
from tavq.core.remote import find_files
from tavq.data.foreign_fields import make_line
from tavq.data.foreign_files import SHARDS, find_shards
from tavq.data.foreign_names import expand_braces, is_image_path, parse_split, split_captions
from tavq.data.listing import find_metadata, list_folder
from tavq.data.records import Fault, Faults, Place, Record, hash_name, read_record
from tavq.data.shard_index import ShardEntry, StoredSample, index_shards, parse_sample
from tavq.data.shard_storage import ShardStorage, make_members
from tavq.data.tars import Span
from tavq.ops.collective import rank, world_size

SHARD = ".tar"
"""The ending of shards that are read in place; a compressed one has no offsets."""

NOWHERE = Path(os.devnull) / "shards"
"""The folder that names of members are checked against: none, so that no link of this machine counts."""


@dataclass(frozen=True)
class Collection:
    """Shards that are a data set together.

    Attributes:
        place: as it was given.
        root: the address that the names of the shards are relative to.
        addresses: of the shards, in the order of their names.
        compressed: names of shards that cannot be read in place.
    """

    place: Path
    root: str
    addresses: tuple[str, ...]
    compressed: tuple[str, ...] = ()

    @property
    def home(self) -> Path:
        """The folder of what is made for the collection: a text store, long texts."""
        return find_home(self.place)

    def name(self, address: str) -> str:
        """The path of a shard below the root."""
        return address.removeprefix(self.root).lstrip("/")


def find_home(place: Path) -> Path:
    """Where the text store and the descriptions of a data set are: beside its images, or in the cache if remote."""
    if is_remote(place):
        address = hide_secrets(full_address(place))
        name = re.sub(r"[^A-Za-z0-9.-]+", "-", PurePosixPath(address).stem)[:40]
        return cache_folder() / "collections" / f"{name}-{hashlib.sha256(address.encode()).hexdigest()[:12]}"
    return place if place.is_dir() or not is_shard_name(place) else Path(_common_folder(expand_braces(str(place))))


def is_shard_name(place: Path) -> bool:
    """Whether a path names one shard, or a pattern of them."""
    return place.name.lower().endswith(SHARDS)


def find_collection(place: Path) -> Collection | None:
    """The shards that are meant by a place; None for a folder that is a data set by itself.

    A folder is a collection if it holds shards, at any depth, and neither metadata nor images.

    Raises:
        UsageError: there is no such shard, or it is compressed.
        StorageError: a remote storage cannot be read.
    """
    if is_remote(place):
        return _find_remote(place)
    if is_shard_name(place) and not place.is_dir():
        paths = expand_braces(str(place))
        missing = next((path for path in paths if not Path(path).is_file()), None)
        if missing is not None:
            raise UsageError(f"There is no shard {missing}; give a folder of .tar files, one of them, or a pattern.")
        return _collect(place, _common_folder(paths), [str(Path(path).resolve()) for path in paths])
    if not place.is_dir() or find_metadata(place) or next(list_folder(place, Faults()), None) is not None:
        return None
    root = str(place.resolve())
    found = sorted(map(str, find_shards(Path(root))))
    return _collect(place, root, found) if any(path.lower().endswith(SHARD) for path in found) else None


def describe_unread_shards(place: Path) -> str | None:
    """Say that the shards in a folder are not read, as it has images of its own; None where there is nothing to say."""
    if is_remote(place) or not place.is_dir() or find_metadata(place):
        return None
    found = sorted(find_shards(place))
    if not found or find_collection(place) is not None:
        return None
    return (
        f"{place} holds images, which are read, and {len(found):,} shards, such as {found[0].relative_to(place)}, "
        "which are not. To read the shards, move them into a folder of their own."
    )


def _find_remote(place: Path) -> Collection:
    address = full_address(place)
    if is_shard_name(Path(_path_of(address))):
        addresses = expand_braces(address)
        return _collect(place, _common_address(addresses), addresses)
    found = find_files(address, SHARD)
    if not found:
        raise UsageError(
            f"There are no shards at {hide_secrets(address)}; give the address of .tar files: a folder, one of them, "
            "or a pattern such as s3://bucket/train-{000..999}.tar."
        )
    return _collect(place, address.rstrip("/"), found)


def _collect(place: Path, root: str, addresses: Sequence[str]) -> Collection:
    plain = [address for address in addresses if _path_of(address).lower().endswith(SHARD)]
    compressed = [address for address in addresses if not _path_of(address).lower().endswith(SHARD)]
    if not plain:
        raise UsageError(
            f"{hide_secrets(compressed[0])} is compressed, so that its images cannot be read in place; unpack it to "
            f"a .tar file, or import it with: tavq data import webdataset {place} OUT"
        )
    return Collection(place, root, tuple(plain), tuple(compressed))


def _common_address(addresses: Sequence[str]) -> str:
    folders = [address.split("/")[:-1] for address in addresses]
    shared = itertools.takewhile(lambda parts: len(set(parts)) == 1, zip(*folders, strict=False))
    return "/".join(parts[0] for parts in shared)


def _path_of(address: str) -> str:
    return address.partition("?")[0] if "://" in address else address


def _common_folder(paths: Sequence[str]) -> str:
    return os.path.commonpath([str(Path(path).resolve().parent) for path in paths])


def strip_suffix(name: str) -> str:
    """The name of a shard without its suffix."""
    path = _path_of(name)
    return next(path[: -len(end)] for end in (*SHARDS[::-1], "") if path.lower().endswith(end))


def find_split(shard: str) -> str:
    """The split that the name of a shard mentions last, else train."""
    splits = map(parse_split, reversed(re.split(r"[^a-z]+", shard.lower())))
    return next((split for split in splits if split is not None), "train")


# --- records ----------------------------------------------------------------------------------------------------


@dataclass
class ShardReader:
    """The records of a collection, in the order of its shards and of the images in them.

    Attributes:
        collection: the shards.
        entries: what they hold.
        files: gets (name, shard, span) of each image and segmentation as records are read; None keeps nothing.
    """

    collection: Collection
    entries: list[ShardEntry]
    files: list[tuple[str, int, Span]] | None = None
    _taken: set[int] = field(default_factory=set)

    @classmethod
    def open(cls, collection: Collection, keep_files: bool) -> "ShardReader":
        """Index the shards, or read what is kept of them."""
        first = rank() * len(collection.addresses) // world_size()
        return cls(collection, index_shards(collection.addresses, first), [] if keep_files else None)

    @property
    def fingerprint(self) -> str:
        """A SHA-256 of names, texts, sizes and offsets: the same wherever the shards are, until one changes."""
        lines = [f"{self.collection.name(entry.address)} {entry.sha256}" for entry in self.entries]
        return hashlib.sha256("\n".join(lines).encode("utf-8", "surrogatepass")).hexdigest()

    def storage(self) -> ShardStorage:
        """The files of the records that were read."""
        assert self.files is not None, "opened with keep_files"
        states = [entry.state for entry in self.entries]
        return ShardStorage([entry.address for entry in self.entries], states, make_members(self.files))

    def read(self, faults: Faults) -> Iterator[Record]:
        """Read the records; `faults` counts what cannot be used."""
        for name in map(self.collection.name, self.collection.compressed):
            faults.add([Fault(name, "it is compressed, and its images are not read; unpack it", costs_image=True)])
        for number, entry in enumerate(self.entries):
            shard = strip_suffix(self.collection.name(entry.address))
            for position, line in enumerate(entry.lines, 1):
                record, found = self._read(shard, number, position, parse_sample(line))
                faults.add(found)
                if record is not None:
                    yield record

    def _read(self, shard: str, number: int, position: int, sample: StoredSample) -> tuple[Record | None, list[Fault]]:
        where = f"{shard}: {ascii(sample.key)[1:-1]:.200}"
        fields, faults = _read_fields(where, sample)
        split = parse_split(fields.get("split")) or find_split(shard)
        faults += _find_faults(where, split, sample)
        if sample.image is None:
            return None, faults
        name = self._choose_name(shard, sample, fields)
        if not is_image_path(name):
            return None, [*faults, Fault(where, "the key cannot be a file name", split, costs_image=True)]
        if hash_name(name) in self._taken:
            return None, [*faults, Fault(name, f"the sample {where} repeats the file_name of another one", split)]
        segmentation = self._choose_segmentation(shard, sample, fields, name)
        captions = split_captions(sample.text or "")
        line = make_line(name, split, fields, captions, segmentation or "")
        record, found = read_record(line, position, Place(NOWHERE, shard, split=split))
        if record is not None:
            self._take(record.file_name, number, sample.image)
            if record.segmentation is not None and sample.segmentation is not None:
                self._take(record.segmentation, number, sample.segmentation)
        return record, [*faults, *found]

    def _choose_name(self, shard: str, sample: StoredSample, fields: Mapping[str, Any]) -> str:
        name = fields.get("file_name")
        usable = is_image_path(name) and hash_name(str(name)) not in self._taken
        return str(name) if usable else f"images/{shard}/{sample.key}{sample.suffix}"

    def _choose_segmentation(
        self, shard: str, sample: StoredSample, fields: Mapping[str, Any], image: str
    ) -> str | None:
        """The name of the sample's segmentation; None if it has none, or its name is taken."""
        if sample.segmentation is None:
            return None
        name = fields.get("segmentation")
        usable = is_image_path(name) and str(name).endswith(".png") and hash_name(str(name)) not in self._taken
        chosen = str(name) if usable else f"segmentation/{shard}/{sample.key}.png"
        return None if chosen == image or hash_name(chosen) in self._taken else chosen

    def _take(self, name: str, shard: int, span: Span) -> None:
        self._taken.add(hash_name(name))
        if self.files is not None:
            self.files.append((name, shard, span))


def _read_fields(where: str, sample: StoredSample) -> tuple[Mapping[str, Any], list[Fault]]:
    if sample.json is None:
        return {}, []
    try:
        fields = parse_json(sample.json, sample.key)
        json.dumps(fields)  # it may be nested too deeply to be written again
        if isinstance(fields, dict):
            return fields, []
    except (FileError, RecursionError, ValueError):
        pass
    return {}, [Fault(where, "its json cannot be read", part="captions")]


def _find_faults(where: str, split: str, sample: StoredSample) -> Iterator[Fault]:
    costs = sample.image is None and sample.images_too_large > 0
    if sample.images_too_large:
        yield Fault(where, "its image is too large", split, costs_image=costs, part="" if costs else "other images")
    elif sample.image is None:
        yield Fault(where, "the sample has no image", split, part="samples")
    if sample.parts_too_large:
        yield Fault(where, "its json, text or segmentation is too large", split, part="captions")
    if sample.more_images:
        reason = f"{sample.more_images} images beyond the first of the sample are not read"
        yield Fault(where, reason, split, part="other images")
