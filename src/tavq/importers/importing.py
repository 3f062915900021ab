"""What every importer of a published data set is: its interface and what it tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tavq.core.registry import Registry
from tavq.data.folder import Progress


@dataclass(frozen=True)
class ImportSummary:
    """What an import wrote: images by split and captions in all; what it left out, by reason; what else there is."""

    images: Mapping[str, int]
    captions: int
    left_out: Mapping[str, int] = field(default_factory=dict)
    others: Mapping[str, int] = field(default_factory=dict)


class Source:
    """A published data set that can be turned into a folder data set."""

    name: ClassVar[str]
    layout: ClassVar[str]
    """Which files it looks for, in one line for the help text."""

    def run(self, source: Path, out: Path, progress: Progress | None = None, limit: int | None = None) -> ImportSummary:
        """Writes the data set in `source` to the new folder `out`, all of it or nothing.

        `limit` takes at most that many images of each split. Raises DataError when `source` is not laid out as
        expected, UsageError when `out` already holds something.
        """
        raise TypeError(f"{type(self).__name__} must define run")


sources: Registry[type[Source]] = Registry("data source", "tavq.importers.sources")
