"""The encoded texts of a batch of images."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.interfaces import FULL_TEXT, FULL_TEXT_IDS, GRANULARITIES, POOLED, TextFeatures, TextSource, TextUnits


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
