"""The file of an encoded data set: the token indices of its images, and which model made them."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from jaxtyping import Int
from torch import Tensor

from tavq.core import files
from tavq.core.errors import FileError
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.seals import check_seal, write_sealed_tensors

MAX_NAME = 255
"""Bytes that file systems allow for the name of a file."""


@dataclass(frozen=True)
class Tokens:
    """The token indices of some images.

    Attributes:
        indices: [n h w], or [n h w c] where the codebook has c > 1 parts.
        keys: the file name of each image.
        entries: size of the codebook; None where the file does not say.
        model: SHA-256 of the weights that made them; None where the file does not say.
        precision: in which the encoder computed.
    """

    indices: Int[Tensor, "n h w *c"]
    keys: tuple[str, ...]
    entries: int | None = None
    model: str | None = None
    precision: str = "fp32"

    def save(self, path: Path) -> None:
        """Write a safetensors file; raises FileError where that is not possible."""
        metadata = {"keys": json.dumps(self.keys, ensure_ascii=False)}
        if self.entries is not None:
            metadata["entries"] = str(self.entries)
        if self.model is not None:
            metadata["model"] = self.model
        if self.precision != "fp32":
            metadata["precision"] = self.precision
        write_sealed_tensors(path, {"indices": self.indices.to(torch.int32)}, metadata)

    @classmethod
    def load(cls, path: Path) -> "Tokens":
        """Read a file that `save` wrote; raises FileError where it is something else, altered or without images."""
        indices = files.read_tensors(path).get("indices")
        check_seal(path)
        metadata = MappedTensors(path).metadata
        keys = files.parse_json(metadata.get("keys", "[]"), f"The metadata of {path}")
        grid = indices is not None and indices.ndim in (3, 4) and indices.dtype in (torch.int32, torch.int64)
        named = isinstance(keys, list) and all(isinstance(key, str) and PurePosixPath(key).name for key in keys)
        entries = metadata.get("entries")
        counted = entries is None or (entries.isdecimal() and len(entries) < 12)
        if indices is None or not (grid and named and counted and len(keys) == len(indices)):
            raise FileError(
                f"{path} is not a tokens file: it needs `indices` [n h w] and as many file names in its metadata."
            )
        if not keys:
            raise FileError(f"{path} holds no images.")
        count, precision = None if entries is None else int(entries), metadata.get("precision", "fp32")
        return cls(indices, tuple(keys), count, metadata.get("model"), precision)


def png_names(keys: Sequence[str]) -> list[str]:
    """Replace the suffix of each file name by .png, or append it where two names would become the same."""
    replaced = [str(PurePosixPath(key).with_suffix(".png")) for key in keys]
    counts = Counter(replaced)
    names = [name if counts[name] == 1 else f"{key}.png" for key, name in zip(keys, replaced, strict=True)]
    return [_shorten(name) for name in names]


def _shorten(name: str) -> str:
    """A name that a file system takes, with a hash of what is cut off."""
    parent, slash, last = name.rpartition("/")
    if len(last.encode()) <= MAX_NAME:
        return name
    kept = last.encode()[: MAX_NAME - len(".0123456789abcdef.png")].decode(errors="ignore")
    return f"{parent}{slash}{kept}.{files.sha256_bytes(name.encode())[:16]}.png"
