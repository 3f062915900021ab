"""A published data set of which every image was found and every annotation read: what is left is to take it in."""

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
"""Gives the PNGs of the classes of the named images, of those that have one, in any order."""


@dataclass
class PublishedDataset:
    """Images that are there, by the names that `images` has for them, and what is known of each.

    They are written in the order of `records`, read in that in which they lie. Boxes and segmentations refer to the
    stored pixels, at the image's size in `sizes` where it is given there. The `segmentation` of a record is where it
    goes; a record whose image has none loses it.
    """

    images: ImageFiles
    records: Mapping[str, Record]
    sizes: Mapping[str, Size] = field(default_factory=dict)
    left_out: Counter[str] = field(default_factory=Counter)
    others: Counter[str] = field(default_factory=Counter)
    """What else the summary is to count."""
    segmentations: Segmentations | None = None
    classes: Mapping[int, str] = field(default_factory=dict)

    def write(self, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the folder data set `out`, all of it or nothing, with at most `limit` images of each split."""
        if not self.records:
            places = ", ".join(map(str, self.images.places))
            reasons = explain_left_out(self.left_out)
            raise DataError(f"None of the images that the annotations list is in {places}{reasons}.")
        chosen = self._chosen(limit)
        self.left_out[BEYOND_LIMIT] += len(self.records) - len(chosen)
        with create_dataset(out, left_out=self.left_out) as writer:
            segmented = self._write_segmentations(writer, list(chosen))
            order = []
            for done, (name, data) in enumerate(self.images.contents(chosen.keys()), 1):
                record = self.records[name]
                record = record if name in segmented else replace(record, segmentation=None)
                if writer.add(record, data, self.sizes.get(name), upright=False):
                    order.append(chosen[name])
                if progress:
                    progress(done, len(chosen))
            writer.others.update(self.others)
            return writer.finish(self.classes, order)

    def _chosen(self, limit: int | None) -> dict[str, int]:
        """The first images of each split with their places."""
        taken: Counter[str] = Counter()
        chosen = {}
        for place, (name, record) in enumerate(self.records.items()):
            taken[record.split] += 1
            if limit is None or taken[record.split] <= limit:
                chosen[name] = place
        return chosen

    def _write_segmentations(self, writer: DatasetWriter, chosen: Sequence[str]) -> set[str]:
        """Puts the segmentations where they go, before the images come; the names of the images that have one."""
        if self.segmentations is None:
            return set()
        return {
            name
            for name, data in self.segmentations(chosen)
            if writer.write_segmentation(self.records[name].segmentation, data)
        }
