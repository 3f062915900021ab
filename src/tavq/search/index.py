"""The search index: memory-mapped vectors of a collection's images and texts, searched exactly."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field

from tavq.core.config import Config
from tavq.core.errors import FileError, UsageError
from tavq.core.files import check_sha256, parse_json, read_manifest
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.precision import Precision
from tavq.ops.topk import topk_dot_products
from tavq.search.spaces import MAX_NORM

COMMAND = "tavq search index MODEL --data DATA"
"""Builds an index."""

INDEX = "index"
"""Name of the index folder inside a run folder."""

TABLE = "index.safetensors"
MANIFEST = "index.json"
MODEL = "model"
"""Files and a folder of an index."""

FORMAT: Literal[2] = 2
MAX_COUNT = 1 << 32
"""Upper limit for images, and for texts."""


class Contents(Config):
    """What an index holds; written in its manifest and in the header of the tensors, so that a mix-up is found."""

    format: Literal[2]
    model: str
    """The sha256 of the weights that made the vectors."""
    size: int = Field(ge=16, le=2048)
    """Side of the images in pixels."""
    width: int = Field(ge=1, le=1 << 20)
    float16: bool
    """Vectors are stored in half precision."""
    images: int = Field(ge=1, le=MAX_COUNT)
    texts: int = Field(ge=0, le=MAX_COUNT)
    """Number of distinct texts."""
    data: str
    data_sha256: str
    split: str | None
    text_store: str | None
    """The sha256 of the text store, if the texts came from one."""
    precision: Precision = "fp32"
    """In which the tokenizer's convolutions computed."""

    def to_json(self) -> dict[str, Any]:
        """All fields, but for a precision of fp32, which indexes of earlier versions do not name."""
        return self.model_dump(mode="json", exclude={"precision"} if self.precision == "fp32" else None)


class Manifest(Contents):
    """`index.json`: the contents, the size and hash of the tensor file, and where the images were."""

    bytes: int
    sha256: str
    unreadable: int = Field(ge=0)
    """Number of unreadable images; their vectors are NaN, so they are never found."""
    data_folder: str


@dataclass(frozen=True)
class Hit:
    """A search result: an image, or a text with one of the images that it belongs to."""

    file_name: str
    score: float
    text: str | None = None


Found = list[tuple[int, float]]
"""Index and score of the vectors found for one query."""


class SearchIndex:
    """An index that `build_index` wrote. Opening reads the manifest and the offsets but no vectors."""

    def __init__(self, folder: Path, manifest: Manifest, tensors: MappedTensors) -> None:
        self.folder, self.manifest = folder, manifest
        self._arrays = {name: np.asarray(tensors[name]) for name in tensors}

    @classmethod
    def open(cls, name: Path | str, verify: bool = True) -> "SearchIndex":
        """Open the index in a folder, or in the folder `index` of a run; `verify` checks its SHA-256.

        Raises:
            UsageError: there is no index.
            FileError: a file is missing, truncated, altered, or from another version or index.
        """
        folder = _find_folder(Path(name))
        manifest = read_manifest(folder / MANIFEST, Manifest, FORMAT, "search index", COMMAND)
        path = folder / TABLE
        tensors = MappedTensors(path)
        if path.stat().st_size != manifest.bytes:
            raise FileError(f"{path} was cut or altered: {path.stat().st_size} bytes, expected {manifest.bytes}.")
        if verify:
            check_sha256(path, manifest.sha256)
        _check_tensors(path, manifest, tensors)
        return cls(folder, manifest, tensors)

    def key(self, index: int) -> str:
        """The file_name of an image."""
        return self._read_text("keys", index)

    def text(self, index: int) -> str:
        """A text by its index."""
        return self._read_text("text", index)

    def find_images(self, queries: Float[np.ndarray, "q e"], count: int) -> list[list[Hit]]:
        """The `count` nearest images of each query, best first; ties are in the order of file names."""
        return [self._image_hits(found) for found in self._search("images", queries, count)]

    def find_texts(self, queries: Float[np.ndarray, "q e"], count: int) -> list[list[Hit]]:
        """The `count` nearest distinct texts of each query, best first, each with the first image it belongs to."""
        return [self._text_hits(found) for found in self._search("texts", queries, count)]

    def _image_hits(self, found: Found) -> list[Hit]:
        return [Hit(self.key(image), score) for image, score in found]

    def _text_hits(self, found: Found) -> list[Hit]:
        owners = self._arrays["owners"]
        return [Hit(self.key(int(owners[text])), score, self.text(text)) for text, score in found]

    def _search(self, table: str, queries: Float[np.ndarray, "q e"], count: int) -> list[Found]:
        """Index and score of the `count` nearest vectors of each query."""
        if queries.shape[1] != self.manifest.width:
            raise UsageError(
                f"The index {self.folder} holds vectors of width {self.manifest.width}, the query has width "
                f"{queries.shape[1]}: it comes from another model."
            )
        best = topk_dot_products(queries, self._arrays[table], count, MAX_NORM)
        pairs = zip(best.rows.tolist(), best.scores.tolist(), strict=True)
        return [list(zip(rows, scores, strict=True)) for rows, scores in pairs]

    def check_model(self, sha256: str) -> None:
        """Raise UsageError unless the vectors were made by the model with these weights."""
        if sha256 != self.manifest.model:
            raise UsageError(
                f"The index {self.folder} was made by another model (weights {self.manifest.model[:12]}…, here "
                f"{sha256[:12]}…); rebuild it with: {COMMAND}"
            )

    def _read_text(self, blob: str, index: int) -> str:
        start, end = self._arrays[f"{blob}_offsets"][index : index + 2]
        try:
            return self._arrays[blob][start:end].tobytes().decode("utf-8")
        except UnicodeDecodeError as error:
            raise FileError(f"{self.folder / TABLE} was altered: entry {index} of {blob!r} is not text.") from error


def tensor_shapes(contents: Contents, key_bytes: int, text_bytes: int) -> dict[str, tuple[str, Sequence[int]]]:
    """The dtype and shape of each tensor; `key_bytes` and `text_bytes` are those of all names and of all texts."""
    dtype = "<f2" if contents.float16 else "<f4"
    return {
        "images": (dtype, (contents.images, contents.width)),
        "texts": (dtype, (contents.texts, contents.width)),
        "owners": ("<i8", (contents.texts,)),
        "keys_offsets": ("<i8", (contents.images + 1,)),
        "text_offsets": ("<i8", (contents.texts + 1,)),
        "keys": ("u1", (key_bytes,)),
        "text": ("u1", (text_bytes,)),
    }


def is_index(folder: Path) -> bool:
    """Whether a folder is a search index, intact or damaged."""
    return (folder / MANIFEST).is_file()


def _find_folder(path: Path) -> Path:
    for folder in (path, path / INDEX):
        if is_index(folder):
            return folder
    raise UsageError(
        f"There is no search index at {str(path)!r}: neither it nor its folder {INDEX}/ holds {MANIFEST}. Build "
        f"one with: {COMMAND}"
    )


def _check_tensors(path: Path, manifest: Manifest, tensors: MappedTensors) -> None:
    """Raise FileError unless the tensors belong to the manifest, so that no later lookup can leave its table."""
    stored = parse_json(tensors.metadata.get("contents", "null"), f"The header of {path}")
    expected = {name: value for name, value in manifest.to_json().items() if name in Contents.model_fields}
    if stored != expected:
        raise FileError(f"{path} does not belong to the {MANIFEST} beside it; rebuild the index with: {COMMAND}")
    sizes = [int(np.prod(tensors[name].shape)) for name in ("keys", "text")]
    for name, (dtype, shape) in tensor_shapes(manifest, *sizes).items():
        found = tensors[name]
        if found.dtype != np.dtype(dtype) or found.shape != tuple(shape):
            raise FileError(f"{path} was altered: {name} holds {found.dtype} {found.shape}, expected {dtype} {shape}.")
    for name in ("keys", "text"):
        _check_offsets(path, name, np.asarray(tensors[f"{name}_offsets"]), len(tensors[name]))
    owners = np.asarray(tensors["owners"])
    if len(owners) and not 0 <= owners.min() <= owners.max() < manifest.images:
        raise FileError(f"{path} was altered: owners is not below the number of images, {manifest.images}.")


def _check_offsets(path: Path, name: str, offsets: np.ndarray, end: int) -> None:
    if offsets[0] != 0 or offsets[-1] != end or (offsets[1:] < offsets[:-1]).any():
        raise FileError(
            f"{path} was altered: {name}_offsets does not divide {end} bytes into {len(offsets) - 1} parts."
        )
