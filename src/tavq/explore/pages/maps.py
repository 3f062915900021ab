"""All entries of a part in two dimensions, and sheets of their tiles."""

import hashlib
import threading
from collections import OrderedDict

import numpy as np
import torch
from jaxtyping import Float

from tavq.explore.answers.base import Missing
from tavq.explore.answers.codes import Atlas, CodeMap
from tavq.explore.errors import NotFound
from tavq.explore.model import ExploredModel, Pixels
from tavq.explore.pages.links import address

TILE, COLUMNS, TILES = 16, 32, 1024
"""Side of a tile in pixels, tiles in a row, and tiles on a sheet."""

REMEDY = "Install it with: pip install 'tavq[umap]'"

NEIGHBOURS, FEWEST = 15, 3
"""Neighbours that UMAP looks at, and the entries that it needs more of."""

KEPT = 16
"""Maps by UMAP that are kept, as they take so long."""

_umaps: OrderedDict[str, Float[np.ndarray, "k 2"]] = OrderedDict()
_lock = threading.Lock()


def show_map(model: ExploredModel, level: str, method: str, part: int) -> CodeMap:
    """The entries of a part of a level's codebook in two dimensions."""
    statistics = model.level(level)
    if part >= statistics.shape.parts:
        raise NotFound(f"Level {level} has no part {part}; it has {statistics.shape.parts}.")
    codes = np.flatnonzero(statistics.part_of == part)
    entries = model.entries(level)[torch.from_numpy(codes)]
    missing = [] if model.decodes_entries(level) and len(model.tiles) else [_without_tiles()]
    points, explained, method, more = _project(model, level, entries, method)
    return CodeMap(
        method=method,
        codes=codes.tolist(),
        x=points[:, 0].round(4).tolist(),
        y=points[:, 1].round(4).tolist(),
        counts=statistics.columns.count[codes].tolist(),
        explained=explained,
        atlas=_atlas(model, level) if not missing else None,
        missing=[*missing, *more],
    )


def _without_tiles() -> Missing:
    return Missing(part="decoder", reason="The entries are not decoded alone: another level's, or too many.")


def _project(
    model: ExploredModel, level: str, entries: Float[torch.Tensor, "k d"], method: str
) -> tuple[Float[np.ndarray, "k 2"], float | None, str, list[Missing]]:
    missing = []
    if method == "umap" and len(entries) > FEWEST:
        try:
            return project_umap(entries), None, "umap", []
        except ImportError:
            missing = [Missing(part="umap", reason="UMAP is not installed; this map is by PCA.", remedy=REMEDY)]
    points, explained = project_pca(entries)
    return points, explained, "pca", missing


def project_umap(entries: Float[torch.Tensor, "k d"]) -> Float[np.ndarray, "k 2"]:
    """UMAP's two dimensions, scaled to [0, 1]; ImportError where it is not installed. It takes seconds to minutes.

    Source: McInnes et al. 2018, "UMAP: Uniform Manifold Approximation and Projection" (arXiv 1802.03426).
    """
    key = hashlib.sha256(entries.numpy().tobytes()).hexdigest()
    with _lock:
        if key not in _umaps:
            from umap import UMAP

            neighbours = min(NEIGHBOURS, len(entries) - 1)
            # A seed makes the map the same each time, and leaves it one thread.
            points = UMAP(n_neighbors=neighbours, random_state=0, n_jobs=1).fit_transform(entries.numpy())
            _umaps[key] = _to_unit(np.asarray(points, np.float64))
            while len(_umaps) > KEPT:
                _umaps.popitem(last=False)
        return _umaps[key]


def project_pca(entries: Float[torch.Tensor, "k d"]) -> tuple[Float[np.ndarray, "k 2"], float]:
    """The first two principal components, scaled to [0, 1], and the fraction of the variance that they hold.

    The sign of a component is arbitrary; its largest coordinate is made positive, so that a map is the same on every
    machine.
    """
    centred = entries.double() - entries.double().mean(0)
    values, vectors = torch.linalg.eigh(centred.mT @ centred)
    directions = vectors.flip(1)[:, :2]
    directions = directions * directions.gather(0, directions.abs().argmax(0, keepdim=True)).sign()
    points = torch.zeros(len(entries), 2, dtype=torch.float64)
    points[:, : directions.shape[1]] = centred @ directions
    total = float(values.clamp(min=0).sum())
    explained = float(values.clamp(min=0).flip(0)[:2].sum()) / total if total else 1.0
    return _to_unit(points.numpy()), min(explained, 1.0)


def _to_unit(points: Float[np.ndarray, "k 2"]) -> Float[np.ndarray, "k 2"]:
    """Points scaled to [0, 1] by one factor, each axis in the middle."""
    low, high = points.min(axis=0), points.max(axis=0)
    scale = max(float((high - low).max()), 1e-12)
    return (points - (low + high) / 2) / scale + 0.5


def _atlas(model: ExploredModel, level: str) -> Atlas:
    pages = -(-len(model.tiles) // TILES)
    addresses = [address(f"/models/{model.id}/levels/{level}/atlas/{page}.webp") for page in range(pages)]
    return Atlas(tile=TILE, columns=COLUMNS, tiles=TILES, pages=addresses)


def draw_atlas(model: ExploredModel, level: str, page: int) -> Pixels:
    """A sheet of tiles in order of index, grey where there are no more."""
    model.level(level)
    if not model.decodes_entries(level) or page * TILES >= len(model.tiles):
        raise NotFound(f"Level {level} has no sheet {page}.")
    tiles = np.asarray(model.tiles[page * TILES : (page + 1) * TILES])
    rows = -(-len(tiles) // COLUMNS)
    steps = np.arange(TILE) * tiles.shape[1] // TILE
    sheet = np.full((rows * COLUMNS, TILE, TILE, 3), 235, np.uint8)
    sheet[: len(tiles)] = tiles[:, steps][:, :, steps]
    joined = sheet.reshape(rows, COLUMNS, TILE, TILE, 3).transpose(0, 2, 1, 3, 4)
    return np.ascontiguousarray(joined.reshape(rows * TILE, COLUMNS * TILE, 3))
