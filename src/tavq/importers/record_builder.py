"""What the annotations of a published data set say of each of its images, gathered entry by entry."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.data.folder import Progress
from tavq.data.records import SPLITS, NamedBox, Question, Record, clean_text
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary
from tavq.importers.published import PublishedDataset, Segmentations
from tavq.importers.reasons import EMPTY_CAPTION, NO_FILE, NOT_LISTED
from tavq.importers.rescaling import Size


@dataclass
class RecordBuilder:
    """One image and what its annotations say of it, before the image itself was looked at."""

    image: str
    split: str
    size: Size | None = None  # that boxes refer to; None where they refer to the image's
    captions: list[str] = field(default_factory=list)
    objects: list[NamedBox] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def add_caption(self, value: Any, left_out: Counter[str]) -> None:
        """Adds a caption, or counts it where it is no text."""
        text = clean_text(value)
        if text is None or not text.strip(" ."):
            left_out[EMPTY_CAPTION] += 1
        else:
            self.captions.append(text)

    def build(self) -> Record:
        """The record of the image; its segmentation is where one will be, if any is found."""
        return Record(
            f"images/{self.image}",
            self.split,
            tuple(self.captions),
            objects=tuple(self.objects),
            questions=tuple(self.questions),
            segmentation=f"segmentation/{PurePosixPath(self.image).stem}.png",
        )


class DatasetBuilder:
    """The drafts of a data set, one an image, in the order in which they were first named."""

    def __init__(self, images: ImageFiles) -> None:
        self.images = images
        self.left_out: Counter[str] = Counter()
        self.others: Counter[str] = Counter()
        self._missing: set[str] = set()
        self._builders: dict[str, RecordBuilder] = {}

    def __getitem__(self, name: str) -> RecordBuilder:
        return self._builders[name]

    def add(self, name: str | None, wanted: str, split: str, size: Size | None = None) -> RecordBuilder | None:
        """The draft of the image `name`; None when there is no such image or another split holds it.

        `wanted` is the name by which the annotations know it: each that has no file is counted once.
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
        """Writes the folder data set `out`, split by split; see `PublishedDataset`."""
        self.left_out[NO_FILE] += len(self._missing)
        self.left_out[NOT_LISTED] += len(self.images) - len(self._builders)
        dataset = sorted(self._builders.values(), key=lambda builder: SPLITS.index(builder.split))
        published = PublishedDataset(
            self.images,
            {builder.image: builder.build() for builder in dataset},
            {builder.image: builder.size for builder in dataset if builder.size is not None},
            left_out=self.left_out,
            others=self.others,
            segmentations=segmentations,
            classes=classes or {},
        )
        return published.write(out, progress, limit)
