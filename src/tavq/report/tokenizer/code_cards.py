"""What the codes mean: where each is chosen, what it decodes to, and which units of text it is associated with.

A card shows two readings of a code's text, as each has a weakness. *Co-occurrence* counts images: the code is
prominent in images whose text has the unit. It needs no alignment, so it works for every tokenizer, but it cannot tell
an object from its usual surroundings. *Nearest in the aligned space* uses the aligner's own networks: it shows what
the alignment has learned, whether or not the images bear it out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset
from tavq.inspection.entries import UNITS, Lexicon, NearbyUnit, decode_alone, find_nearest_units
from tavq.inspection.pixels import crop
from tavq.interfaces import DEEP, GRANULARITIES, Batch
from tavq.metrics.association import AssociatedUnit, Cooccurrences
from tavq.metrics.codes import CodeUsage
from tavq.ops.grids import offset_indices
from tavq.tokenizer import Tokenizer

Unit = TypeVar("Unit")

TOP = 24
"""Number of codes explained by default."""

PATCHES = 8
"""Number of patches per code by default."""

WINDOW = 1
"""Cells on each side of a position that its patch covers: 3 x 3 cells."""

SMALLEST_PATCH = 12
"""Side in pixels of the smallest patch; where cells are small, a patch covers more of them."""


@dataclass(frozen=True)
class Patch:
    """A crop of an original image around a position where a code was chosen."""

    key: str
    image: UInt8[np.ndarray, "y x 3"]


@dataclass(frozen=True)
class CodeCard:
    """Everything that a page shows of one code."""

    code: int
    word: str | None  # the entry's word, where entries are initialised from words
    count: int
    fraction: float  # of all positions
    tile: UInt8[np.ndarray, "y x 3"]  # the code decoded alone
    patches: tuple[Patch, ...]
    associated: dict[str, list[AssociatedUnit]] | None  # by granularity; None without a text store
    nearest: dict[str, list[NearbyUnit]] | None  # by granularity; None without an aligner or a text store


class Survey:
    """One streaming pass over images: how often each code is chosen, where it matches best, and with which text.

    Memory: `patches` positions per entry, and 1 to 2 kB per image with text.

    Args:
        tokenizer: encodes the images.
        store: the text of the images.
        patches: number of positions to keep per code.
        level: the level of the hierarchy that is surveyed.
    """

    def __init__(
        self, tokenizer: Tokenizer, store: Lexicon | None = None, patches: int = PATCHES, level: int = DEEP
    ) -> None:
        self.tokenizer, self.store = tokenizer, store
        self.level, self.codebook = level, tokenizer.codebooks[level]
        self.usage = CodeUsage(self.codebook.sizes)
        self.cooccurrences = Cooccurrences()
        self.keys: list[str] = []
        self.size = self.factor = 0
        entries = sum(self.codebook.sizes)
        self._distance = np.full((entries, patches), np.inf)
        self._position = np.zeros((entries, patches, 3), np.int64)  # image, row, column

    @torch.no_grad()
    def update(
        self, batch: Batch, features: Mapping[int, Float[Tensor, "b d _h _w"]] | None = None
    ) -> Int[Tensor, "b h w *c"]:
        """Add a batch and return its indices.

        With several parts, the distance at a position counts for each of the entries chosen there.

        Args:
            batch: images and their keys.
            features: what `Tokenizer.features` returned for these images, where another survey reads them too.
        """
        own = (self.tokenizer.features(batch.images) if features is None else features)[self.level]
        indices = self.tokenizer.quantizer.indices(own, self.codebook)
        quantized = self.tokenizer.quantizer.lookup(indices, self.codebook)
        distances = (own - quantized).square().sum(1).cpu().numpy()
        self.size = batch.images.shape[-1]
        self.factor = self.size // own.shape[-1]
        self.usage.update(indices)
        chosen = offset_indices(indices, self.codebook.sizes).cpu().numpy()
        for key, grid, distance in zip(batch.keys, chosen, distances, strict=True):
            self._add_image(key, grid, distance)
        return indices

    def _add_image(self, key: str, grid: Int[np.ndarray, "h w *c"], distance: Float[np.ndarray, "h w"]) -> None:
        if grid.ndim == 3:  # several entries share a position and its distance
            distance = np.broadcast_to(distance[:, :, None], grid.shape)
        order = np.lexsort((distance.ravel(), grid.ravel()))
        codes, first = np.unique(grid.ravel()[order], return_index=True)
        positions = order[first]  # the closest match of each code in this image
        closest = distance.ravel()[positions]
        worst = self._distance[codes].argmax(axis=1)
        better = closest < self._distance[codes, worst]
        codes, worst, positions = codes[better], worst[better], positions[better]
        self._distance[codes, worst] = closest[better]
        row, column = np.unravel_index(positions, grid.shape)[:2]
        self._position[codes, worst] = np.stack([np.full_like(row, len(self.keys)), row, column], axis=1)
        self.keys.append(key)
        if self.store is not None and key in self.store:
            self.cooccurrences.add(grid, self.store.units(key))

    @property
    def counts(self) -> Int[np.ndarray, " k"]:
        """How often each code was chosen."""
        counts: np.ndarray = self.usage.state.numpy()
        return counts

    @property
    def order(self) -> list[int]:
        """All codes, most used first; ties in order of index."""
        return [int(code) for code in np.argsort(-self.counts, kind="stable")]

    def make_cards(self, dataset: FolderDataset, top: int = TOP) -> list[CodeCard]:
        """Explain the `top` most used codes; crops the patches from the files of `dataset`."""
        codes = [code for code in self.order[:top] if self.counts[code] > 0]
        tiles = decode_alone(self.tokenizer, codes)
        associated = self._find_associated(codes)
        nearest = find_nearest_units(self.tokenizer, self.store, codes, self.counts > 0)
        total = int(self.counts.sum())
        words = self.tokenizer.codebook.words
        cards = []
        for row, code in enumerate(codes):
            count = int(self.counts[code])
            cards.append(
                CodeCard(
                    code,
                    words[code] if words else None,
                    count,
                    count / total,
                    tiles[row],
                    self.crop_patches(code, dataset),
                    _select_code(associated, row),
                    _select_code(nearest, row),
                )
            )
        return cards

    def _find_associated(self, codes: Sequence[int]) -> dict[str, list[list[AssociatedUnit]]] | None:
        if self.store is None or not self.cooccurrences.codes:
            return None
        return {name: self.cooccurrences.find_associated(codes, name, UNITS[name]) for name in GRANULARITIES}

    def crop_patches(self, code: int, dataset: FolderDataset) -> tuple[Patch, ...]:
        """The positions that match the code best, at most one per image, best first."""
        patches, f = [], self.factor
        window = max(WINDOW, math.ceil((SMALLEST_PATCH / f - 1) / 2))
        for rank in np.argsort(self._distance[code], kind="stable"):
            if not np.isfinite(self._distance[code, rank]):
                break
            image, row, column = (int(value) for value in self._position[code, rank])
            key, ends = self.keys[image], window + 1
            box = ((column - window) * f, (row - window) * f, (column + ends) * f, (row + ends) * f)
            patches.append(Patch(key, crop(dataset.file(key), self.size, box)))
        return tuple(patches)


def _select_code(by_granularity: dict[str, list[list[Unit]]] | None, row: int) -> dict[str, list[Unit]] | None:
    return None if by_granularity is None else {name: units[row] for name, units in by_granularity.items()}


def explain_codes(
    tokenizer: Tokenizer,
    dataset: FolderDataset,
    batches: Iterable[Batch],
    store: Lexicon | None = None,
    top: int = TOP,
    patches: int = PATCHES,
) -> list[CodeCard]:
    """The `top` most used codes of the deep level with their patches and units of text, most used first.

    Args:
        tokenizer: in evaluation mode, on the batches' device.
        dataset: has the images of the batches by key.
        batches: images of one size; read once.
        store: the text of the images.
        top: maximum number of codes; codes that were never chosen are omitted.
        patches: maximum number of patches per code, each from a different image.

    Raises:
        DataError: `batches` is empty.
    """
    survey = Survey(tokenizer, store, patches)
    for batch in batches:
        survey.update(batch)
    if not survey.keys:
        raise DataError(f"Cannot explain the codes: no image in {dataset.folder} could be read.")
    return survey.make_cards(dataset, top)
