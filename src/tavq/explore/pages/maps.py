"""All entries of a part in two dimensions, and sheets of their tiles."""

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

REMEDY = "Install it with: pip install umap-learn"


def show_map(model: ExploredModel, level: str, method: str, part: int) -> CodeMap:
    """The entries of a part of a level's codebook in two dimensions."""
    statistics = model.level(level)
    if part >= statistics.shape.parts:
        raise NotFound(f"Level {level} has no part {part}; it has {statistics.shape.parts}.")
    codes = np.flatnonzero(statistics.part_of == part)
    entries = model.entries(level)[torch.from_numpy(codes)]
    missing = [] if model.decodes_entries(level) and len(model.tiles) else [_without_tiles()]
    points, explained, method, more = _project(entries, method)
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
    entries: Float[torch.Tensor, "k d"], method: str
) -> tuple[Float[np.ndarray, "k 2"], float | None, str, list[Missing]]:
    if method == "umap":
        try:
            from umap import UMAP
        except ImportError:
            missing = [Missing(part="umap", reason="UMAP is not installed; this map is by PCA.", remedy=REMEDY)]
            points, explained = project_pca(entries)
            return points, explained, "pca", missing
        if len(entries) > 3:
            neighbours = min(15, len(entries) - 1)
            points = UMAP(n_neighbors=neighbours, random_state=0).fit_transform(entries.numpy())
            return _to_unit(np.asarray(points, np.float64)), None, "umap", []
    points, explained = project_pca(entries)
    return points, explained, "pca", []


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
