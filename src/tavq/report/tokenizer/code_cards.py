"""What the codes mean: where each is chosen, what it decodes to, and which units of text it is associated with.

A card shows two readings of a code's text, as each has a weakness. *Co-occurrence* counts images: the code is
prominent in images whose text has the unit. It needs no alignment, so it works for every tokenizer, but it cannot tell
an object from its usual surroundings. *Nearest in the aligned space* uses the aligner's own networks: it shows what
the alignment has learned, whether or not the images bear it out.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset
from tavq.interfaces import DEEP, GRANULARITIES, Batch
from tavq.metrics.association import MAX_UNITS, MIN_IMAGES, AssociatedUnit, Cooccurrences
from tavq.metrics.codes import CodeUsage
from tavq.ops.grids import offset_indices
from tavq.report.html.images import as_bytes, crop
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

GRID = 4
"""Side in cells of the grid that is filled with one code; the middle half of the decoded image is shown."""

UNITS = {"words": 8, "phrases": 5, "sentences": 3}
"""Number of units listed on a card."""

CHUNK = 64
"""Codes decoded at once."""


@runtime_checkable
class Lexicon(Protocol):
    """The part of a text store that a card needs (tavq.text.store.TextStore has it)."""

    def __contains__(self, key: object) -> bool: ...

    def units(self, key: str) -> Mapping[str, Sequence[str]]:
        """The units of an image's text by granularity."""
        ...

    def vocabulary(self, granularity: str) -> tuple[list[str], Float[np.ndarray, "u t"]]:
        """Every distinct unit of a granularity and its vector."""
        ...

    def counts(self, granularity: str) -> Int[np.ndarray, " u"]:
        """The number of images that contain each distinct unit."""
        ...


@dataclass(frozen=True)
class NearbyUnit:
    """A unit of text near a code in the aligned space."""

    unit: str
    cosine: float


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
            patches.append(Patch(key, crop(dataset.path(key), self.size, box)))
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


def decode_alone(tokenizer: Tokenizer, codes: Sequence[int]) -> list[UInt8[np.ndarray, "y x 3"]]:
    """Decode each code by itself: the middle 2f x 2f pixels of a small grid filled with the code.

    Only the middle, because padding makes a decoder treat the border of an image differently.
    """
    tiles = []
    edge = GRID * tokenizer.factor // 4
    entries = tokenizer.lookup_entries()
    for start in range(0, len(codes), CHUNK):
        chunk = entries[list(codes[start : start + CHUNK])]
        images = tokenizer.decoder(chunk[:, :, None, None].expand(-1, -1, GRID, GRID).contiguous())
        tiles += [as_bytes(image[:, edge:-edge, edge:-edge]) for image in images]
    return tiles


@torch.no_grad()
def find_nearest_units(
    tokenizer: Tokenizer, store: Lexicon | None, codes: Sequence[int], used: Sequence[bool] | np.ndarray
) -> dict[str, list[list[NearbyUnit]]] | None:
    """For each code the units nearest to it in the aligned space, by granularity; None without aligner or store.

    Granularities that are aligned with a codebook of their own say nothing of the entries that the decoder reads, and
    are left out.

    The cosine is computed after centring: the mean over all units is subtracted from the units, and the mean over all
    used entries from the entries. Vectors of a text encoder share a large common direction (any two sentences have a
    high cosine), and entries aligned with them share one too; without centring, the few units nearest to the common
    direction would be nearest to every code. Unused entries keep their initial values and would blur that mean, so
    they are left out of it.

    Words and phrases must occur in at least `MIN_IMAGES` images of the store; sentences, which seldom occur twice, in
    at least one. Only the `MAX_UNITS` most frequent units of a granularity are candidates.

    Args:
        tokenizer: its aligner embeds the entries.
        store: has the units and their vectors.
        codes: indices of the entries to explain.
        used: whether each entry of the codebook was chosen.

    Raises:
        DataError: the store's vectors do not have the width that the aligner was trained with.
    """
    if tokenizer.aligner is None or store is None or not len(codes):
        return None
    entries = tokenizer.lookup_entries()
    nearest = {}
    for name, level in tokenizer.aligner.entry_levels.items():
        if name not in GRANULARITIES or tokenizer.codebooks[level] is not tokenizer.codebook:
            continue  # aligned with the entries of another codebook
        embedded = tokenizer.aligner.embed_entries(entries, name)
        units, vectors = list_frequent_units(store, name)
        if embedded is not None and units:
            if vectors.shape[1] != embedded.shape[1]:
                raise DataError(
                    f"The text store's vectors have {vectors.shape[1]} dimensions, but the model was aligned with "
                    f"{embedded.shape[1]}; give the store that it was trained with."
                )
            embedded = embedded.float().cpu()
            mean = embedded[torch.as_tensor(np.asarray(used, bool))].mean(0)
            nearest[name] = _rank_units(embedded[list(codes)] - mean, vectors - vectors.mean(0), units, UNITS[name])
    return nearest or None


def list_frequent_units(store: Lexicon, granularity: str) -> tuple[list[str], Float[Tensor, "u t"]]:
    """The most frequent units of a store, most frequent first, with their vectors."""
    texts, vectors = store.vocabulary(granularity)
    counts = store.counts(granularity)
    minimum = 1 if granularity == "sentences" else MIN_IMAGES
    rows = [int(row) for row in np.argsort(-counts, kind="stable")[:MAX_UNITS] if counts[row] >= minimum]
    return [texts[row] for row in rows], torch.from_numpy(np.asarray(vectors[rows], np.float32))


def _rank_units(
    codes: Float[Tensor, "c t"], vectors: Float[Tensor, "u t"], units: Sequence[str], count: int
) -> list[list[NearbyUnit]]:
    cosines = normalize(codes, dim=1) @ normalize(vectors, dim=1).T
    best = cosines.topk(min(count, len(units)), dim=1)
    nearest = []
    for indices, values in zip(best.indices.tolist(), best.values.tolist(), strict=True):
        nearest.append([NearbyUnit(units[index], cosine) for index, cosine in zip(indices, values, strict=True)])
    return nearest
