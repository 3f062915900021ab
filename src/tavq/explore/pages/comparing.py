"""Two codes side by side, and several models by the words that their codes carry."""

import math

import numpy as np
from jaxtyping import Float, Int

from tavq.explore.answers.codes import CodePair
from tavq.explore.answers.units import ModelComparison, ModelWord, UnitCode
from tavq.explore.errors import BadRequest
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.pages.codes import show_code
from tavq.explore.pages.units import unit_codes, unit_row

MAX_MODELS = 8
OVERLAP = 100_000
"""Positions of a code, on the finer grid, that an overlap counts."""

Named = tuple[ExploredModel, str, int]
"""A code: its model, level and index."""


def find_code(explorer: Explorer, name: str) -> Named:
    """The code called MODEL:LEVEL:CODE."""
    parts = name.split(":")
    if len(parts) != 3 or not (parts[2].isascii() and parts[2].isdigit()):
        raise BadRequest(f"A code is named MODEL:LEVEL:CODE, such as {explorer.first.id}:deep:7; got {name!r:.80}.")
    model = explorer.model(parts[0])
    model.check_code(parts[1], int(parts[2]))
    return model, parts[1], int(parts[2])


def compare_codes(explorer: Explorer, first: str, second: str) -> CodePair:
    """Two codes, of one model or of two, on the same images."""
    codes = [find_code(explorer, name) for name in (first, second)]
    shown = [show_code(explorer, *code) for code in codes]
    images = [_distinct(model.level(level).prominent_images[code]) for model, level, code in codes]
    both = len(np.intersect1d(images[0], images[1], assume_unique=True))
    return CodePair(
        first=shown[0], second=shown[1], models=(codes[0][0].id, codes[1][0].id), images_both=both,
        images_either=len(images[0]) + len(images[1]) - both, overlap=_overlap(codes), words=_cosine(codes),
    )  # fmt: skip


def _overlap(codes: list[Named]) -> float:
    """Positions that both codes cover over those that either covers, on a grid that both divide, in the same images."""
    shapes = [model.level(level).shape for model, level, _ in codes]
    height, width = (math.lcm(*sides) for sides in zip(*((shape.height, shape.width) for shape in shapes), strict=True))
    covered = [_cover(code, height, width) for code in codes]
    last = min((own[-1] // (height * width) for own in covered if len(own)), default=0)
    kept = [own[own < (last + 1) * height * width] if all(map(len, covered)) else own for own in covered]
    both = len(np.intersect1d(kept[0], kept[1], assume_unique=True))
    either = len(kept[0]) + len(kept[1]) - both
    return both / either if either else 0.0


def _cover(code: Named, height: int, width: int) -> Int[np.ndarray, " p"]:
    """The positions of a finer grid that a code covers, as image * height * width + cell, in order."""
    model, name, index = code
    level = model.level(name)
    shape = level.shape
    tall, wide = height // shape.height, width // shape.width
    positions = level.positions[index][: OVERLAP // (tall * wide)].astype(np.int64)
    image, cell = np.divmod(positions, shape.cells * shape.parts)
    row, column = np.divmod(cell // shape.parts, shape.width)
    rows = (row * tall)[:, None, None] + np.arange(tall)[:, None]
    columns = (column * wide)[:, None, None] + np.arange(wide)
    return _distinct((image[:, None, None] * height + rows) * width + columns)


def _distinct(numbers: Int[np.ndarray, "..."]) -> Int[np.ndarray, " p"]:
    """The distinct numbers in order, as of `np.unique`, in a third of the time where they are almost in order."""
    ordered: np.ndarray = np.sort(numbers, axis=None)
    return ordered[np.diff(ordered, prepend=ordered[:1] - 1) > 0]


def _cosine(codes: list[Named]) -> float | None:
    """The cosine of the codes' associations with words; None where one has none."""
    profiles: list[Float[np.ndarray, " p"]] = [model.level(level).profiles[code] for model, level, code in codes]
    if not profiles[0].any() or not profiles[1].any() or profiles[0].shape != profiles[1].shape:
        return None
    return float(profiles[0] @ profiles[1])


def compare_models(explorer: Explorer, ids: str, level: str, offset: int, limit: int) -> ModelComparison:
    """The most frequent words with the code of each model that goes with them most."""
    names = [name for name in ids.split(",") if name] or [model.id for model in explorer.models]
    if len(names) > MAX_MODELS:
        raise BadRequest(f"At most {MAX_MODELS} models can be compared at once; got {len(names)}.")
    models = [explorer.model(name) for name in names]
    shape = models[0].level(level).shape
    words = range(len(models[0].units["words"]))[offset : offset + limit]
    rows = [
        ModelWord(unit=unit_row(models[0], "words", word), best=[_best(model, level, word) for model in models])
        for word in words
    ]
    missing = [part for model in models for part in model.missing if part.part == "text"]
    return ModelComparison(
        models=names, level=shape.name, words=rows, total=len(models[0].units["words"]), offset=offset,
        missing=missing[:1],
    )  # fmt: skip


def _best(model: ExploredModel, level: str, word: int) -> UnitCode | None:
    table = model.level(level).with_unit("words", word)
    # Only these have a lift above 1; measuring all codes takes five times as long.
    above = np.flatnonzero(table.both * table.images > table.with_code * table.with_unit)
    own = table.select(above)
    sure = np.flatnonzero(own.certain(len(model.units["words"])))
    if not len(sure):
        return None
    return unit_codes(model, level, "words", table, above[sure[[own.lift[sure].argmax()]]])[0]
