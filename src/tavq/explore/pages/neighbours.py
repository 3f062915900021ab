"""Codes near a code in three senses: by codebook distance, by what is decoded, and by words."""

import numpy as np
import torch
from jaxtyping import Float

from tavq.explore.model import ExploredModel

SHOWN = 8
BLOCK = 1024
"""Tiles that are compared at a time."""

Found = list[tuple[int, float]]
"""Codes and their distances, nearest first."""


def find_neighbours(model: ExploredModel, level: str, code: int) -> dict[str, Found]:
    """The nearest codes of the same part in each sense that can be computed.

    `codebook` is the codebook's own distance (l2, or 1 - cosine), `decoded` the mean absolute difference of the tiles
    at 8 x 8 pixels (0 to 255), `words` is 1 - cosine of the profiles.
    """
    statistics = model.level(level)
    same = statistics.part_of == statistics.part_of[code]
    same[code] = False
    senses = {"codebook": _codebook_distances(model, level, code)}
    if model.decodes_entries(level) and len(model.tiles):
        senses["decoded"] = _decoded_distances(model, code)
    profiles = statistics.profiles
    if profiles.shape[1] and profiles[code].any():
        senses["words"] = np.where(profiles.any(axis=1), 1 - profiles @ profiles[code], np.inf)
    return {name: _nearest(distances, same) for name, distances in senses.items()}


def _nearest(distances: Float[np.ndarray, " k"], same: np.ndarray) -> Found:
    masked = np.where(same, distances, np.inf)
    count = min(SHOWN, int(np.isfinite(masked).sum()))
    if not count:
        return []
    best = np.argpartition(masked, count - 1)[:count]
    best = best[np.lexsort((best, masked[best]))]
    return [(int(other), max(float(masked[other]), 0.0)) for other in best]


def _codebook_distances(model: ExploredModel, level: str, code: int) -> Float[np.ndarray, " k"]:
    codebook = model.codebook(level)
    entries = model.entries(level)
    if codebook.distance == "cosine":
        units = torch.nn.functional.normalize(entries, dim=1)
        return (1 - units @ units[code]).numpy()
    return (entries - entries[code]).square().sum(1).sqrt().numpy()


def _decoded_distances(model: ExploredModel, code: int) -> Float[np.ndarray, " k"]:
    tiles = model.thumbnails
    own = tiles[code].astype(np.int16)
    parts = [tiles[start : start + BLOCK] for start in range(0, len(tiles), BLOCK)]
    return np.concatenate([np.abs(part - own).mean(axis=1, dtype=np.float32) for part in parts])
