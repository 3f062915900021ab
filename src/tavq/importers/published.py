"""A published data set whose images were found and whose annotations were read, ready to be written."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from tavq.core.errors import DataError
from tavq.data.folder import Progress
from tavq.data.records import Record
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary
from tavq.importers.reasons import BEYOND_LIMIT
from tavq.importers.rescaling import Size
from tavq.importers.writer import DatasetWriter, create_dataset, explain_left_out

Segmentations = Callable[[Sequence[str]], Iterable[tuple[str, bytes]]]
"""Iterates over (image name, PNG of its label map) for those of the named images that have one, in any order."""


@dataclass
class PublishedDataset:
    """Existing images and their records, by the names that `images` uses.

    Images are read in the order in which they are stored, and written in the order of `records`. Boxes and
    segmentations refer to the stored pixels (before EXIF), at the image's size in `sizes` if it is given. The
    `segmentation` of a record is the path to write it to; a record whose image has none loses it.
    """

    images: ImageFiles
    records: Mapping[str, Record]
    sizes: Mapping[str, Size] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    """Other counts for the summary."""
    segmentations: Segmentations | None = None
    classes: Mapping[int, str] = field(default_factory=dict)

    def write(self, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Write the folder data set `out`, completely or not at all, with at most `limit` images of each split."""
        if not self.records:
            locations = ", ".join(map(str, self.images.locations))
            reasons = explain_left_out(self.left_out)
            raise DataError(f"None of the images that the annotations list is in {locations}{reasons}.")
        chosen = self._choose(limit)
        self.left_out[BEYOND_LIMIT] += len(self.records) - len(chosen)
        with create_dataset(out, left_out=self.left_out) as writer:
            segmented = self._write_segmentations(writer, list(chosen))
            positions = []
            for done, (name, data) in enumerate(self.images.read(chosen.keys()), 1):
                record = self.records[name]
                record = record if name in segmented else replace(record, segmentation=None)
                if writer.add(record, data, self.sizes.get(name), upright=False):
                    positions.append(chosen[name])
                if progress:
                    progress(done, len(chosen))
            writer.others.update(self.others)
            return writer.finish(self.classes, positions)

    def _choose(self, limit: int | None) -> dict[str, int]:
        """The first `limit` images of each split and their positions in `records`."""
        counts: Counter[str] = Counter()
        chosen = {}
        for position, (name, record) in enumerate(self.records.items()):
            counts[record.split] += 1
            if limit is None or counts[record.split] <= limit:
                chosen[name] = position
        return chosen

    def _write_segmentations(self, writer: DatasetWriter, chosen: Sequence[str]) -> set[str]:
        """Write the segmentations, before the images; return the names of the images that have one."""
        if self.segmentations is None:
            return set()
        return {
            name
            for name, data in self.segmentations(chosen)
            if writer.write_segmentation(self.records[name].segmentation, data)
        }
