"""Searches: by typed text, by an uploaded image, and by a patch."""

import re
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Int

from tavq.core.errors import TavqError
from tavq.explore.answers.base import Missing
from tavq.explore.answers.codes import Patch, PatchList
from tavq.explore.answers.images import ImageList, SearchResult, UploadResult
from tavq.explore.answers.units import ImageRow, UnitRow
from tavq.explore.errors import BadRequest
from tavq.explore.explorer import Explorer
from tavq.explore.level import LevelStatistics
from tavq.explore.model import ExploredModel
from tavq.explore.pages.codes import code_row
from tavq.explore.pages.images import find_captions, grids_of
from tavq.explore.pages.links import image_fields, patch
from tavq.explore.pages.units import unit_row
from tavq.explore.requests import PatchRequest
from tavq.explore.statistics.rows import find_largest
from tavq.explore.store import LevelShape
from tavq.interfaces import GRANULARITIES
from tavq.ops.topk import topk_dot_products

MAX_NORM = 1.001
"""Upper bound of the length of an aligned vector, with rounding."""

MAX_TEXT = 500
WORD = r"[\w'-]+"
CODES_OF_UPLOAD = 64
"""The rarest codes of an upload that are compared with all images."""

MAX_ANCHORS = 4_000_000
"""Positions that a patch search collects; of more frequent codes the rest is left out."""


def search_text(explorer: Explorer, model: ExploredModel, level: str, text: str, limit: int) -> SearchResult:
    """Units, codes, captions and images that a typed text finds."""
    if not text.strip() or len(text) > MAX_TEXT:
        raise BadRequest(f"Type a text of 1 to {MAX_TEXT} characters.")
    exact, others = _find_units(model, text, limit // 2)
    codes, source = _find_codes(model, level, exact or others[:1], limit)
    found = find_captions(explorer, text.casefold().strip())
    rows = [ImageRow(**image_fields(explorer, str(image))) for image in found[:limit]]
    captions = ImageList(total=len(found), offset=0, images=rows, missing=[])
    aligned, notes, missing = _search_aligned(explorer, model, text, limit)
    return SearchResult(
        units=exact + others, codes=[code_row(model, level, code) for code in codes], captions=captions,
        aligned=aligned, notes=[*source, *notes], missing=[*model.missing, *missing],
    )  # fmt: skip


def _find_units(model: ExploredModel, text: str, limit: int) -> tuple[list[UnitRow], list[UnitRow]]:
    """Units that are the text or a word of it, in this order, and those that contain the text."""
    folded = text.casefold().strip()
    order = {wanted: place for place, wanted in enumerate(dict.fromkeys([folded, *re.findall(WORD, folded)]))}
    matches = [
        (order[match], name, unit) for name in GRANULARITIES for match, unit in model.units[name].find_exactly(order)
    ]
    exact = [(name, unit) for _, name, unit in sorted(matches, key=lambda match: match[0])]
    found = [(name, unit) for name in GRANULARITIES for unit in model.units[name].find(text)[:limit]]
    others = [each for each in found if each not in exact]
    return [unit_row(model, *each) for each in exact], [unit_row(model, *each) for each in others]


def _find_codes(model: ExploredModel, level: str, units: list[UnitRow], limit: int) -> tuple[list[int], list[str]]:
    """The codes of the first unit that has any, and a note that names it."""
    for unit in units:
        if codes := _codes_of(model, level, unit, limit):
            return codes, [f"The codes are those of “{unit.text}” ({unit.granularity})."]
    return [], []


def _codes_of(model: ExploredModel, level: str, unit: UnitRow, limit: int) -> list[int]:
    table = model.level(level).with_unit(unit.granularity, unit.unit or 0)
    lift = table.lift
    sure = table.certain(len(model.units[unit.granularity])) & (lift > 1)
    return np.flatnonzero(sure)[np.argsort(-lift[sure], kind="stable")][:limit].tolist()


def _search_aligned(
    explorer: Explorer, model: ExploredModel, text: str, limit: int
) -> tuple[list[ImageRow], list[str], list[Missing]]:
    if model.tokenizer.aligner is None:
        return [], [], []
    try:
        vector, notes = model.embed_query(text)
    except TavqError as error:
        remedy = "Give the folder of the text encoder with --text-encoder."
        return [], [], [Missing(part="text_encoder", reason=str(error), remedy=remedy)]
    return nearest_images(explorer, model, vector.numpy(), limit), list(notes), []


def nearest_images(
    explorer: Explorer, model: ExploredModel, vector: Float[np.ndarray, " e"], limit: int
) -> list[ImageRow]:
    """The readable images nearest to a vector in the aligned space."""
    extra = model.store.manifest.unreadable
    best = topk_dot_products(vector[None], model.store.grids["embeddings"], limit + extra, MAX_NORM)
    pairs = zip(best.rows[0].tolist(), best.scores[0].tolist(), strict=True)
    kept = [(image, score) for image, score in pairs if model.readable[image]][:limit]
    return [ImageRow(**image_fields(explorer, str(image), score)) for image, score in kept]


# --- by image ---------------------------------------------------------------------------------------------------


def search_upload(explorer: Explorer, model: ExploredModel, data: bytes, limit: int) -> UploadResult:
    """Keep an uploaded image, and find images with the same codes and near it in the aligned space."""
    image = explorer.images.add(data)
    grid = grids_of(explorer, model, image)["deep"]
    level = model.level("deep")
    by_codes = [
        ImageRow(**image_fields(explorer, str(other), score)) for other, score in similar_images(model, grid, limit)
    ]
    aligned = []
    if model.tokenizer.aligner is not None:
        [vector] = model.embed_grids([grid], explorer.images.batch(image, model.size))
        aligned = nearest_images(explorer, model, vector.numpy(), limit)
    return UploadResult(
        upload=ImageRow(**image_fields(explorer, image)), by_codes=by_codes, aligned=aligned,
        units=_suggest_words(model, level, grid, limit), missing=model.missing,
    )  # fmt: skip


def similar_images(model: ExploredModel, grid: Int[np.ndarray, "h w c"], limit: int) -> list[tuple[int, float]]:
    """The images whose codes are most like those of a grid, with the cosine of their weighted presence.

    The weight of a code is log(images / images with it), as in tf-idf with presence only; of a grid only its
    CODES_OF_UPLOAD rarest codes count.
    """
    level = model.level("deep")
    total = len(model.readable)
    codes = np.unique(grid)
    having = level.columns.images[codes]
    weights = np.log(total / having.clip(1)) * (having > 0)
    order = np.argsort(-weights, kind="stable")[:CODES_OF_UPLOAD]
    scores = np.zeros(total)
    for code, weight in zip(codes[order].tolist(), weights[order].tolist(), strict=True):
        images = np.unique(level.positions[code] // (level.shape.cells * level.shape.parts))
        scores[images] += weight * weight
    scores = np.divide(scores, model.code_norms, out=np.zeros(total), where=model.code_norms > 0)
    scores /= max(float(np.sqrt((weights[order] ** 2).sum())), 1e-12)
    best = find_largest(scores, limit)
    return [(int(image), float(scores[image])) for image in best if scores[image] > 0]


def _suggest_words(
    model: ExploredModel, level: LevelStatistics, grid: Int[np.ndarray, "h w c"], limit: int
) -> list[UnitRow]:
    """Words whose associations with the codes of a grid add up to most, by the formula of the held-out score."""
    profiles = model.store.tables[f"{level.name}/profiles"]
    if not profiles.shape[1]:
        return []
    scores = np.asarray(profiles[np.unique(grid)], np.float32).sum(axis=0)
    best = [word for word in np.argsort(-scores, kind="stable")[:limit].tolist() if scores[word] > 0]
    return [unit_row(model, "words", word) for word in best]


# --- by patch ---------------------------------------------------------------------------------------------------


def search_patch(explorer: Explorer, model: ExploredModel, request: PatchRequest) -> PatchList:
    """Positions where the codes of a rectangle are found again, most matches first.

    A match counts log(positions / positions of the code), so that rare codes decide; a score is the fraction of the
    rectangle's own weight.
    """
    level = model.level(request.level)
    grid = grids_of(explorer, model, request.image)[request.level]
    block = grid[request.row : request.row + request.height, request.column : request.column + request.width]
    if block.shape[:2] != (request.height, request.width):
        raise BadRequest(f"The rectangle lies outside the grid of {grid.shape[0]} x {grid.shape[1]} positions.")
    anchors, scores = _vote(level, block)
    if not len(anchors):
        return PatchList(total=0, offset=0, patches=[], missing=[])
    best = find_largest(scores, request.limit)
    found = []
    for anchor, score in zip(anchors[best].tolist(), scores[best].tolist(), strict=True):
        image, cell = divmod(anchor, level.shape.cells)
        place = (image, *divmod(cell, level.shape.width))
        size = {"height": request.height, "width": request.width}
        found.append(patch(explorer, model, request.level, place, **size, score=score))
    patches: list[Patch] = found
    return PatchList(total=len(anchors), offset=0, patches=patches, missing=[])


def _vote(level: LevelStatistics, block: Int[np.ndarray, "u v c"]) -> tuple[np.ndarray, np.ndarray]:
    """Where the block may lie, as image * cells + cell of its first position, and the fraction of weight that matches.

    The rarest codes are collected first, up to MAX_ANCHORS positions.
    """
    shape, total = level.shape, max(int(level.columns.count.sum()), 1)
    cells = [(int(code), row, column) for (row, column, _), code in np.ndenumerate(block)]
    counts = level.columns.count
    anchors, weights, whole, collected = [], [], 0.0, 0
    for code, row, column in sorted(cells, key=lambda cell: (counts[cell[0]], cell)):
        weight = float(np.log(total / max(int(counts[code]), 1)))
        whole += weight
        if collected + counts[code] > MAX_ANCHORS and collected:
            continue
        own = _find_anchors(level.positions[code], shape, (row, column), block.shape)
        anchors.append(own)
        weights.append(np.full(len(own), weight))
        collected += int(counts[code])
    places = np.concatenate(anchors)
    order = np.argsort(places, kind="stable")  # merges the anchors of each code, which are in order already
    places, weight_of = places[order], np.concatenate(weights)[order]
    first = np.flatnonzero(np.diff(places, prepend=-1))
    scores = np.add.reduceat(weight_of, first) if len(first) else weight_of
    return places[first], scores / max(whole, 1e-12)


def _find_anchors(
    positions: Int[np.ndarray, " v"], shape: LevelShape, offset: tuple[int, int], size: Sequence[int]
) -> Int[np.ndarray, " a"]:
    """Where a block of `size` may lie of which a code at `positions` is `offset` from its first position, in order."""
    (row, column), width = offset, shape.cells * shape.parts
    image = positions // width  # `divmod` takes several times as long
    cell = (positions - image * width) // shape.parts
    top = cell // shape.width - row
    left = cell - (top + row) * shape.width - column
    inside = (top >= 0) & (left >= 0) & (top + size[0] <= shape.height) & (left + size[1] <= shape.width)
    anchors: np.ndarray = image * shape.cells + top * shape.width + left
    return anchors[inside]
