"""WebDataset shards: tar files in which the members with one key (the name up to its first dot) form a sample."""

import contextlib
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import NamedTuple

from tavq.core.errors import DataError
from tavq.data.foreign_names import inner_path
from tavq.data.images import SUFFIXES
from tavq.data.tars import MAX_IMAGE_FILE, Member, Span, iter_members

JSON, TEXT, SEGMENTATION, IMAGE, OTHER = "json", "txt", "seg.png", "image", "other"
MAX_TEXT_FILE = 10_000_000  # bytes of a json or txt member
MAX_SCATTERED = 1_000_000_000
"""Bytes of texts and segmentations that are kept of a shard whose samples are not stored one after the other."""

MAPS = frozenset({"seg", "segmentation", "mask", "depth", "label", "labels", "semantic", "instance", "normal", "edges"})
"""What the image of `KEY.mask.png` shows: not the photograph."""


@dataclass
class Sample:
    """The members with one key: an image, json, text and segmentation.

    Of several members of a kind the first with the plain extension counts (`jpg` before `rgb.jpg`).
    """

    key: str
    suffix: str | None = None  # of the image, with the dot
    image: bytes | None = None
    parts: dict[str, bytes] = field(default_factory=dict)  # by JSON, TEXT, SEGMENTATION
    too_large: int = 0  # members that were skipped because of their size
    more_images: int = 0  # beyond the one that counts
    ranks: dict[str, int] = field(default_factory=dict)
    image_at: int = -1  # the position of its member in the shard

    def takes(self, kind: str, rank: int, size: int) -> bool:
        """Whether a member is better than what the sample has of its kind; counts the others."""
        if size > (MAX_IMAGE_FILE if kind in (IMAGE, SEGMENTATION) else MAX_TEXT_FILE):
            self.too_large += 1
            return False
        self.more_images += kind == IMAGE and IMAGE in self.ranks
        if rank >= self.ranks.get(kind, 2):
            return False
        self.ranks[kind] = rank
        return True


def split_member_name(name: str) -> tuple[str, str] | None:
    """Split `a.b/000.seg.png` into the key `a.b/000` and the extension `seg.png`; None if a name lacks one of them."""
    folder, slash, base = inner_path(name).rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if stem and extension else None


def classify(extension: str) -> tuple[str, int] | None:
    """What a member is, and 0 for a plain extension or 1 for a compound one; None for what is not read."""
    if extension == SEGMENTATION:
        return SEGMENTATION, 0
    prefix, _, last = extension.rpartition(".")
    is_image = f".{last}" in SUFFIXES
    if is_image and MAPS.isdisjoint(prefix.split(".")):
        return IMAGE, int(bool(prefix))
    return (last, int(bool(prefix))) if last in (JSON, TEXT) else None


class _Found(NamedTuple):
    """A member: its position in the shard and what it is."""

    position: int
    key: str
    kind: str
    rank: int
    suffix: str
    member: Member


def _find_members(path: Path) -> Iterator[_Found]:
    for position, member in enumerate(iter_members(path)):
        parts = split_member_name(member.name)
        if parts:
            kind, rank = classify(parts[1]) or (OTHER, 0)
            yield _Found(position, parts[0], kind, rank, f".{parts[1].rpartition('.')[2]}", member)


def read_samples(path: Path) -> Iterator[Sample]:
    """Iterate over the samples of a shard; DataError where a truncated shard ends.

    Yields a sample when it is complete, so not the last one of a truncated shard. Reads the names of all members first:
    plain tools store a folder in the order of its file system, so that the members of a sample are not neighbours.
    """
    scattered = _read_scattered(path, _find_scattered(path))
    sample = None
    for found in _find_members(path):
        if sample is not None and sample.key != found.key:
            yield sample
            sample = None
        if found.key in scattered:
            if scattered[found.key].image_at == found.position:
                yield replace(scattered[found.key], image=found.member.read())
            continue
        sample = sample or Sample(found.key)
        _add(sample, found)
    if sample is not None:
        yield sample
    yield from (sample for sample in scattered.values() if sample.image_at < 0)


def _add(sample: Sample, found: _Found) -> None:
    if found.kind == OTHER or not sample.takes(found.kind, found.rank, found.member.size):
        return
    if found.kind == IMAGE:
        sample.suffix, sample.image = found.suffix, found.member.read()
    else:
        sample.parts[found.kind] = found.member.read()


def _find_scattered(path: Path) -> set[str]:
    """The keys whose members are not neighbours."""
    seen: set[str] = set()
    scattered: set[str] = set()
    previous = None
    with contextlib.suppress(DataError):  # raised again where the samples are read
        for found in _find_members(path):
            if found.key != previous and found.key in seen:
                scattered.add(found.key)
            seen.add(found.key)
            previous = found.key
    return scattered


def _read_scattered(path: Path, keys: set[str]) -> dict[str, Sample]:
    """The samples with these keys without their images, which are read where they are stored."""
    samples: dict[str, Sample] = {}
    size = 0
    for found in _find_members(path) if keys else ():
        if found.key not in keys:
            continue
        sample = samples.setdefault(found.key, Sample(found.key))
        if found.kind != IMAGE:
            _add(sample, found)
            size += found.member.size
        elif sample.takes(IMAGE, found.rank, found.member.size):
            sample.suffix, sample.image_at = found.suffix, found.position
        if size > MAX_SCATTERED:
            raise DataError(
                f"{path} does not store the members of a sample one after the other, and their texts are too large to "
                "be kept; pack it again with: tar --sort=name"
            )
    return samples


@dataclass
class IndexedSample:
    """A sample without the bytes of its images: where those are in the shard, and its texts."""

    key: str
    suffix: str = ""  # of the image, with the dot
    image: Span | None = None
    segmentation: Span | None = None
    json: bytes | None = None
    text: bytes | None = None
    images_too_large: int = 0
    parts_too_large: int = 0
    more_images: int = 0  # beyond the one that counts


def index_samples(name: str, members: Iterable[Member]) -> list[IndexedSample]:
    """The samples of a shard as `read_samples` reads them, in the order of their images; then those without an image.

    Args:
        name: of the shard, in errors.
        members: all of them, in order; their texts are read, their images are not.

    Raises DataError where the texts of the shard are too large to be kept.
    """
    found: dict[str, tuple[Sample, IndexedSample]] = {}
    size = 0
    for member in members:
        parts = split_member_name(member.name)
        if parts is None:
            continue
        sample, indexed = found.setdefault(parts[0], (Sample(parts[0]), IndexedSample(parts[0])))
        kind, rank = classify(parts[1]) or (OTHER, 0)
        if kind != OTHER:
            size += _index(sample, indexed, kind, rank, f".{parts[1].rpartition('.')[2]}", member)
        if size > MAX_SCATTERED:
            raise DataError(f"{name} holds texts of more than {MAX_SCATTERED:,} bytes; pack it as smaller shards.")
    samples = [indexed for _, indexed in found.values()]
    return sorted(samples, key=lambda sample: math.inf if sample.image is None else sample.image.start)


def _index(sample: Sample, indexed: IndexedSample, kind: str, rank: int, suffix: str, member: Member) -> int:
    """Note a member if it is better than what the sample has of its kind; returns the bytes of text that it holds."""
    too_large = sample.too_large
    size = max(member.size, member.span.size)
    taken = sample.takes(kind, rank, size)
    indexed.more_images = sample.more_images
    if sample.too_large > too_large:
        if kind == IMAGE:
            indexed.images_too_large += 1
        else:
            indexed.parts_too_large += 1
    if not taken:
        return 0
    if kind == IMAGE:
        indexed.image, indexed.suffix = member.span, suffix
    elif kind == SEGMENTATION:
        indexed.segmentation = member.span
    elif kind == JSON:
        indexed.json = member.read()
    else:
        indexed.text = member.read()
    return size if kind in (JSON, TEXT) else 0
