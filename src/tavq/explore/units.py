"""The words, phrases and sentences of all images, as the statistics count them."""

from array import array
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Int

from tavq.core.caption_keys import caption_key
from tavq.data.folder import FolderDataset
from tavq.data.records import Record
from tavq.explore.statistics.rows import Rows, offsets_of, transpose
from tavq.interfaces import GRANULARITIES
from tavq.metrics.association import MAX_UNITS, MIN_IMAGES
from tavq.text.granularity import load_splitter, split
from tavq.text.store import TextStore, record_splitter

SPLITTER = "pattern"
"""Splits captions where there is no text store."""

ImageUnits = Mapping[str, Sequence[str]]


@dataclass(frozen=True)
class UnitTable:
    """The most frequent units of a granularity, most frequent first.

    Attributes:
        texts: the units.
        of_images: the ids of each image's units.
        images: the images of each unit.
    """

    texts: Sequence[str]
    of_images: Rows
    images: Rows

    def __len__(self) -> int:
        return len(self.texts)

    @property
    def counts(self) -> Int[np.ndarray, " u"]:
        """The number of images of each unit."""
        return self.images.lengths

    def find_exactly(self, texts: Collection[str]) -> list[tuple[str, int]]:
        """The units that are one of some casefolded texts, ignoring case, each with that text."""
        folded = ((text.casefold(), unit) for unit, text in enumerate(self.texts))
        return [(text, unit) for text, unit in folded if text in texts]

    def find(self, query: str) -> list[int]:
        """The units that contain a text, ignoring case: the text itself, then those that begin with it, then others."""
        wanted = query.casefold().strip()
        ranked = [(_rank(text.casefold(), wanted), unit) for unit, text in enumerate(self.texts)]
        return [unit for rank, unit in sorted(ranked) if rank < 3]


def _rank(text: str, wanted: str) -> int:
    if text == wanted:
        return 0
    if text.startswith(wanted):
        return 1
    return 2 if wanted in text else 3


def describe_text(store: TextStore | None, dataset: FolderDataset) -> str:
    """What the units come from, for the key of a store of statistics; empty if no image has a text."""
    if store is not None:
        return f"text store {store.manifest.sha256}"
    if not any(record.text for record in dataset):
        return ""
    record = record_splitter(SPLITTER)
    return f"captions, split by {record.name} {record.version}"


def iter_units(dataset: FolderDataset, store: TextStore | None) -> Iterator[ImageUnits]:
    """Yield the units of each image by granularity, empty ones for an image without text.

    They come from the text store, as in the statistics of reports, or else from the captions by the same splitter.
    """
    load_splitter(SPLITTER)
    for record in dataset:
        yield _units_of_store(record, store) if store is not None else _split(record)


def _split(record: Record) -> ImageUnits:
    units = split(record.text or "", SPLITTER)
    return {name: units[name] for name in GRANULARITIES}


def _units_of_store(record: Record, store: TextStore) -> ImageUnits:
    keys = [record.file_name]
    if store.each_caption:
        keys += [caption_key(record.file_name, number) for number in range(1, len(record.captions))]
    found = [store.units(key) for key in keys if key in store]
    return {name: [unit for units in found for unit in units[name]] for name in GRANULARITIES}


def build_tables(units: Iterable[ImageUnits], readable: Bool[np.ndarray, " n"]) -> dict[str, UnitTable]:
    """Count the units of all readable images and keep the frequent ones.

    A unit needs `MIN_IMAGES` images; at most `MAX_UNITS` of a granularity are kept.

    Args:
        units: of each image, in order.
        readable: whether statistics count the image.
    """
    known: dict[str, dict[str, int]] = {name: {} for name in GRANULARITIES}
    values = {name: array("i") for name in GRANULARITIES}
    lengths: dict[str, list[int]] = {name: [] for name in GRANULARITIES}
    for image, own in enumerate(units):
        for name in GRANULARITIES:
            distinct = dict.fromkeys(own[name]) if readable[image] else {}
            values[name].extend(known[name].setdefault(unit, len(known[name])) for unit in distinct)
            lengths[name].append(len(distinct))
    return {name: _keep_frequent(list(known[name]), np.array(values[name], np.int32), lengths[name]) for name in known}


def _keep_frequent(texts: list[str], values: Int[np.ndarray, " v"], lengths: list[int]) -> UnitTable:
    counts = np.bincount(values, minlength=len(texts))
    order = sorted(
        (unit for unit in range(len(texts)) if counts[unit] >= MIN_IMAGES), key=lambda u: (-counts[u], texts[u])
    )
    kept = order[:MAX_UNITS]
    ids = np.full(len(texts) + 1, -1, np.int32)
    ids[kept] = np.arange(len(kept))
    renamed = ids[values]
    owners = np.repeat(np.arange(len(lengths)), lengths)[renamed >= 0]
    of_images = Rows(offsets_of(np.bincount(owners, minlength=len(lengths))), renamed[renamed >= 0])
    return UnitTable([texts[unit] for unit in kept], of_images, transpose(of_images, len(kept)))
