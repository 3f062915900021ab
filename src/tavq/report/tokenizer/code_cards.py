"""What a code means: where it was chosen, what it decodes to, and which words go with it.

Two readings of "its words" stand side by side, because neither is the truth alone. *Found with it* counts: the code is
prominent in images whose text has the word. It needs no alignment, so it can be asked of every tokenizer, and it
cannot tell a thing from what stands beside it. *Nearest in the aligned space* asks the aligner's own networks, and
says what the alignment has put there, whether or not images bear it out.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset
from tavq.interfaces import GRANULARITIES, Batch
from tavq.metrics.codes import CodeUsage
from tavq.ops.grids import offset_indices
from tavq.report.html.images import as_bytes, crop
from tavq.report.tokenizer.association import FEWEST_IMAGES, MOST_UNITS, Associated, Presence
from tavq.tokenizer import Tokenizer

TOP = 24
PATCHES = 8
WINDOW = 1
"""Cells around a position that its patch shows: 3 x 3 cells."""

ALONE = 4
"""Side in cells of the grid that is filled with one code; the middle half of what it decodes to is shown."""

SHOWN = {"words": 8, "phrases": 5, "sentences": 3}
"""Units named on a card."""

CHUNK = 64


@runtime_checkable
class Lexicon(Protocol):
    """What is asked of a text store (tavq.text.store.TextStore is one)."""

    def __contains__(self, key: object) -> bool: ...

    def units(self, key: str) -> Mapping[str, Sequence[str]]:
        """The units of an image as text by granularity."""
        ...

    def vocabulary(self, granularity: str) -> tuple[list[str], Float[np.ndarray, "u t"]]:
        """Every distinct unit of a granularity and its vector."""
        ...

    def counts(self, granularity: str) -> Int[np.ndarray, " u"]:
        """In how many images each distinct unit stands."""
        ...


@dataclass(frozen=True)
class Near:
    """A unit that lies near a code in the aligned space."""

    unit: str
    cosine: float


@dataclass(frozen=True)
class Patch:
    """A part of an original image around a position where a code was chosen."""

    key: str
    image: UInt8[np.ndarray, "y x 3"]


@dataclass(frozen=True)
class CodeCard:
    """Everything that is shown of one code."""

    code: int
    word: str | None  # of the entry, where the codebook is made of words
    count: int
    share: float  # of all positions
    alone: UInt8[np.ndarray, "y x 3"]
    patches: tuple[Patch, ...]
    found_with: dict[str, list[Associated]] | None  # by granularity; None without a text store
    nearest: dict[str, list[Near]] | None  # by granularity; None without an aligner or a text store


class Survey:
    """One streaming pass over images: how often each code was chosen, where it fitted best, with which text.

    Memory: `patches` places for each entry, and 1 to 2 kB for each image with text.

    Args:
        tokenizer: what encodes; its deep level is looked at.
        store: the text of the images.
        patches: how many places to keep of each code.
    """

    def __init__(self, tokenizer: Tokenizer, store: Lexicon | None = None, patches: int = PATCHES) -> None:
        self.tokenizer, self.store = tokenizer, store
        self.usage = CodeUsage(tokenizer.codebook.sizes)
        self.presence = Presence()
        self.keys: list[str] = []
        self.size = 0
        self._distance = np.full((tokenizer.entries, patches), np.inf)
        self._place = np.zeros((tokenizer.entries, patches, 3), np.int64)  # image, row, column

    @torch.no_grad()
    def update(self, batch: Batch) -> Int[Tensor, "b h w *c"]:
        """Counts a batch and returns its indices.

        With several parts the distance of a position counts for each of the entries chosen there.
        """
        _, features = self.tokenizer.encoder(batch.images)
        indices = self.tokenizer.quantizer.indices(features, self.tokenizer.codebook)
        codes = self.tokenizer.quantizer.lookup(indices, self.tokenizer.codebook)
        distance = (features - codes).square().sum(1).cpu().numpy()
        self.size = batch.images.shape[-1]
        self.usage.update(indices)
        chosen = offset_indices(indices, self.tokenizer.codebook.sizes).cpu().numpy()
        for key, grid, far in zip(batch.keys, chosen, distance, strict=True):
            self._add(key, grid, far)
        return indices

    def _add(self, key: str, grid: Int[np.ndarray, "h w *c"], distance: Float[np.ndarray, "h w"]) -> None:
        if grid.ndim == 3:  # several entries a position, each as far as the position is
            distance = np.broadcast_to(distance[:, :, None], grid.shape)
        order = np.lexsort((distance.ravel(), grid.ravel()))
        codes, first = np.unique(grid.ravel()[order], return_index=True)
        places = order[first]  # of each code in this image, where the feature is nearest to it
        near = distance.ravel()[places]
        worst = self._distance[codes].argmax(axis=1)
        better = near < self._distance[codes, worst]
        codes, worst, places = codes[better], worst[better], places[better]
        self._distance[codes, worst] = near[better]
        row, column = np.unravel_index(places, grid.shape)[:2]
        self._place[codes, worst] = np.stack([np.full_like(row, len(self.keys)), row, column], axis=1)
        self.keys.append(key)
        if self.store is not None and key in self.store:
            self.presence.add(grid, self.store.units(key))

    @property
    def counts(self) -> Int[np.ndarray, " k"]:
        """How often each code was chosen."""
        counts: np.ndarray = self.usage.state.numpy()
        return counts

    @property
    def order(self) -> list[int]:
        """All codes, the most used first; equal ones in order of their number."""
        return [int(code) for code in np.argsort(-self.counts, kind="stable")]

    def cards(self, dataset: FolderDataset, top: int = TOP) -> list[CodeCard]:
        """The most used codes explained; `dataset` is read again for the patches."""
        codes = [code for code in self.order[:top] if self.counts[code] > 0]
        tiles = decode_alone(self.tokenizer, codes)
        found = self._found_with(codes)
        near = nearest_units(self.tokenizer, self.store, codes, self.counts > 0)
        total = int(self.counts.sum())
        words = self.tokenizer.codebook.words
        return [
            CodeCard(
                code,
                words[code] if words else None,
                int(self.counts[code]),
                int(self.counts[code]) / total,
                tiles[place],
                self._patches(code, dataset),
                None if found is None else {name: rows[place] for name, rows in found.items()},
                None if near is None else {name: rows[place] for name, rows in near.items()},
            )
            for place, code in enumerate(codes)
        ]

    def _found_with(self, codes: Sequence[int]) -> dict[str, list[list[Associated]]] | None:
        if self.store is None or not self.presence.codes:
            return None
        return {name: self.presence.associated(codes, name, SHOWN[name]) for name in GRANULARITIES}

    def _patches(self, code: int, dataset: FolderDataset) -> tuple[Patch, ...]:
        """Where the code fits best, one place an image, the best first."""
        patches = []
        for rank in np.argsort(self._distance[code], kind="stable"):
            if not np.isfinite(self._distance[code, rank]):
                break
            image, row, column = (int(value) for value in self._place[code, rank])
            key, f = self.keys[image], self.tokenizer.factor
            box = ((column - WINDOW) * f, (row - WINDOW) * f, (column + WINDOW + 1) * f, (row + WINDOW + 1) * f)
            patches.append(Patch(key, crop(dataset.path(key), self.size, box)))
        return tuple(patches)


def explain_codes(
    tokenizer: Tokenizer,
    dataset: FolderDataset,
    batches: Iterable[Batch],
    store: Lexicon | None = None,
    top: int = TOP,
    patches: int = PATCHES,
) -> list[CodeCard]:
    """The `top` most used codes of the deep level with their patches and words, the most used first.

    Args:
        tokenizer: in evaluation mode, on the batches' device.
        dataset: where the images of the batches are, by key.
        batches: images of one size; read once.
        store: their text.
        top: how many codes; codes that were never chosen are left out.
        patches: at most how many patches a code, each from another image.

    Raises:
        DataError: there is no image.
    """
    survey = Survey(tokenizer, store, patches)
    for batch in batches:
        survey.update(batch)
    if not survey.keys:
        raise DataError(f"There is no image in {dataset.folder} to explain codes by.")
    return survey.cards(dataset, top)


def decode_alone(tokenizer: Tokenizer, codes: Sequence[int]) -> list[UInt8[np.ndarray, "y x 3"]]:
    """What each code decodes to where it stands among its like: the middle of a small grid filled with it.

    The middle, as a decoder treats the border of an image differently. Images of 2f x 2f pixels.
    """
    tiles = []
    edge = ALONE * tokenizer.factor // 4
    entries = tokenizer.lookup_entries()
    for start in range(0, len(codes), CHUNK):
        chunk = entries[list(codes[start : start + CHUNK])]
        images = tokenizer.decoder(chunk[:, :, None, None].expand(-1, -1, ALONE, ALONE).contiguous())
        tiles += [as_bytes(image[:, edge:-edge, edge:-edge]) for image in images]
    return tiles


@torch.no_grad()
def nearest_units(
    tokenizer: Tokenizer, store: Lexicon | None, codes: Sequence[int], used: Sequence[bool] | np.ndarray
) -> dict[str, list[list[Near]]] | None:
    """For each code the units nearest to it in the aligned space, by granularity; None without aligner or store.

    The cosine is taken after the mean over all units is removed from the units and the mean over all used entries from
    the entries. Vectors of a text encoder share a large common direction (any two sentences have a high cosine), and
    entries that were pulled towards them share one too; with these left in, the few units nearest to the common
    direction would be nearest to every code. Entries never chosen keep the values they were initialised with and would
    blur that mean, so they do not count.

    Raises DataError where the store's vectors are not of the width that the aligner was trained with.

    Words and phrases count that stand in at least `FEWEST_IMAGES` images of the store; sentences, which seldom
    come twice, in any number. Of each granularity the `MOST_UNITS` most frequent are looked at.
    """
    if tokenizer.aligner is None or store is None or not len(codes):
        return None
    entries = tokenizer.lookup_entries()
    found = {}
    for name in GRANULARITIES:
        embedded = tokenizer.aligner.embed_entries(entries, name)
        units, vectors = frequent_units(store, name)
        if embedded is not None and units:
            if vectors.shape[1] != embedded.shape[1]:
                raise DataError(
                    f"The text store's vectors have {vectors.shape[1]} numbers, the model was aligned with "
                    f"{embedded.shape[1]}; give the store that it was trained with."
                )
            embedded = embedded.float().cpu()
            centre = embedded[torch.as_tensor(np.asarray(used, bool))].mean(0)
            found[name] = _nearest(embedded[list(codes)] - centre, vectors - vectors.mean(0), units, SHOWN[name])
    return found or None


def frequent_units(store: Lexicon, granularity: str) -> tuple[list[str], Float[Tensor, "u t"]]:
    """The most frequent units of a store that are frequent enough, with their vectors."""
    texts, vectors = store.vocabulary(granularity)
    counts = store.counts(granularity)
    fewest = 1 if granularity == "sentences" else FEWEST_IMAGES
    rows = [int(row) for row in np.argsort(-counts, kind="stable")[:MOST_UNITS] if counts[row] >= fewest]
    return [texts[row] for row in rows], torch.from_numpy(np.asarray(vectors[rows], np.float32))


def _nearest(
    codes: Float[Tensor, "c t"], vectors: Float[Tensor, "u t"], units: Sequence[str], count: int
) -> list[list[Near]]:
    cosines = normalize(codes, dim=1) @ normalize(vectors, dim=1).T
    best = cosines.topk(min(count, len(units)), dim=1)
    return [
        [Near(units[unit], float(cosine)) for unit, cosine in zip(row, values, strict=True)]
        for row, values in zip(best.indices.tolist(), best.values.tolist(), strict=True)
    ]
