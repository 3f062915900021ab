"""One shard: the packed tokens, file names, shapes and splits of some images, in one sealed safetensors file."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Int, Shaped
from pydantic import Field

from tavq.core.config import Config, build_stored
from tavq.core.errors import FileError, UsageError
from tavq.core.files import parse_json
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.precision import Precision
from tavq.core.seals import check_seal, write_sealed_tensors
from tavq.data.records import SPLITS
from tavq.token_folder.packing import PADDING, bytes_per_image, pack, unpack

FORMAT: Literal[1] = 1

MAX_BYTES = (1 << 31) - 1
"""Bytes of packed tokens, and of file names, in a shard: offsets are int32."""

MAX_SIDE = (1 << 15) - 1
"""Tokens of a side of an image: shapes are int16."""

MAX_COUNT = 1 << 40


class TokenSettings(Config):
    """What decides about every byte of the shards, besides the images themselves."""

    model: str
    """The sha256 of the tokenizer's weights."""
    entries: tuple[Annotated[int, Field(ge=1, le=1 << 31)], ...] = Field(min_length=1, max_length=64)
    """Entries of each part of the codebook."""
    size: int = Field(ge=1)
    """Side of the images in pixels."""
    split: str | None
    """The split that was encoded; None for all."""
    data: str
    """Fingerprint of the data set."""
    images: int = Field(ge=1, le=MAX_COUNT)
    """Images of the data set, with those that cannot be read."""
    shard_size: int = Field(ge=1, le=MAX_COUNT)
    """Images of a shard, with those that cannot be read; the last may have fewer."""
    precision: Precision = "fp32"
    """In which the encoder computed; folders of earlier versions do not say it, and are fp32."""

    @property
    def shards(self) -> int:
        """The number of shards."""
        return -(-self.images // self.shard_size)


def shard_name(number: int) -> str:
    """The file of a shard, counted from 0."""
    return f"tokens-{number:06d}.safetensors"


@dataclass(frozen=True)
class TokenImage:
    """The tokens of an image.

    Attributes:
        key: its file name in the data set.
        split: train, val or test.
        indices: [h w], or [h w c] where the codebook has c > 1 parts.
    """

    key: str
    split: str
    indices: Int[np.ndarray, "h w *c"]


def write_shard(
    path: Path, settings: TokenSettings, number: int, images: Sequence[TokenImage], missing: int = 0
) -> None:
    """Write a shard in one atomic step, sealed by its hash; the same images give the same bytes.

    Args:
        path: the file.
        settings: of the folder.
        number: of the shard, from 0.
        images: in their order in the data set; their shapes may differ.
        missing: how many images of the shard cannot be read.

    Raises:
        UsageError: the images do not fit a shard.
        FileError: the file cannot be written.
    """
    packed = [_pack_image(image, settings.entries) for image in images]
    names = [image.key.encode() for image in images]
    if max(sum(map(len, packed)) + PADDING, sum(map(len, names))) > MAX_BYTES:
        raise UsageError(f"Shard {number} would have more than {MAX_BYTES:,} bytes; use a smaller --shard-size.")
    tensors = {
        "tokens": np.concatenate([*packed, np.zeros(PADDING, np.uint8)]),
        "offsets": np.cumsum([0, *map(len, packed)]).astype(np.int32),
        "shapes": np.array([image.indices.shape[:2] for image in images], np.int16).reshape(-1, 2),
        "splits": np.array([SPLITS.index(image.split) for image in images], np.uint8),
        "keys": np.frombuffer(b"".join(names), np.uint8).copy(),
        "key_offsets": np.cumsum([0, *map(len, names)]).astype(np.int32),
    }
    metadata = {
        "format": str(FORMAT),
        "settings": settings_text(settings),
        "number": str(number),
        "missing": str(missing),
    }
    write_sealed_tensors(path, {name: torch.from_numpy(array) for name, array in tensors.items()}, metadata)


def settings_text(settings: TokenSettings) -> str:
    """The settings as each shard keeps them; without fp32, which shards of earlier versions do not name."""
    unsaid = {"precision"} if settings.precision == "fp32" else None
    return json.dumps(settings.model_dump(mode="json", exclude=unsaid), sort_keys=True)


def _pack_image(image: TokenImage, entries: Sequence[int]) -> np.ndarray:
    height, width = image.indices.shape[:2]
    if not (1 <= height <= MAX_SIDE and 1 <= width <= MAX_SIDE):
        raise UsageError(f"{image.key} has {width} x {height} tokens; a shard keeps 1 to {MAX_SIDE:,} of a side.")
    return pack(image.indices.reshape(1, height * width, len(entries)), entries)[0]


class Shard:
    """A shard, memory-mapped. Opening reads offsets, shapes and splits, 13 bytes an image, but no tokens.

    Raises FileError where the file is missing, damaged, or something else.
    """

    def __init__(self, path: Path, verify: bool = False) -> None:
        """`verify` checks the hash, which reads the whole file."""
        if verify:
            check_seal(path)
        tensors = MappedTensors(path)
        self.path = path
        self.settings, self.number, self.missing = _read_metadata(path, tensors.metadata)
        self.tokens, self.offsets, self.shapes, self.splits, self.keys, self.key_offsets = (
            _array(tensors, name, kind, axes) for name, (kind, axes) in _ARRAYS.items()
        )
        self._check()

    def _check(self) -> None:
        count, entries = len(self.splits), self.settings.entries
        positions = self.shapes.astype(np.int64).prod(1)
        shapes, which = np.unique(positions, return_inverse=True)
        lengths = np.array([bytes_per_image(int(shape), entries) for shape in shapes], np.int64)[which]
        offsets = np.cumsum(np.concatenate([[0], lengths.reshape(-1)]))
        ends = np.diff(self.key_offsets.astype(np.int64))
        fits = (
            len(self.shapes) == count
            and self.shapes.shape[1:] == (2,)
            and (not count or int(self.shapes.min()) > 0)
            and np.array_equal(offsets, self.offsets)
            and len(self.tokens) == offsets[-1] + PADDING
            and len(self.key_offsets) == count + 1
            and self.key_offsets[0] == 0
            and (not count or int(ends.min()) > 0)
            and self.key_offsets[-1] == len(self.keys)
            and (not count or int(self.splits.max()) < len(SPLITS))
        )
        if not fits:
            raise FileError(f"{self.path} is not a shard of tokens: its offsets, shapes and bytes disagree.")

    def __len__(self) -> int:
        return len(self.splits)

    def key(self, image: int) -> str:
        """The file name of an image; FileError where it is not one."""
        text = bytes(self.keys[self.key_offsets[image] : self.key_offsets[image + 1]]).decode(errors="replace")
        if not PurePosixPath(text).name:
            raise FileError(f"{self.path} has an image without a file name: {text!r:.60}.")
        return text

    def split(self, image: int) -> str:
        """The split of an image."""
        return SPLITS[self.splits[image]]

    def indices(self, images: Int[np.ndarray, " n"]) -> Shaped[np.ndarray, "n h w *c"]:
        """The indices of images of one shape, in the narrowest type; FileError where one is not an entry."""
        height, width = (int(side) for side in self.shapes[images[0]])
        entries = self.settings.entries
        made = unpack(self.tokens, self.offsets[images].astype(np.int64), height * width, entries)
        for part, size in enumerate(entries):
            if size & (size - 1) and int(made[:, :, part].max()) >= size:  # a power of two has no other bits
                raise FileError(f"{self.path} has an index that is not one of {size} entries; it was altered.")
        return made.reshape(len(images), height, width, *([len(entries)] if len(entries) > 1 else []))


_ARRAYS: dict[str, tuple[type, int]] = {
    "tokens": (np.uint8, 1),
    "offsets": (np.int32, 1),
    "shapes": (np.int16, 2),
    "splits": (np.uint8, 1),
    "keys": (np.uint8, 1),
    "key_offsets": (np.int32, 1),
}


def _array(tensors: MappedTensors, name: str, kind: type, axes: int) -> np.ndarray:
    array = tensors[name]
    if array.dtype != kind or array.ndim != axes or (name.endswith("offsets") and not len(array)):
        raise FileError(f"{tensors.path} is not a shard of tokens: {name} is {array.dtype} {list(array.shape)}.")
    return array


def _read_metadata(path: Path, metadata: dict[str, Any]) -> tuple[TokenSettings, int, int]:
    """The settings, the number of the shard and its missing images."""
    values = [metadata.get(name) for name in ("number", "missing")]
    numbers = [int(value) for value in values if isinstance(value, str) and value.isdecimal() and len(value) < 13]
    if metadata.get("format") != str(FORMAT) or len(numbers) != 2:
        raise FileError(
            f"{path} is not a shard of tokens in format {FORMAT}, which this version reads; make it with: tavq encode"
        )
    fields = parse_json(str(metadata.get("settings")), f"The settings of {path}")
    try:
        settings = build_stored(TokenSettings, fields if isinstance(fields, dict) else {}, str(path))
    except UsageError as error:
        raise FileError(f"{path} is not a shard of tokens: {error}") from error
    return settings, numbers[0], numbers[1]
