"""The search index: the vectors of a collection's images and texts, mapped, and searched exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from tavq.core.config import Config
from tavq.core.errors import FileError, UsageError
from tavq.core.files import check_sha256, parse_json, read_manifest
from tavq.core.mmap_tensors import MappedTensors
from tavq.ops.topk import topk_dot_products
from tavq.search.spaces import LONGEST

MAKE = "tavq search index MODEL --data DATA"
"""The command that makes one."""

INDEX = "index"
"""The folder inside a run folder."""

TABLE = "index.safetensors"
MANIFEST = "index.json"
MODEL = "model"
"""Files and a folder of the index."""

FORMAT: Literal[2] = 2
MOST = 1 << 32
"""Images, and texts."""


class Contents(Config):
    """What an index holds; written in its manifest and, against mixed-up files, in the header of the vectors too."""

    format: Literal[2]
    model: str
    """The sha256 of the weights that made the vectors."""
    size: int = Field(ge=16, le=2048)
    """Side of the images in pixels."""
    width: int = Field(ge=1, le=1 << 20)
    float16: bool
    images: int = Field(ge=1, le=MOST)
    texts: int = Field(ge=0, le=MOST)
    """Distinct ones."""
    data: str
    data_sha256: str
    split: str | None
    text_store: str | None
    """The sha256 of the text store's vectors, where the texts came from one."""


class Manifest(Contents):
    """`index.json`: the contents, what the file of vectors must be, and where the images were."""

    bytes: int
    sha256: str
    unreadable: int = Field(ge=0)
    """Images that could not be read; they have a row, and are never found."""
    data_folder: str


@dataclass(frozen=True)
class Hit:
    """An image that was found, or a text with one of the images that it is of."""

    file_name: str
    score: float
    text: str | None = None


class SearchIndex:
    """An index that `build_index` wrote. Opening reads the manifest and the offsets, and no vectors."""

    def __init__(self, folder: Path, manifest: Manifest, tensors: MappedTensors) -> None:
        self.folder, self.manifest = folder, manifest
        self._arrays = {name: np.asarray(tensors[name]) for name in tensors}

    @classmethod
    def open(cls, name: Path | str, verify: bool = False) -> "SearchIndex":
        """The index in a folder, or in the folder `index` of a run; with `verify` its SHA-256 is checked too.

        Raises:
            UsageError: there is none.
            FileError: a file is missing, cut short, altered, of another version or of another index.
        """
        folder = _find(Path(name))
        manifest = read_manifest(folder / MANIFEST, Manifest, FORMAT, "search index", MAKE)
        path = folder / TABLE
        tensors = MappedTensors(path)
        if path.stat().st_size != manifest.bytes:
            raise FileError(f"{path} was cut or altered: {path.stat().st_size} bytes, expected {manifest.bytes}.")
        if verify:
            check_sha256(path, manifest.sha256)
        _check(path, manifest, tensors)
        return cls(folder, manifest, tensors)

    def key(self, row: int) -> str:
        """The file_name of an image."""
        return self._slice("keys", row)

    def text(self, row: int) -> str:
        """A text."""
        return self._slice("text", row)

    def find_images(self, queries: Float[np.ndarray, "q e"], count: int) -> list[list[Hit]]:
        """The `count` nearest images of each query, the nearest first; of equally near ones in the order of names."""
        best = topk_dot_products(self._fitting(queries), self._arrays["images"], count, LONGEST)
        return [
            [Hit(self.key(row), score) for row, score in zip(rows, scores, strict=True)]
            for rows, scores in zip(best.rows.tolist(), best.scores.tolist(), strict=True)
        ]

    def find_texts(self, queries: Float[np.ndarray, "q e"], count: int) -> list[list[Hit]]:
        """The `count` nearest distinct texts of each query, each with the first image that it is of; as above."""
        best = topk_dot_products(self._fitting(queries), self._arrays["texts"], count, LONGEST)
        owners = self._arrays["owners"]
        return [
            [Hit(self.key(int(owners[row])), score, self.text(row)) for row, score in zip(rows, scores, strict=True)]
            for rows, scores in zip(best.rows.tolist(), best.scores.tolist(), strict=True)
        ]

    def check_model(self, sha256: str) -> None:
        """Raises UsageError unless the vectors were made by the model of these weights."""
        if sha256 != self.manifest.model:
            raise UsageError(
                f"The index {self.folder} was made by another model (weights {self.manifest.model[:12]}…, here "
                f"{sha256[:12]}…); make it anew with: tavq search index MODEL --data DATA"
            )

    def _fitting(self, queries: Float[np.ndarray, "q e"]) -> Float[np.ndarray, "q e"]:
        if queries.shape[1] != self.manifest.width:
            raise UsageError(
                f"The index {self.folder} holds vectors of width {self.manifest.width}, and the query is one of "
                f"{queries.shape[1]}; it is another model's."
            )
        return queries

    def _slice(self, blob: str, row: int) -> str:
        start, end = self._arrays[f"{blob}_offsets"][row : row + 2]
        try:
            return self._arrays[blob][start:end].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{self.folder / TABLE} was altered: entry {row} of {blob!r} is not text.") from error


def shapes_of(contents: Contents, keys: int, text: int) -> dict[str, tuple[str, Sequence[int]]]:
    """The dtype and shape of each tensor; `keys` and `text` are the bytes of all names and of all texts."""
    real = "<f2" if contents.float16 else "<f4"
    return {
        "images": (real, (contents.images, contents.width)),
        "texts": (real, (contents.texts, contents.width)),
        "owners": ("<i8", (contents.texts,)),
        "keys_offsets": ("<i8", (contents.images + 1,)),
        "text_offsets": ("<i8", (contents.texts + 1,)),
        "keys": ("u1", (keys,)),
        "text": ("u1", (text,)),
    }


def is_index(folder: Path) -> bool:
    """Whether a folder is a search index, whole or damaged."""
    return (folder / MANIFEST).is_file()


def _find(path: Path) -> Path:
    for folder in (path, path / INDEX):
        if is_index(folder):
            return folder
    raise UsageError(
        f"There is no search index at {str(path)!r}: neither there nor in its folder {INDEX}/ is an {MANIFEST}. Make "
        f"one with: {MAKE}"
    )


def _check(path: Path, manifest: Manifest, tensors: MappedTensors) -> None:
    """Raises FileError unless the tensors are the ones the manifest tells of, so that no look-up leaves its table."""
    told = parse_json(tensors.metadata.get("contents", "null"), f"The header of {path}")
    if told != manifest.model_dump(include=set(Contents.model_fields)):
        raise FileError(f"{path} belongs to another manifest than the {MANIFEST} beside it; make the index anew.")
    expected = shapes_of(manifest, *(int(np.prod(tensors[name].shape)) for name in ("keys", "text")))
    for name, (kind, shape) in expected.items():
        found = tensors[name]
        if found.dtype != np.dtype(kind) or found.shape != tuple(shape):
            raise FileError(f"{path} was altered: {name} holds {found.dtype} {found.shape}, expected {kind} {shape}.")
    for name in ("keys", "text"):
        _check_offsets(path, name, np.asarray(tensors[f"{name}_offsets"]), len(tensors[name]))
    owners = np.asarray(tensors["owners"])
    if len(owners) and not 0 <= owners.min() <= owners.max() < manifest.images:
        raise FileError(f"{path} was altered: owners leaves its {manifest.images} images.")


def _check_offsets(path: Path, name: str, offsets: np.ndarray, end: int) -> None:
    if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise FileError(f"{path} was altered: {name}_offsets does not divide {end} bytes among {len(offsets) - 1}.")
