"""Entries of a codebook on their own: decoded alone, and the units of text nearest to them in the aligned space."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor
from torch.nn.functional import normalize

from tavq.core.errors import DataError
from tavq.inspection.pixels import as_bytes
from tavq.interfaces import GRANULARITIES
from tavq.metrics.association import MAX_UNITS, MIN_IMAGES
from tavq.tokenizer import Tokenizer

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
