"""Where the files of a data set are: in a folder, or in shards. Nothing else knows the difference."""

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

from tavq.core.inside import resolve_inside


@runtime_checkable
class Storage(Protocol):
    """Finds the images and segmentations of a data set by name; a copy lives in each worker."""

    def file(self, name: str) -> "DataFile":
        """The file of an image or segmentation; FileError if the data set cannot have one of this name."""
        ...


@runtime_checkable
class Reads(Protocol):
    """Reads a file by its name."""

    def read(self, name: str) -> bytes: ...


@dataclass(frozen=True)
class StoredFile:
    """A file inside another one, such as a member of a shard."""

    storage: Reads
    name: str

    def read_bytes(self) -> bytes:
        """Its bytes; StorageError where the storage fails."""
        return self.storage.read(self.name)

    def __str__(self) -> str:
        return self.name


DataFile = Path | StoredFile
"""What the functions of `data.images` read; both have `read_bytes`, and their text is their name in errors."""


@dataclass(frozen=True)
class FolderStorage:
    """The files of a folder."""

    folder: Path

    def file(self, name: str) -> Path:
        """The path of a file; FileError if it is outside the folder.

        Links are followed each time, because one may have been created since the metadata were read.
        """
        return resolve_inside(self.folder, name)
