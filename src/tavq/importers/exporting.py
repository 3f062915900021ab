"""What every exporter of a folder data set stands on: its interface and what it tells."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from tavq.core.registry import Registry
from tavq.data.folder import Progress


@dataclass(frozen=True)
class ExportSummary:
    """What an export wrote: images by split and files in all; and what it left out, by reason."""

    images: Mapping[str, int]
    files: int
    left_out: Mapping[str, int] = field(default_factory=dict)


class Format:
    """A form in which other projects read a data set."""

    name: ClassVar[str]
    layout: ClassVar[str]
    """Which files it writes, in one line."""

    def run(self, folder: Path, out: Path, shard_size: int, progress: Progress | None = None) -> ExportSummary:
        """Writes the folder data set `folder` to the new folder `out`, all of it or nothing; the same bytes each time.

        A file holds at most `shard_size` images. Raises UsageError when `out` already holds something.
        """
        raise TypeError(f"{type(self).__name__} must define run")


formats: Registry[type[Format]] = Registry("export format", "tavq.importers.targets")
