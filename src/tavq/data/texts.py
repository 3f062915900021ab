"""The encoded texts of some images as a batch."""

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
    """What the text source has of each image; there may be more than the granularities."""
    if text is None:
        return ()
    key = next((record.file_name for record in dataset if record.file_name in text), None)
    if key is None:
        raise UsageError(
            f"The text store knows none of the {len(dataset)} images of {dataset.folder}, "
            f"for example not {dataset[0].file_name!r}; make it from this data set with: tavq text."
        )
    present = text.vectors(key)
    return (*GRANULARITIES, *(table for table in (FULL_TEXT, FULL_TEXT_IDS, POOLED) if table in present))


def collate_text(text: TextSource, keys: Sequence[str], tables: Sequence[str] = GRANULARITIES) -> TextFeatures:
    """The text of some images, each table padded to its longest row (at least one unit, so no axis is ever 0).

    An image that `text` does not know gets masks that are False everywhere.
    """
    known: list[Mapping[str, Any]] = [text.vectors(key) if key in text else {} for key in keys]
    units = {
        name: _padded([row.get(name) for row in known], text.width)
        for name in (*GRANULARITIES, FULL_TEXT)
        if name in tables
    }
    if FULL_TEXT_IDS in tables:
        units[FULL_TEXT] = replace(
            units[FULL_TEXT], ids=_padded_ids([row.get(FULL_TEXT_IDS) for row in known], units[FULL_TEXT])
        )
    nothing = np.zeros(text.width, np.float32)
    pooled = np.stack([np.asarray(row.get(POOLED, nothing), np.float32) for row in known]) if POOLED in tables else None
    full_text = units.pop(FULL_TEXT, None)
    return TextFeatures(**units, full_text=full_text, pooled=None if pooled is None else torch.from_numpy(pooled))


def _padded_ids(rows: Sequence[Any], units: TextUnits) -> Tensor:
    ids = torch.zeros(units.mask.shape, dtype=torch.int64)
    ids[units.mask] = torch.from_numpy(
        np.concatenate([row for row in rows if row is not None] or [[]]).astype(np.int64)
    )
    return ids


def _padded(rows: Sequence[Any], width: int) -> TextUnits:
    longest = max((len(row) for row in rows if row is not None), default=0)
    vectors = np.zeros((len(rows), max(longest, 1), width), np.float32)
    mask = np.zeros(vectors.shape[:2], bool)
    for number, row in enumerate(rows):
        if row is not None and len(row):
            vectors[number, : len(row)] = row
            mask[number, : len(row)] = True
    return TextUnits(torch.from_numpy(vectors), torch.from_numpy(mask))
