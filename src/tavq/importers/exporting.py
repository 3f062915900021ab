"""The interface of every exporter of a folder data set."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tavq.core.registry import Registry
from tavq.data.folder import Progress


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote: images by split and the number of files; and what it left out, by reason."""

    images: Mapping[str, int]
    files: int
    left_out: Mapping[str, int] = field(default_factory=dict)


class Format(ABC):
    """A format in which other projects read a data set."""

    name: ClassVar[str]
    layout: ClassVar[str]
    """The files it writes, in one line for the help text."""

    @abstractmethod
    def run(self, folder: Path, out: Path, shard_size: int, progress: Progress | None = None) -> ExportSummary:
        """Export a folder data set, completely or not at all; the same data set gives the same bytes.

        Args:
            folder: the data set.
            out: the folder to write; UsageError if it exists and is not empty.
            shard_size: the maximum number of images in a file.
            progress: called with (done, total).
        """


formats: Registry[type[Format]] = Registry("export format", "tavq.importers.targets")
