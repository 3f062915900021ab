"""The interface of every importer of a published data set."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tavq.core.registry import Registry
from tavq.data.folder import Progress


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote: images by split, the number of captions, other counts; and what it left out, by reason."""

    images: Mapping[str, int]
    captions: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)


class Source(ABC):
    """A published data set that can be converted to a folder data set."""

    name: ClassVar[str]
    layout: ClassVar[str]
    """The files it expects, in one line for the help text."""

    @abstractmethod
    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Import a published data set, completely or not at all.

        Args:
            source: the folder with its files; DataError if they are not arranged as expected.
            out: the folder to write; UsageError if it exists and is not empty.
            progress: called with (done, total).
            limit: the maximum number of images of each split.
        """


sources: Registry[type[Source]] = Registry("data source", "tavq.importers.sources")
