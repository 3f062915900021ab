"""What a folder without metadata.jsonl at its top holds: images, and metadata in its folders, as imagefolder has it.

Source: the layout `imagefolder` of Hugging Face's package datasets. Metadata in a folder describe the images under it,
and folders named train, validation and test are splits. Differs from it: folders are splits only if one of them is for
training; names of classes are not read.
"""

import os
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tavq.core.errors import FileError
from tavq.core.inside import resolve_inside
from tavq.data.characters import UNPRINTABLE
from tavq.data.foreign_files import find_published, find_written_link
from tavq.data.images import SUFFIXES, UNREAD_SUFFIXES
from tavq.data.own_output import DECODED_MARK, RUN_IMAGES, is_own_output, is_run_folder
from tavq.data.records import Fault, Faults

METADATA_FILES = ("metadata.jsonl", "metadata.csv")
"""Of several in one folder the first is read."""

UNREAD_METADATA = ("metadata.parquet", "metadata.json", "metadata.tsv")

TRAINING = frozenset({"train", "training"})
SPLIT_FOLDERS = dict.fromkeys(TRAINING, "train") | dict.fromkeys(("validation", "valid", "dev", "val"), "val")
SPLIT_FOLDERS |= dict.fromkeys(("test", "testing", "eval", "evaluation"), "test")


@dataclass(frozen=True)
class Found:
    """An image, or a file of metadata: its path in the data set, and the split of its folder."""

    name: str
    split: str
    is_metadata: bool = False

    @property
    def parent(self) -> str:
        """The folder with a slash at its end, or "" for the data set itself."""
        return self.name[: self.name.rfind("/") + 1]


def find_metadata(folder: Path) -> Found | None:
    """The metadata at the top of a data set, if there are any."""
    names = [name for name in METADATA_FILES if (folder / name).exists()]
    return Found(names[0], "train", is_metadata=True) if names else None


def list_folder(folder: Path, faults: Faults) -> Iterator[Found]:
    """Yield the images and the metadata of a folder in the order of their names; metadata stand for all below them.

    What tavq wrote is passed over: a run inside a folder of images would add its samples to the data, and could not be
    resumed because these are others now. Files that look like images or metadata and are not read become faults that
    cost no image.
    """
    lister = _Lister(folder, faults)
    yield from lister.walk("", None)
    for suffix, count in sorted(lister.unread.items()):
        faults.add([Fault(f"*{suffix}", f"{count:,} images of this kind are not read; convert them to JPEG or PNG")])


@dataclass
class _Lister:
    folder: Path
    faults: Faults
    unread: Counter[str] = field(default_factory=Counter)

    def walk(self, parent: str, split: str | None) -> Iterator[Found]:
        """What is under one folder; only the names in one folder of each depth are in memory at a time."""
        pending = [self._entries(parent, split)]  # not a recursion, which Python allows for a thousand folders only
        while pending:
            entry = next(pending[-1], None)
            if entry is None:
                pending.pop()
            elif isinstance(entry, Found):
                yield entry
            else:
                pending.append(self._entries(*entry))

    def _entries(self, parent: str, split: str | None) -> Iterator["Found | tuple[str, str | None]"]:
        """What is in one folder; for a folder in it the arguments of another call."""
        names = self._names(parent)
        if parent and (is_own_output(names) or (self.folder / parent / DECODED_MARK).is_file()):
            return
        metadata = [name for name in METADATA_FILES if name in names]
        if metadata:
            yield Found(parent + metadata[0], split or "train", is_metadata=True)
            return
        self._report_unread_metadata(parent, names)
        has_splits = not parent and any(name.removesuffix("/").lower() in TRAINING for name in names if name[-1] == "/")
        for name in names:
            if name.endswith("/"):
                below = SPLIT_FOLDERS.get(name.removesuffix("/").lower()) if has_splits else split
                yield parent + name, below
            suffix = Path(name).suffix.lower()
            if suffix in SUFFIXES and self._is_usable(parent + name.removesuffix("/")):
                yield Found(parent + name.removesuffix("/"), split or "train")
            elif suffix in UNREAD_SUFFIXES:
                self.unread[suffix] += 1
            elif suffix not in SUFFIXES and name[-1] != "/":
                self._report_foreign(parent, name)

    def _names(self, parent: str) -> list[str]:
        """The visible names in a folder; a slash follows those of folders."""
        with os.scandir(self.folder / parent) as entries:
            visible = [entry for entry in entries if not entry.name.startswith(".")]
            # the slash sorts a folder's images where their full paths belong: `b-1/x.png`, `b.png`, `b/c.png`
            return sorted(f"{entry.name}/" if self._is_folder(parent, entry) else entry.name for entry in visible)

    def _is_folder(self, parent: str, entry: "os.DirEntry[str]") -> bool:
        """Whether an entry is a folder to be walked; a link is one if what it leads to is not walked anyway."""
        if not entry.is_symlink() or not os.path.isdir(entry.path):  # a link to itself is none
            return os.path.isdir(entry.path)
        try:
            target = resolve_inside(self.folder, parent + entry.name)
        except FileError:
            reason = "this link leads to a folder outside the data set, whose images are not read; move or copy it here"
            self.faults.add([Fault(ascii(parent + entry.name).strip("'"), reason)])
            return False
        return any(part.startswith(".") for part in target.relative_to(self.folder.resolve()).parts)

    def _is_usable(self, name: str) -> bool:
        if not self._is_data(name):
            return False
        # no line of metadata.jsonl could hold it, and half of a surrogate pair cannot be written as UTF-8
        reason = "the name contains control characters or invalid Unicode; rename the file"
        if not UNPRINTABLE.search(name):
            try:
                return resolve_inside(self.folder, name).is_file()
            except FileError:
                reason = "the path leads outside the data set"
        self.faults.add([Fault(ascii(name), reason, "train", costs_image=True)])
        return False

    def _is_data(self, name: str) -> bool:
        return not (RUN_IMAGES.fullmatch(name) and is_run_folder(self.folder))

    def _report_unread_metadata(self, parent: str, names: list[str]) -> None:
        reason = "it is not read; write metadata.jsonl or metadata.csv, or import with: tavq data import huggingface"
        self.faults.add(Fault(parent + name, reason) for name in UNREAD_METADATA if name in names)

    def _report_foreign(self, parent: str, name: str) -> None:
        """Name a file that is neither an image nor metadata, but known to be part of a data set."""
        target = find_written_link(self.folder / parent / name)
        if target is not None:
            reason = f"it is a text that names the folder {target!r}, as Git writes a link where links are turned off"
            self.faults.add([Fault(parent + name, f"{reason}; make it a link, or copy the folder here")])
        kind = find_published(name)
        if kind is not None:
            reason = f"it is not read; this data set of others is imported with: tavq data import {kind}"
            self.faults.add([Fault(parent + name, reason)])
