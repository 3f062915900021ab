"""The store of statistics of one model on one data set: mapped, sealed by hashes, and resumed."""

import hashlib
import json
from pathlib import Path
from typing import Literal

from pydantic import Field

from tavq.core.addresses import cache_folder
from tavq.core.config import Config
from tavq.core.errors import FileError
from tavq.core.files import check_sha256, read_manifest
from tavq.core.mmap_tensors import MappedTensors
from tavq.explore.answers.base import HeldOutScore, Level

FORMAT: Literal[2] = 2
"""2: labels are those that are tested; stores of format 1 have other keys and are counted again."""

MANIFEST, GRIDS, TABLES = "explore.json", "grids.safetensors", "tables.safetensors"
"""Files of a store: what it holds, the grids of all images, and what was counted from them."""

PROGRESS = "progress.json"
"""How far the grids are written, while they are."""

LOCK = "lock"
COMMAND = "tavq explore MODEL --data DATA"
"""Builds a store."""


class Source(Config):
    """What a store was made of; a store of anything else is not used."""

    format: Literal[2] = FORMAT
    model: str
    """The SHA-256 of the model's weights."""
    size: int = Field(ge=1, le=4096)
    """Side of the images in pixels."""
    data: str
    """The fingerprint of the data set."""
    split: str | None
    images: int = Field(ge=1)
    text: str
    """Where the units of text come from; empty without text."""

    @property
    def key(self) -> str:
        """A short name of the store."""
        text = json.dumps(self.model_dump(mode="json"), sort_keys=True)
        return f"{self.model[:8]}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"


class LevelShape(Config):
    """The grid of a level."""

    name: Level
    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    sizes: tuple[int, ...] = Field(min_length=1)
    """Entries of each part of its codebook."""

    @property
    def parts(self) -> int:
        """Codes of a position."""
        return len(self.sizes)

    @property
    def cells(self) -> int:
        """Positions of an image."""
        return self.height * self.width

    @property
    def entries(self) -> int:
        """k, the entries of all parts."""
        return sum(self.sizes)


class StoredFile(Config):
    """Size and hash of a file."""

    bytes: int
    sha256: str


class Manifest(Config):
    """`explore.json`, written last: a folder without it is not finished."""

    format: Literal[2]
    source: Source
    tavq: str
    levels: tuple[LevelShape, ...]
    unreadable: int = Field(ge=0)
    held_out: tuple[HeldOutScore, ...]
    files: dict[str, StoredFile]


class StatisticsStore:
    """A finished store. Opening reads the manifest and headers; arrays are mapped."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        self.folder, self.manifest = folder, manifest
        self.grids, self.tables = MappedTensors(folder / GRIDS), MappedTensors(folder / TABLES)

    @classmethod
    def open(cls, folder: Path, source: Source, verify: bool = True) -> "StatisticsStore":
        """Open the store in `folder`, which must be of `source`; `verify` checks the hashes of its files.

        Raises:
            FileError: a file is missing, truncated, altered or from another version, or the store is of another model,
                data set or text.
        """
        manifest = read_manifest(folder / MANIFEST, Manifest, FORMAT, "store of statistics", COMMAND)
        if manifest.source != source:
            found, asked = manifest.source.model_dump(), source.model_dump()
            different = ", ".join(name for name in asked if asked[name] != found[name])
            raise FileError(
                f"The store {folder} is of another {different}; remove it, or choose another folder with --store."
            )
        for name in (GRIDS, TABLES):
            _check_file(folder / name, manifest.files.get(name), verify)
        return cls(folder, manifest)


def _check_file(path: Path, stored: StoredFile | None, verify: bool) -> None:
    remedy = f"remove the folder {path.parent} to count again"
    if stored is None or not path.is_file():
        raise FileError(f"{path} is missing; {remedy}.")
    if path.stat().st_size != stored.bytes:
        raise FileError(f"{path} was cut or altered: {path.stat().st_size} bytes, expected {stored.bytes}; {remedy}.")
    if verify:
        check_sha256(path, stored.sha256)


def is_finished(folder: Path) -> bool:
    """Whether a folder holds a finished store, intact or damaged."""
    return (folder / MANIFEST).is_file()


def default_folder() -> Path:
    """Where stores are kept by default: `explore` in the folder of what can be made again."""
    return cache_folder() / "explore"
