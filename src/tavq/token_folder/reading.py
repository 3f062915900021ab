"""Reads a folder of token shards in place: a data set for PyTorch, with random access and nothing copied."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor
from torch.utils.data import Dataset

from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_manifest
from tavq.core.inside import resolve_inside
from tavq.data.records import SPLITS
from tavq.token_folder.manifest import COMMAND, FORMAT, KIND, MANIFEST, Manifest
from tavq.token_folder.shard import Shard


class TokenItem(TypedDict):
    """An image of a `TokenShards`.

    `key` is its file name, `split` is train, val or test, and `indices` is int64 [h w], or [h w c] for c > 1 parts.
    """

    key: str
    split: str
    indices: Tensor


class TokenShards(Dataset[TokenItem]):
    """The images of a folder that `tavq encode --shard-size` wrote, in the order of the data set.

    Shards are memory-mapped when an image of them is read first; of each image 21 bytes are held at most. It may be
    given to a DataLoader with workers: a copy in another process holds the folder's name and opens it there.

    Args:
        folder: the folder.
        split: only the images of this split.
        verify: check the SHA-256 of every shard, which reads them once.

    Raises:
        UsageError: there is no such folder or no image of the split.
        FileError: a shard is missing or damaged, or the folder is not complete.
    """

    def __init__(self, folder: str | Path, split: str | None = None, verify: bool = True) -> None:
        self.folder, self.only = Path(folder), split
        if split not in (None, *SPLITS):
            raise UsageError(f"Unknown split {split!r}; known: {', '.join(SPLITS)}.")
        self.manifest = read_folder(self.folder)
        self._shards: dict[int, Shard] = {}
        for number, note in enumerate(self.manifest.shards):
            self._check_size(resolve_inside(self.folder, note.file), note.bytes)
            if verify:
                self._shards[number] = Shard(self.folder / note.file, verify=True)
        counts = [note.images for note in self.manifest.shards]
        self._starts = np.cumsum([0, *counts])
        self._chosen = None if split is None else self._of_split(SPLITS.index(split))
        if not len(self):
            raise UsageError(f"{self.folder} holds no image{'' if split is None else f' of the split {split!r}'}.")

    @staticmethod
    def _check_size(path: Path, expected: int) -> None:
        actual = path.stat().st_size if path.is_file() else None
        if actual is None:
            raise FileError(f"{path} is missing; encode it again with --resume.")
        if actual != expected:
            raise FileError(f"{path} was cut or altered: {actual:,} bytes, expected {expected:,}.")

    def _of_split(self, code: int) -> np.ndarray:
        own = [self._starts[n] + np.flatnonzero(self._shard(n).splits == code) for n in range(len(self._starts) - 1)]
        return np.concatenate(own)

    def _shard(self, number: int) -> Shard:
        if number not in self._shards:
            note = self.manifest.shards[number]
            found = Shard(self.folder / note.file)
            if found.settings != self.manifest.settings or found.number != number or len(found) != note.images:
                raise FileError(f"{found.path} is not the shard that {self.folder / MANIFEST} names.")
            self._shards[number] = found
        return self._shards[number]

    @property
    def entries(self) -> tuple[int, ...]:
        """Entries of each part of the codebook."""
        return self.manifest.settings.entries

    def __len__(self) -> int:
        return int(self._starts[-1]) if self._chosen is None else len(self._chosen)

    def __getitem__(self, index: int) -> TokenItem:
        return self.__getitems__([index])[0]

    def __getitems__(self, indices: Sequence[int]) -> list[TokenItem]:
        """Several images at once, as a DataLoader asks for a batch; those of one shape are unpacked together."""
        positions = self._positions(indices)
        numbers = np.searchsorted(self._starts, positions, "right") - 1
        found: list[TokenItem | None] = [None] * len(indices)
        for number in np.unique(numbers):
            shard = self._shard(int(number))
            here = np.flatnonzero(numbers == number)
            local = positions[here] - self._starts[number]
            for slots, images in _by_shape(shard, here, local):
                grids = torch.from_numpy(shard.indices(images).astype(np.int64))
                for slot, image, grid in zip(slots.tolist(), images.tolist(), grids, strict=True):
                    found[slot] = {"key": shard.key(image), "split": shard.split(image), "indices": grid}
        return [item for item in found if item is not None]

    def _positions(self, indices: Sequence[int]) -> np.ndarray:
        asked, count = np.asarray(indices, np.int64), len(self)
        if len(asked) and not -count <= int(asked.min()) <= int(asked.max()) < count:
            raise IndexError(f"The folder has {count:,} images; got index {max(indices, key=abs)}.")
        asked = np.where(asked < 0, asked + count, asked)
        return asked if self._chosen is None else self._chosen[asked]

    def keys(self) -> list[str]:
        """The file names of all images."""
        return [shard.key(image) for shard, images in self._parts() for image in images.tolist()]

    def shapes(self) -> Int[np.ndarray, "n 2"]:
        """Height and width of all images, in tokens."""
        return np.concatenate([shard.shapes[images] for shard, images in self._parts()])

    def _parts(self) -> Iterator[tuple[Shard, np.ndarray]]:
        """Each shard, with those of its images that are part of this data set."""
        every = np.arange(len(self)) if self._chosen is None else self._chosen
        numbers = np.searchsorted(self._starts, every, "right") - 1
        for number in np.unique(numbers):
            yield self._shard(int(number)), every[numbers == number] - self._starts[number]

    def examples(self) -> Iterator[dict[str, Any]]:
        """Yield each image as plain values, for `datasets.Dataset.from_generator` and the like."""
        for position in range(len(self)):
            item = self[position]
            yield {**item, "indices": item["indices"].numpy()}

    def __getstate__(self) -> dict[str, Any]:
        return {"folder": self.folder, "split": self.only, "verify": False}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _by_shape(shard: Shard, slots: np.ndarray, images: np.ndarray) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    shapes, which = np.unique(shard.shapes[images], axis=0, return_inverse=True)
    for shape in range(len(shapes)):
        own = which.reshape(-1) == shape
        yield slots[own], images[own]


def read_folder(folder: Path) -> Manifest:
    """The manifest of a complete folder; raises UsageError without one, FileError where shards are missing."""
    if not (folder / MANIFEST).is_file():
        raise UsageError(f"{folder} is not a folder of token shards; make one with: {COMMAND}")
    manifest = read_manifest(folder / MANIFEST, Manifest, FORMAT, KIND, COMMAND)
    if not manifest.complete:
        raise FileError(f"{folder} is not complete; encode the rest with --resume, or join its parts with --merge.")
    return manifest
