"""What the annotations of a published data set say of each of its images, gathered entry by entry."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from tavq.data.folder import Progress
from tavq.data.records import SPLITS, NamedBox, Question, Record, usable_text
from tavq.importers.archives import FoundImages
from tavq.importers.importing import ImportSummary
from tavq.importers.published import Published, Segmentations
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

    def caption(self, value: Any, left_out: Counter[str]) -> None:
        """Adds a caption, or counts it where it is no text."""
        text = usable_text(value)
        if text is None or not text.strip(" ."):
            left_out[EMPTY_CAPTION] += 1
        else:
            self.captions.append(text)

    def record(self) -> Record:
        """The record of the image; its segmentation is where one will be, if any is found."""
        return Record(
            f"images/{self.image}",
            self.split,
            tuple(self.captions),
            objects=tuple(self.objects),
            questions=tuple(self.questions),
            segmentation=f"segmentation/{PurePosixPath(self.image).stem}.png",
        )


class RecordBuilders:
    """The drafts of a data set, one an image, in the order in which they were first named."""

    def __init__(self, images: FoundImages) -> None:
        self.images = images
        self.left_out: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self._missing: set[str] = set()
        self._drafts: dict[str, RecordBuilder] = {}

    def __getitem__(self, name: str) -> RecordBuilder:
        return self._drafts[name]

    def add(self, name: str | None, wanted: str, split: str, size: Size | None = None) -> RecordBuilder | None:
        """The draft of the image `name`; None when there is no such image or another split holds it.

        `wanted` is the name by which the annotations know it: each that has no file is counted once.
        """
        if name is None:
            self._missing.add(wanted)
            return None
        draft = self._drafts.setdefault(name, RecordBuilder(name, split, size))
        return draft if draft.split == split else None

    def write(
        self,
        out: Path,
        progress: Progress | None,
        limit: int | None,
        segmentations: Segmentations | None = None,
        classes: Mapping[int, str] | None = None,
    ) -> ImportSummary:
        """Writes the folder data set `out`, split by split; see `Published`."""
        self.left_out[NO_FILE] += len(self._missing)
        self.left_out[NOT_LISTED] += len(self.images) - len(self._drafts)
        drafts = sorted(self._drafts.values(), key=lambda draft: SPLITS.index(draft.split))
        published = Published(
            self.images,
            {draft.image: draft.record() for draft in drafts},
            {draft.image: draft.size for draft in drafts if draft.size is not None},
            left_out=self.left_out,
            told=self.told,
            segmentations=segmentations,
            classes=classes or {},
        )
        return published.write(out, progress, limit)
