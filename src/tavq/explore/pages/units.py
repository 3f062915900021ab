"""Pages of words, phrases and sentences."""

import numpy as np
from jaxtyping import Int

from tavq.explore.answers.codes import UnitLink
from tavq.explore.answers.images import ImageList
from tavq.explore.answers.units import AlignedCode, ImageRow, UnitCode, UnitList, UnitPage, UnitRow
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.pages.links import code_fields, image_fields, unit_fields
from tavq.explore.statistics.tables import Tables
from tavq.metrics.word_codes import FOUND

SHOWN_CODES, SHOWN_IMAGES = 24, 12


def list_units(explorer: Explorer, granularity: str, query: str, offset: int, limit: int) -> UnitList:
    """The units that contain a query, or all, most frequent first."""
    model = explorer.first
    table = model.units[granularity]
    found = table.find(query) if query.strip() else list(range(len(table)))
    page = [unit_row(model, granularity, unit) for unit in found[offset : offset + limit]]
    missing = [part for part in model.missing if part.part == "text"]
    return UnitList(total=len(found), offset=offset, units=page, missing=missing)


def unit_row(model: ExploredModel, granularity: str, unit: int) -> UnitRow:
    """A unit in a list."""
    images = len(model.units[granularity].images[unit])
    return UnitRow(**unit_fields(model, granularity, unit), images=images)


def list_unit_images(explorer: Explorer, granularity: str, unit: int, offset: int, limit: int) -> ImageList:
    """The images whose text has a unit."""
    explorer.first.unit(granularity, unit)
    images = explorer.first.units[granularity].images[unit]
    rows = [ImageRow(**image_fields(explorer, str(image))) for image in images[offset : offset + limit].tolist()]
    return ImageList(total=len(images), offset=offset, images=rows, missing=[])


def show_unit(explorer: Explorer, model: ExploredModel, level: str, granularity: str, unit: int) -> UnitPage:
    """A unit, and the codes that go with it at a level."""
    statistics = model.level(level)
    model.unit(granularity, unit)
    table = statistics.with_unit(granularity, unit)
    lift, sure = table.lift, table.certain(len(model.units[granularity]))
    aligned = rank_codes(model, level, granularity, unit, table)
    first = [aligned_code.lift for aligned_code in aligned[:FOUND]]
    return UnitPage(
        **dict(unit_row(model, granularity, unit)),
        level=statistics.shape.name,
        codes=unit_codes(model, level, granularity, table, _by_lift(lift, sure)[:SHOWN_CODES]),
        predictors=unit_codes(model, level, granularity, table, _by_precision(table, lift, sure)[:SHOWN_CODES]),
        aligned=aligned,
        aligned_lift=float(np.mean(first)) if first else None,
        examples=list_unit_images(explorer, granularity, unit, 0, SHOWN_IMAGES).images,
        missing=model.missing,
    )


def _by_lift(lift: np.ndarray, sure: np.ndarray) -> Int[np.ndarray, " c"]:
    """Codes with a lift above 1: certain ones first, then by lift."""
    order = np.lexsort((-lift, ~sure))
    return order[lift[order] > 1]


def _by_precision(table: Tables, lift: np.ndarray, sure: np.ndarray) -> Int[np.ndarray, " c"]:
    codes = np.flatnonzero(sure & (lift > 1))
    precision = table.both[codes] / table.with_code[codes].clip(1)
    return codes[np.argsort(-precision, kind="stable")]


def unit_codes(
    model: ExploredModel, level: str, granularity: str, table: Tables, codes: Int[np.ndarray, " c"]
) -> list[UnitCode]:
    """How codes go with a unit; `table` has every code of the level."""
    own = table.select(codes)
    ends, lifts, sure = own.lift_intervals(), own.lift, own.certain(len(model.units[granularity]))
    rows = []
    for row, code in enumerate(codes.tolist()):
        both, with_code = int(own.both[row]), int(own.with_code[row])
        rows.append(UnitCode(
            **code_fields(model, level, code), lift=float(lifts[row]), interval=tuple(ends[row].tolist()),
            certain=bool(sure[row]), precision=both / max(with_code, 1), recall=both / max(int(own.with_unit[row]), 1),
            both=both, with_code=with_code,
        ))  # fmt: skip
    return rows


def rank_codes(model: ExploredModel, level: str, granularity: str, unit: int, table: Tables) -> list[AlignedCode]:
    """The used codes nearest to a unit in the aligned space, with their ranks by lift; empty without alignment."""
    if not model.is_aligned(level, granularity):
        return []
    used = model.level(level).columns.count > 0
    cosines = np.where(used, model.cosines(level, granularity)[unit].astype(np.float32), -np.inf)
    lift, ranks = table.lift, table.ranks()
    best = np.argsort(-cosines, kind="stable")[: min(SHOWN_CODES, int(used.sum()))].tolist()
    return [
        AlignedCode(
            **code_fields(model, level, code), cosine=float(cosines[code]), lift=float(lift[code]),
            statistical_rank=int(ranks[code]),
        )
        for code in best
    ]  # fmt: skip


def find_link(model: ExploredModel, granularity: str, text: str) -> UnitLink:
    """A unit by its text; without an id where too few images have it."""
    unit = model.unit_ids[granularity].get(text)
    return UnitLink(granularity=granularity, unit=unit, text=text)
