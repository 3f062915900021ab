"""The encoded texts of a batch of images."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.nn.functional import pad

from tavq.core.caption_keys import caption_key
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.interfaces import (
    FULL_TEXT,
    FULL_TEXT_IDS,
    GRANULARITIES,
    POOLED,
    TextFeatures,
    TextSource,
    TextUnits,
)


def find_text_tables(dataset: FolderDataset, text: TextSource | None) -> tuple[str, ...]:
    """The tables that the text source has for each image: the granularities, and those of unsplit texts if any."""
    if text is None:
        return ()
    key = next((record.file_name for record in dataset if record.file_name in text), None)
    if key is None:
        raise UsageError(
            f"The text store contains none of the {len(dataset)} images in {dataset.folder}, "
            f"for example {dataset[0].file_name!r}; build it from this data set with: tavq text {dataset.folder}"
        )
    available = text.vectors(key)
    return (*GRANULARITIES, *(table for table in (FULL_TEXT, FULL_TEXT_IDS, POOLED) if table in available))


def collate_text(text: TextSource, keys: Sequence[str], tables: Sequence[str] = GRANULARITIES) -> TextFeatures:
    """Look up the text of some images and pad each table to its longest text.

    The unit axis has at least length 1. An image that `text` does not contain gets masks that are False everywhere.
    """
    found: list[Mapping[str, Any]] = [text.vectors(key) if key in text else {} for key in keys]
    names = [name for name in (*GRANULARITIES, FULL_TEXT) if name in tables]
    units = {name: _pad([vectors.get(name) for vectors in found], text.width) for name in names}
    if FULL_TEXT_IDS in tables:
        ids = [vectors.get(FULL_TEXT_IDS) for vectors in found]
        units[FULL_TEXT] = replace(units[FULL_TEXT], ids=_pad_ids(ids, units[FULL_TEXT]))
    pooled = _stack_pooled(found, text.width) if POOLED in tables else None
    full_text = units.pop(FULL_TEXT, None)
    return TextFeatures(**units, full_text=full_text, pooled=pooled)


CAPTION = 3
"""The first number of the random seed of drawn captions; `data.workers` and `training.task.tokens` have the others."""


@runtime_checkable
class CaptionSource(Protocol):
    """A text source that may keep the captions of an image apart, under the keys of `core.caption_keys`."""

    @property
    def each_caption(self) -> bool:
        """Whether it does; else a text is all of an image's captions."""
        ...


class CaptionKeys:
    """The keys under which a text source has the texts of images: several where it keeps their captions apart.

    A drawn caption is a function of (seed, epoch, image), as an augmentation is, so that neither workers nor processes
    nor resuming change it.

    Source: LG-VQ (arXiv 2405.14206), whose training reads one caption of an image at each step.
    """

    def __init__(self, dataset: FolderDataset, text: TextSource | None) -> None:
        self.names = [record.file_name for record in dataset]
        apart = isinstance(text, CaptionSource) and text.each_caption
        self.text = text if apart else None
        self.counts = [len(record.captions) for record in dataset] if apart else []

    def keys(self, index: int) -> list[str]:
        """The keys of an image's usable texts; the image's own if there are none."""
        name = self.names[index]
        if self.text is None:
            return [name]
        found = [key for key in (caption_key(name, number) for number in range(self.counts[index])) if key in self.text]
        return found or [name]

    def first(self, index: int) -> str:
        """The key of the text that evaluation reads: the first usable caption, or the joined text."""
        return self.keys(index)[0]

    def draw(self, index: int, seed: int, epoch: int) -> str:
        """The key of the text that training reads in an epoch."""
        keys = self.keys(index)
        if len(keys) == 1:
            return keys[0]
        return keys[int(np.random.default_rng([CAPTION, seed, epoch, index]).integers(len(keys)))]


@dataclass(frozen=True)
class PackedText:
    """The text of a batch as the bytes of one tensor.

    Each tensor that crosses processes costs a shared-memory file, and a text has up to ten: enough to run out of file
    descriptors with many workers.
    """

    data: UInt8[Tensor, " n"]
    layout: tuple[tuple[str, torch.dtype, tuple[int, ...]], ...]
    """Path in TextFeatures (`words/mask`), type and shape of each tensor, in the order of their bytes."""

    @classmethod
    def pack(cls, text: TextFeatures) -> "PackedText":
        """Copy a text into one tensor."""
        tensors: dict[str, Tensor | None] = {POOLED: text.pooled}
        for granularity in (*GRANULARITIES, FULL_TEXT):
            units = text[granularity]
            if units is not None:
                tensors |= {f"{granularity}/{field.name}": getattr(units, field.name) for field in fields(units)}
        present = {path: tensor for path, tensor in tensors.items() if tensor is not None}
        chunks = [_align(tensor.contiguous().flatten().view(torch.uint8)) for tensor in present.values()]
        layout = tuple((path, tensor.dtype, tuple(tensor.shape)) for path, tensor in present.items())
        return cls(torch.cat(chunks), layout)

    def unpack(self) -> TextFeatures:
        """The text again; its tensors are views of the one tensor."""
        found: dict[str, Any] = {}
        start = 0
        for path, dtype, shape in self.layout:
            size = math.prod(shape) * dtype.itemsize
            tensor = self.data[start : start + size].view(dtype).view(shape)
            granularity, _, name = path.partition("/")
            if name:
                found.setdefault(granularity, {})[name] = tensor
            else:
                found[granularity] = tensor
            start += _aligned(size)
        units = {name: TextUnits(**found[name]) for name in (*GRANULARITIES, FULL_TEXT) if name in found}
        return TextFeatures(**units, pooled=found.get(POOLED))


def _align(data: Tensor) -> Tensor:
    return pad(data, (0, _aligned(len(data)) - len(data)))


def _aligned(size: int) -> int:
    """`size` rounded up to 64 bytes, as torch aligns tensors: BLAS results may depend on the alignment of the input."""
    return -(-size // 64) * 64


def _pad(texts: Sequence[Any], width: int) -> TextUnits:
    longest = max((len(vectors) for vectors in texts if vectors is not None), default=0)
    padded = np.zeros((len(texts), max(longest, 1), width), np.float32)
    mask = np.zeros(padded.shape[:2], bool)
    for index, vectors in enumerate(texts):
        if vectors is not None and len(vectors):
            padded[index, : len(vectors)] = vectors
            mask[index, : len(vectors)] = True
    return TextUnits(torch.from_numpy(padded), torch.from_numpy(mask))


def _pad_ids(texts: Sequence[Any], units: TextUnits) -> Tensor:
    padded = torch.zeros(units.mask.shape, dtype=torch.int64)
    ids = np.concatenate([ids for ids in texts if ids is not None] or [[]])
    padded[units.mask] = torch.from_numpy(ids.astype(np.int64))
    return padded


def _stack_pooled(found: Sequence[Mapping[str, Any]], width: int) -> Tensor:
    zeros = np.zeros(width, np.float32)
    return torch.from_numpy(np.stack([np.asarray(vectors.get(POOLED, zeros), np.float32) for vectors in found]))
