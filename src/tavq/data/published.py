"""From the annotations of a published data set to the records of a folder data set: what all readers do alike.

Annotations come from strangers, too. Whatever of them cannot stand is left out and counted by its reason, and boxes
and segmentations are brought to the size of the picture that is really there.
"""

import math
import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from tavq.core.errors import DataError, UsageError
from tavq.core.files import read_json, write_json
from tavq.data.archives import ARCHIVES, FoundPictures, coco_number, find_places
from tavq.data.folder import Progress
from tavq.data.importing import ImportSummary, new_folder, summarize, write_records
from tavq.data.pictures import MAX_PIXELS, read_shape
from tavq.data.records import SPLITS, NamedBox, Question, Record, usable_text

MAX_OUTSIDE = 1.0
"""Pixels that a box may stand out of its picture, and is then cut; one that stands out further is left out."""

Maps = Callable[[Sequence["Draft"]], Iterator[tuple["Draft", UInt8[np.ndarray, "y x"]]]]
"""The class of each pixel of those drafts' pictures that have one, at the size of their annotation."""


@dataclass
class Draft:
    """One picture and what its annotations say of it, before the picture itself was looked at."""

    picture: str
    split: str
    size: tuple[int, int] | None = None  # (width, height) that boxes refer to; None where they refer to the picture's
    captions: list[str] = field(default_factory=list)
    objects: list[NamedBox] = field(default_factory=list)
    questions: list[Question] = field(default_factory=list)

    def caption(self, value: Any, left_out: Counter[str]) -> None:
        """Adds a caption, or counts it where it is no text."""
        text = usable_text(value)
        if text is None or not text.strip(" ."):
            left_out["captions that are empty or no text"] += 1
        else:
            self.captions.append(text)


class Drafts:
    """The drafts of a data set, one a picture, in the order in which they were first named."""

    def __init__(self, pictures: FoundPictures) -> None:
        self.pictures = pictures
        self.left_out: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.missing: set[str] = set()
        self._drafts: dict[str, Draft] = {}

    def add(self, name: str | None, wanted: str, split: str, size: tuple[int, int] | None = None) -> Draft | None:
        """The draft of the picture `name`; None when there is no such picture or another split holds it.

        `wanted` is the name by which the annotations know it: each that has no file is counted once.
        """
        if name is None:
            self.missing.add(wanted)
            return None
        draft = self._drafts.setdefault(name, Draft(name, split, size))
        return draft if draft.split == split else None

    def write(
        self, out: Path, progress: Progress | None, limit: int | None, maps: Maps | None = None, classes: Any = None
    ) -> ImportSummary:
        """Writes the folder data set `out`, all of it or nothing, with at most `limit` pictures of each split."""
        if not self._drafts:
            places = ", ".join(map(str, self.pictures.places))
            raise DataError(f"None of the {len(self.missing)} pictures that the annotations list is in {places}.")
        chosen = [draft for split in SPLITS for draft in list(self._of(split))[:limit]]
        self.left_out["listed pictures without a file"] += len(self.missing)
        self.left_out["pictures that no annotation lists"] += len(self.pictures) - len(self._drafts)
        self.left_out["pictures beyond the limit"] += len(self._drafts) - len(chosen)
        with new_folder(out) as folder:
            writer = _Writer(folder, chosen, self.left_out, progress)
            writer.copy(self.pictures)
            if maps is not None:
                writer.draw(maps, classes)
            records = writer.finish()
        summary = summarize(records, self.left_out)
        return replace(summary, others={**summary.others, **self.told})

    def _of(self, split: str) -> Iterator[Draft]:
        return (draft for draft in self._drafts.values() if draft.split == split)


class _Writer:
    """Fills the new folder; a part of it is never seen, so that its files are flushed together at the end."""

    def __init__(self, folder: Path, drafts: list[Draft], left_out: Counter[str], progress: Progress | None) -> None:
        self.folder, self.drafts, self.left_out, self.progress = folder, drafts, left_out, progress
        self.shapes: dict[str, tuple[int, int, bool]] = {}
        self.segmentations: dict[str, str] = {}

    def copy(self, pictures: FoundPictures) -> None:
        (self.folder / "images").mkdir()
        for done, (name, data) in enumerate(pictures.contents([draft.picture for draft in self.drafts]), 1):
            path = self.folder / "images" / name
            path.write_bytes(data)
            try:
                self.shapes[name] = read_shape(path)
            except DataError:
                path.unlink()
                self.left_out["pictures that cannot be read"] += 1
            if self.progress:
                self.progress(done, len(self.drafts))

    def draw(self, maps: Maps, classes: Any) -> None:
        (self.folder / "segmentation").mkdir()
        readable = [draft for draft in self.drafts if draft.picture in self.shapes]
        for draft, classes_of_pixels in maps(readable):
            height, width, turned = self.shapes[draft.picture]
            if turned:
                self.left_out["segmentations of pictures that EXIF turns"] += 1
                continue
            name = f"segmentation/{PurePosixPath(draft.picture).stem}.png"
            fitted = Image.fromarray(classes_of_pixels).resize((width, height), Image.Resampling.NEAREST)
            fitted.save(self.folder / name, "PNG")
            self.segmentations[draft.picture] = name
        write_json(self.folder / "segmentation_classes.json", classes)

    def finish(self) -> list[Record]:
        records = [self._record(draft) for draft in self.drafts if draft.picture in self.shapes]
        if not records:
            raise DataError("None of the pictures can be read.")
        for path in [*self.folder.rglob("*")]:
            if path.is_file():
                with open(path, "rb") as file:
                    os.fsync(file.fileno())
        write_records(self.folder, records)
        return records

    def _record(self, draft: Draft) -> Record:
        return Record(
            f"images/{draft.picture}",
            draft.split,
            tuple(draft.captions),
            objects=tuple(self._fitted(draft)),
            questions=tuple(draft.questions),
            segmentation=self.segmentations.get(draft.picture),
        )

    def _fitted(self, draft: Draft) -> Iterator[NamedBox]:
        height, width, turned = self.shapes[draft.picture]
        for thing in draft.objects:
            box = None if turned else fit_box(thing.box, draft.size or (width, height), (width, height))
            if box is not None:
                yield replace(thing, box=box)
            else:
                self.left_out["boxes of pictures that EXIF turns" if turned else "boxes outside of their picture"] += 1


def fit_box(
    box: tuple[float, float, float, float], size: tuple[int, int], into: tuple[int, int]
) -> tuple[float, float, float, float] | None:
    """The box of a picture of one (width, height) in the same picture at another, cut at the edge.

    None where it stands out by more than a pixel of its annotation, or has no area.
    """
    (x, y, w, h), (width, height) = box, size
    if min(x, y) < -MAX_OUTSIDE or x + w > width + MAX_OUTSIDE or y + h > height + MAX_OUTSIDE:
        return None
    across, down = into[0] / width, into[1] / height
    left, top = round(max(x, 0) * across, 2), round(max(y, 0) * down, 2)
    right, bottom = round(min(x + w, width) * across, 2), round(min(y + h, height) * down, 2)
    if right <= left or bottom <= top:
        return None
    return left, top, round(right - left, 2), round(bottom - top, 2)


# --- foreign JSON -----------------------------------------------------------------------------------------------


def read_lists(path: Path, names: Iterable[str], left_out: Counter[str]) -> dict[str, list[dict[str, Any]]]:
    """The named lists of mappings in a JSON file; entries that are no mappings are counted and left out."""
    value = read_json(path)
    lists = {}
    for name in names:
        entries = value.get(name) if isinstance(value, dict) else None
        if not isinstance(entries, list):
            raise DataError(f"{path} has no list {name!r}; expected a mapping that holds one.")
        lists[name] = mappings(entries, left_out)
    return lists


def mappings(entries: Iterable[Any], left_out: Counter[str]) -> list[dict[str, Any]]:
    """The mappings among the entries; the others are counted."""
    entries = list(entries)
    kept = [entry for entry in entries if isinstance(entry, dict)]
    left_out["entries that are no mapping"] += len(entries) - len(kept)
    return kept


def identity(entry: dict[str, Any], name: str) -> int | str | None:
    """The number or text by which entries name each other, or None."""
    value = entry.get(name)
    return value if type(value) in (int, str) else None


def read_size(entry: dict[str, Any], width: str = "width", height: str = "height") -> tuple[int, int] | None:
    """(width, height) of an entry, or None where it gives none that can be."""
    size = entry.get(width), entry.get(height)
    if not all(type(side) is int and side > 0 for side in size) or math.prod(size) > MAX_PIXELS:  # type: ignore[arg-type]
        return None
    return size  # type: ignore[return-value]


def read_box(value: Any) -> tuple[float, float, float, float] | None:
    """Four finite numbers with an area, or None."""
    if not isinstance(value, list | tuple) or len(value) != 4:
        return None
    if not all(isinstance(number, int | float) and abs(number) < 1e9 for number in value) or min(value[2:]) <= 0:
        return None
    x, y, w, h = (float(number) for number in value)
    return x, y, w, h


# --- finding files ----------------------------------------------------------------------------------------------


def check_source(source: Path) -> None:
    """Raises UsageError when there is no such folder."""
    if not source.is_dir():
        raise UsageError(f"There is no folder {source}; give the folder that holds the published data set.")


def find_pictures(source: Path, names: Sequence[str]) -> FoundPictures:
    """The pictures in those of the folders `names`, or of the archives of these names, that are in `source`."""
    places = find_places(source, names)
    if not places:
        looked = f"the folders {', '.join(names)} and archives of these names ({', '.join(ARCHIVES)})"
        raise DataError(f"There are no pictures in {source}: {looked} were looked for.")
    return FoundPictures(places)


def find_coco_pictures(source: Path, names: Sequence[str]) -> FoundPictures:
    """The pictures in COCO's folders or archives `names`, in `source` or its images/; else in whatever images* is."""
    named = [f"{at}{name}" for at in ("", "images/") for name in names]
    return find_pictures(source, named if find_places(source, named) else [*named, "images*"])


def coco_picture(pictures: FoundPictures, name: str) -> str | None:
    """The file `name`, else the one of the same COCO number: 2014 and 2017 hold the same pictures by other names."""
    number = coco_number(name)
    return name if name in pictures else None if number is None else pictures.by_number.get(number)


def first_file(source: Path, names: Iterable[str], folders: Sequence[str] = ("", "annotations")) -> Path | None:
    """The first of the files `names` that is in `source` or one of its folders."""
    return next((source / at / name for name in names for at in folders if (source / at / name).is_file()), None)
