"""WebDataset shards: tar files in which the members with one key (the name up to its first dot) form a sample."""

import contextlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tavq.data.images import SUFFIXES
from tavq.importers.tars import MAX_IMAGE_FILE, iter_members

JSON, TEXT, SEGMENTATION = "json", "txt", "seg.png"
MAX_TEXT_FILE = 10_000_000  # bytes of a json or txt member


@dataclass
class Sample:
    """The members with one key: the first image, json, text and segmentation; all others are skipped."""

    key: str
    suffix: str | None = None  # of the image, with the dot
    image: bytes | None = None
    parts: dict[str, bytes] = field(default_factory=dict)  # by JSON, TEXT, SEGMENTATION
    too_large: int = 0  # members that were skipped because of their size


def split_member_name(name: str) -> tuple[str, str] | None:
    """Split `a.b/000.seg.png` into the key `a.b/000` and the extension `seg.png`; None if a name lacks one of them."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if stem and extension else None


def read_samples(path: Path) -> Iterator[Sample]:
    """Iterate over the samples of a shard; DataError where a truncated shard ends.

    Yields a sample when it is complete, so not the last one of a truncated shard.
    """
    sample = None
    for name, size, read in iter_members(path):
        parts = split_member_name(name)
        if parts is None:
            continue
        key, extension = parts
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        is_image = f".{extension}" in SUFFIXES
        max_size = MAX_IMAGE_FILE if is_image or extension == SEGMENTATION else MAX_TEXT_FILE
        if size > max_size:
            sample.too_large += is_image or extension in (JSON, TEXT, SEGMENTATION)
        elif is_image and sample.image is None:
            sample.suffix, sample.image = f".{extension}", read()
        elif extension in (JSON, TEXT, SEGMENTATION) and extension not in sample.parts:
            sample.parts[extension] = read()
    if sample is not None:
        yield sample


class SampleWriter:
    """Writes samples to `NAME-000000.tar`, `NAME-000001.tar`, ...; the same samples give the same bytes.

    Not atomic: write into a folder that appears only when it is complete (`core.files.create_folder`).

    Args:
        folder: where the shards go.
        name: of the shards.
        size: the number of samples in a shard.
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.folder, self.name, self.size = folder, name, size
        self.samples = self.shards = 0
        self._open = contextlib.ExitStack()
        self._archive: tarfile.TarFile | None = None

    def write(self, key: str, members: dict[str, bytes]) -> None:
        """Add a sample; `members` by their extension without its dot."""
        if self._archive is None or self.samples % self.size == 0:
            self.close()
            path = self.folder / f"{self.name}-{self.shards:06d}.tar"
            self._archive = self._open.enter_context(tarfile.TarFile(path, "w", format=tarfile.PAX_FORMAT))
            self.shards += 1
        for extension, data in members.items():
            member = tarfile.TarInfo(f"{key}.{extension}")  # owner and time stay 0, so that the bytes repeat
            member.size = len(data)
            self._archive.addfile(member, io.BytesIO(data))
        self._archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps every member
        self.samples += 1

    def close(self) -> None:
        """Finish the current shard, if any."""
        self._open.close()
        self._archive = None
