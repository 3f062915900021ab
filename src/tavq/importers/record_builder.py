"""Gathering records from the annotations of a published data set, entry by entry."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.data.folder import Progress
from tavq.data.records import MAX_TEXT, SPLITS, NamedBox, Question, Record, clean_text
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary
from tavq.importers.published import PublishedDataset, Segmentations
from tavq.importers.reasons import EMPTY_CAPTION, LONG_CAPTION, NO_FILE, NOT_LISTED
from tavq.importers.rescaling import Size


@dataclass
class RecordBuilder:
    """The annotations of one image, before the image itself is read."""

    image: str
    split: str
    size: Size | None = None  # that boxes refer to; None for the size of the image file
    captions: list[str] = field(default_factory=list)
    objects: list[NamedBox] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def add_caption(self, value: Any, left_out: Counter[str]) -> None:
        """Add a caption, or count it if it is empty, too long or not text."""
        text = clean_text(value)
        if isinstance(value, str) and len(value) > MAX_TEXT:
            left_out[LONG_CAPTION] += 1
        elif text is None or not text.strip(" ."):
            left_out[EMPTY_CAPTION] += 1
        else:
            self.captions.append(text)

    def build(self) -> Record:
        """Build the record; its segmentation is the path to write one to, if one is found."""
        return Record(
            f"images/{self.image}",
            self.split,
            tuple(self.captions),
            objects=tuple(self.objects),
            questions=tuple(self.questions),
            segmentation=f"segmentation/{PurePosixPath(self.image).stem}.png",
        )


class DatasetBuilder:
    """A RecordBuilder for each image of a data set, in the order in which annotations first name them."""

    def __init__(self, images: ImageFiles) -> None:
        self.images = images
        self.left_out: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self._missing: set[str] = set()
        self._builders: dict[str, RecordBuilder] = {}

    def __getitem__(self, name: str) -> RecordBuilder:
        return self._builders[name]

    def add(self, name: str | None, wanted: str, split: str, size: Size | None = None) -> RecordBuilder | None:
        """The RecordBuilder of an image; None if it has no file or belongs to another split.

        Args:
            name: of the image file; None if there is none.
            wanted: the name in the annotations; each one without a file is counted once.
            split: of the image.
            size: of the image that the annotations refer to.
        """
        if name is None:
            self._missing.add(wanted)
            return None
        builder = self._builders.setdefault(name, RecordBuilder(name, split, size))
        return builder if builder.split == split else None

    def write(
        self,
        out: Path,
        progress: Progress | None,
        limit: int | None,
        segmentations: Segmentations | None = None,
        classes: Mapping[int, str] | None = None,
    ) -> ImportSummary:
        """Write the folder data set `out`, split by split.

        Args:
            out: the folder.
            progress: called with (done, total).
            limit: the maximum number of images of each split.
            segmentations: iterates over the label maps.
            classes: the names of their classes.
        """
        self.left_out[NO_FILE] += len(self._missing)
        self.left_out[NOT_LISTED] += len(self.images) - len(self._builders)
        builders = sorted(self._builders.values(), key=lambda builder: SPLITS.index(builder.split))
        sizes = {builder.image: builder.size for builder in builders if builder.size is not None}
        published = PublishedDataset(
            self.images,
            {builder.image: builder.build() for builder in builders},
            sizes,
            left_out=self.left_out,
            others=self.others,
            segmentations=segmentations,
            classes=classes or {},
        )
        return published.write(out, progress, limit)
