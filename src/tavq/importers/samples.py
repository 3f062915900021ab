"""WebDataset shards: tar files in which members of one key, up to the first dot of the base name, are one sample."""

import contextlib
import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tavq.data.images import SUFFIXES
from tavq.importers.tars import MAX_IMAGE_FILE, stream

JSON, TEXT, SEGMENTATION = "json", "txt", "seg.png"
MAX_TEXT_FILE = 10_000_000  # bytes of a json or txt member


@dataclass
class Sample:
    """The members of one key: the first image, json, text and segmentation; all others are passed by."""

    key: str
    suffix: str | None = None  # of the image, with its dot
    image: bytes | None = None
    parts: dict[str, bytes] = field(default_factory=dict)  # by JSON, TEXT, SEGMENTATION
    too_large: int = 0  # members that were not read for their size


def split_name(name: str) -> tuple[str, str] | None:
    """`a.b/000.seg.png` as the key `a.b/000` and the extension `seg.png`; None where a name has not both."""
    folder, slash, base = name.rpartition("/")
    stem, _, extension = base.partition(".")
    return (f"{folder}{slash}{stem}", extension.lower()) if stem and extension else None


def read_samples(path: Path) -> Iterator[Sample]:
    """The samples of a shard in their order; DataError at the place where the shard is cut.

    A sample is given out when it is whole: the last one before a cut is not.
    """
    sample = None
    for name, size, read in stream(path):
        named = split_name(name)
        if named is None:
            continue
        key, extension = named
        if sample is None or sample.key != key:
            if sample is not None:
                yield sample
            sample = Sample(key)
        is_image = f".{extension}" in SUFFIXES
        if size > (MAX_IMAGE_FILE if is_image or extension == SEGMENTATION else MAX_TEXT_FILE):
            sample.too_large += is_image or extension in (JSON, TEXT, SEGMENTATION)
        elif is_image and sample.image is None:
            sample.suffix, sample.image = f".{extension}", read()
        elif extension in (JSON, TEXT, SEGMENTATION) and extension not in sample.parts:
            sample.parts[extension] = read()
    if sample is not None:
        yield sample


class SampleWriter:
    """Writes samples to `NAME-000000.tar`, `NAME-000001.tar`, ... with so many in each; the same give the same bytes.

    For use in a folder that nobody sees before it is whole (`core.files.new_folder`).
    """

    def __init__(self, folder: Path, name: str, size: int) -> None:
        self.folder, self.name, self.size = folder, name, size
        self.samples = self.shards = 0
        self._open = contextlib.ExitStack()
        self._archive: tarfile.TarFile | None = None

    def write(self, key: str, members: dict[str, bytes]) -> None:
        """Adds a sample; `members` by their extension, without a dot in front."""
        if self._archive is None or self.samples % self.size == 0:
            self.close()
            path = self.folder / f"{self.name}-{self.shards:06d}.tar"
            self._archive = self._open.enter_context(tarfile.TarFile(path, "w", format=tarfile.PAX_FORMAT))
            self.shards += 1
        for extension, data in members.items():
            member = tarfile.TarInfo(f"{key}.{extension}")  # owner 0, time 0
            member.size = len(data)
            self._archive.addfile(member, io.BytesIO(data))
        self._archive.members.clear()  # type: ignore[attr-defined]  # tarfile keeps them all
        self.samples += 1

    def close(self) -> None:
        """Ends the shard that is open, if any."""
        self._open.close()
        self._archive = None
