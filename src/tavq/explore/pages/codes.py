"""Pages of codes: the list of a level, one code, and its positions."""

from typing import Any

import numpy as np
from jaxtyping import Int

from tavq.explore.answers.base import Granularity, Missing
from tavq.explore.answers.codes import (
    AlignedUnit,
    Association,
    CodeList,
    CodePage,
    CodeRow,
    Context,
    Cooccurrence,
    HeldOutLabel,
    Neighbour,
    Patch,
    PatchList,
    Surrounding,
)
from tavq.explore.explorer import Explorer
from tavq.explore.level import LevelStatistics
from tavq.explore.model import ExploredModel
from tavq.explore.pages.links import address, code_fields, finite, patch, patch_address, unit_fields
from tavq.explore.pages.neighbours import find_neighbours
from tavq.explore.requests import CodeQuery
from tavq.explore.statistics.codes import NONE
from tavq.explore.statistics.tables import Tables, wilson_interval
from tavq.interfaces import GRANULARITIES
from tavq.metrics.association import MAX_UNCERTAIN

SHOWN_UNITS = {"words": 12, "phrases": 8, "sentences": 4}
SHOWN_AGAINST, SHOWN_CODES, SHOWN_EXAMPLES, CONTEXTS = 6, 12, 12, 3
REACH = 2
SORTED_BY = {
    "usage": "count",
    "entropy": "entropy",
    "specificity": "specificity",
    "certainty": "lift",
    "precision": "precision",
    "held_out": "held_lift",
    "position_bias": "position_bias",
    "images": "images",
}


# --- lists ------------------------------------------------------------------------------------------------------


def list_codes(model: ExploredModel, level: str, query: CodeQuery) -> CodeList:
    """The codes of a level that pass the filters, sorted."""
    statistics = model.level(level)
    kept = np.flatnonzero(_passes(model, statistics, query))
    ordered = _sort(statistics, kept, query)
    page = ordered[query.offset : query.offset + query.limit].tolist()
    rows = [code_row(model, level, code) for code in page]
    return CodeList(total=len(kept), offset=query.offset, codes=rows, missing=model.missing)


def _passes(model: ExploredModel, statistics: LevelStatistics, query: CodeQuery) -> np.ndarray:
    columns = statistics.columns
    passes = np.ones(len(columns.count), bool)
    for wanted, has in ((query.dead, columns.count == 0), (query.labelled, columns.label != NONE)):
        if wanted is not None:
            passes &= has == wanted
    if query.part is not None:
        passes &= statistics.part_of == query.part
    for low, column in ((query.min_count, columns.count), (query.min_bias, columns.position_bias),
                        (query.min_lift, columns.lift)):  # fmt: skip
        if low is not None:
            passes &= column >= low  # False for NaN
    for high, column in ((query.max_count, columns.count), (query.max_bias, columns.position_bias),
                         (query.max_entropy, columns.entropy)):  # fmt: skip
        if high is not None:
            passes &= column <= high
    if query.query.strip():
        passes &= _matches(model, statistics, query.query.casefold().strip())
    return passes


def _matches(model: ExploredModel, statistics: LevelStatistics, query: str) -> np.ndarray:
    labels = np.array([query in text.casefold() for text in statistics.units["words"].texts] + [False])
    matches = labels[statistics.columns.label]  # NONE is the last
    for code, name in enumerate(model.codebook(statistics.name).words):
        matches[code] |= query in name.casefold()
    if query.isascii() and query.isdigit() and int(query) < len(matches):
        matches[int(query)] = True
    return matches


def _sort(statistics: LevelStatistics, codes: Int[np.ndarray, " c"], query: CodeQuery) -> Int[np.ndarray, " c"]:
    if query.sort == "index":
        return codes[::-1] if query.order == "desc" else codes
    values = np.asarray(getattr(statistics.columns, SORTED_BY[query.sort])[codes], np.float64)
    keys = -values if query.order == "desc" else values
    return codes[np.argsort(np.where(np.isnan(keys), np.inf, keys), kind="stable")]


def code_row(model: ExploredModel, level: str, code: int) -> CodeRow:
    """A code in a list."""
    return CodeRow(**row_fields(model, level, code))


def row_fields(model: ExploredModel, level: str, code: int) -> dict[str, Any]:
    """The fields of `CodeRow`."""
    statistics = model.level(level)
    columns = statistics.columns
    positions = int(model.readable.sum()) * statistics.shape.cells
    count = int(columns.count[code])
    own = {
        "count": count,
        "fraction": count / max(positions, 1),
        "images": int(columns.images[code]),
        "dead": count == 0,
        "entropy": finite(columns.entropy[code]),
        "specificity": finite(columns.specificity[code]),
        "certainty": finite(columns.lift[code]),
        "precision": finite(columns.precision[code]),
        "position_bias": float(columns.position_bias[code]),
        "held_out_lift": finite(columns.held_lift[code]),
    }
    return code_fields(model, level, code) | own


# --- one code ---------------------------------------------------------------------------------------------------


def show_code(explorer: Explorer, model: ExploredModel, level: str, code: int) -> CodePage:
    """Everything about a code."""
    statistics = model.check_code(level, code)
    tables = {name: statistics.with_units(code, name) for name in GRANULARITIES if len(model.units[name])}
    missing = [*model.missing, *_missing_of(model, level, code)]
    decodes = model.decodes_entries(level)
    mean = address(f"/models/{model.id}/levels/{level}/codes/{code}/mean.png") if decodes else None
    return CodePage(
        **row_fields(model, level, code),
        units={name: find_associations(model, name, table) for name, table in tables.items()},
        against=_find_against(model, tables["words"]) if "words" in tables else [],
        aligned={name: _rank_aligned(model, level, code, name, tables[name]) for name in _aligned(model, level)},
        held_out=_held_out(model, statistics, code),
        neighbours={
            sense: [Neighbour(**code_fields(model, level, other), distance=distance) for other, distance in found]
            for sense, found in find_neighbours(model, level, code).items()
        },
        mean_context=mean,
        contexts=_contexts(explorer, model, level, code),
        examples=[patch(explorer, model, level, place) for place in statistics.closest(code)[:SHOWN_EXAMPLES]],
        position_map=statistics.position_map(code).tolist(),
        cooccurrences=_cooccurrences(model, statistics, code),
        surroundings=_surroundings(model, statistics, code),
        missing=missing,
    )


def _aligned(model: ExploredModel, level: str) -> list[Granularity]:
    return [name for name in model.aligned_levels if model.is_aligned(level, name)]  # type: ignore[misc]


def _missing_of(model: ExploredModel, level: str, code: int) -> list[Missing]:
    missing = []
    if not model.decodes_entries(level):
        reason = f"The decoder reads the deep grid only; the entries of level {level} are of another codebook."
        missing.append(Missing(part="decoder", reason=reason))
    if model.level(level).columns.count[code] == 0:
        missing.append(Missing(part="usage", reason="No image of this data set has the code."))
    elif (untested := _why_untested(model.level(level), code)) is not None:
        missing.append(Missing(part="held_out", reason=untested))
    return missing


def _why_untested(statistics: LevelStatistics, code: int) -> str | None:
    """Why the code has no held-out score; None where it has one."""
    columns = statistics.columns
    if np.isfinite(columns.held_lift[code]):
        return None
    if columns.label[code] == NONE:
        return "No word goes with the code with certainty."
    return "The label was chosen on all images, as too few were left to choose it on some and test it on others."


def find_associations(model: ExploredModel, granularity: str, table: Tables) -> list[Association]:
    """Units that go with a code: certain ones by lift, or a few uncertain ones where none is certain."""
    lift, sure = table.lift, table.certain(len(table.both))
    order = np.argsort(-lift, kind="stable")
    positive = order[lift[order] > 1]
    certain = positive[sure[positive]]
    chosen = certain[: SHOWN_UNITS[granularity]] if len(certain) else positive[:MAX_UNCERTAIN]
    return _associations(model, granularity, table, chosen)


def _find_against(model: ExploredModel, table: Tables) -> list[Association]:
    lift, sure = table.lift, table.certain(len(table.both))
    order = np.argsort(lift, kind="stable")
    return _associations(model, "words", table, order[sure[order] & (lift[order] < 1)][:SHOWN_AGAINST])


def _associations(
    model: ExploredModel, granularity: str, table: Tables, units: Int[np.ndarray, " u"]
) -> list[Association]:
    own = table.select(units)
    ends, lifts, sure = own.lift_intervals(), own.lift, own.certain(len(table.both))
    found = []
    for row, unit in enumerate(units.tolist()):
        both, with_code, with_unit = int(own.both[row]), int(own.with_code[row]), int(own.with_unit[row])
        found.append(Association(
            **unit_fields(model, granularity, unit), lift=float(lifts[row]), interval=tuple(ends[row].tolist()),
            certain=bool(sure[row]), precision=both / max(with_code, 1),
            precision_interval=wilson_interval(both, with_code), base_rate=with_unit / max(own.images, 1),
            recall=both / max(with_unit, 1), images=own.images, with_code=with_code, with_unit=with_unit, both=both,
        ))  # fmt: skip
    return found


def _rank_aligned(model: ExploredModel, level: str, code: int, granularity: str, table: Tables) -> list[AlignedUnit]:
    cosines = model.cosines(level, granularity)[:, code].astype(np.float32)
    lift, ranks = table.lift, table.ranks()
    best = np.argsort(-cosines, kind="stable")[: SHOWN_UNITS[granularity]].tolist()
    return [
        AlignedUnit(
            **unit_fields(model, granularity, unit), cosine=float(cosines[unit]), lift=float(lift[unit]),
            statistical_rank=int(ranks[unit]),
        )
        for unit in best
    ]  # fmt: skip


def _held_out(model: ExploredModel, statistics: LevelStatistics, code: int) -> HeldOutLabel | None:
    columns = statistics.columns
    if not np.isfinite(columns.held_lift[code]):
        return None
    return HeldOutLabel(
        **unit_fields(model, "words", int(columns.label[code])), lift=float(columns.held_lift[code]),
        interval=(float(columns.held_low[code]), float(columns.held_high[code])),
        precision=float(columns.held_precision[code]), base_rate=float(columns.held_base[code]),
        images=int(columns.held_images[code]), shuffled=finite(columns.held_shuffled[code]),
        confirmed=bool(columns.held_low[code] > 1),
    )  # fmt: skip


def _contexts(explorer: Explorer, model: ExploredModel, level: str, code: int) -> list[Context]:
    statistics = model.level(level)
    places = statistics.spread(code, CONTEXTS)
    if level != "deep":
        return [Context(**dict(patch(explorer, model, level, place)), decoded=None, without=None) for place in places]
    return [
        Context(
            **dict(patch(explorer, model, level, place)), decoded=patch_address(model, level, place, decoded=True),
            without=patch_address(model, level, place, without=code),
        )
        for place in places
    ]  # fmt: skip


def _cooccurrences(model: ExploredModel, statistics: LevelStatistics, code: int) -> list[Cooccurrence]:
    table = statistics.with_code(code)
    lift = table.lift
    sure = table.certain(len(lift)) & (lift > 1)
    sure[code] = False
    best = np.flatnonzero(sure)[np.argsort(-lift[sure], kind="stable")][:SHOWN_CODES].tolist()
    return [
        Cooccurrence(**code_fields(model, statistics.name, other), lift=float(lift[other]), both=int(table.both[other]))
        for other in best
    ]


def _surroundings(model: ExploredModel, statistics: LevelStatistics, code: int) -> list[list[Surrounding | None]]:
    def surrounding(other: int, share: float, lift: float) -> Surrounding:
        return Surrounding(**code_fields(model, statistics.name, other), share=share, lift=lift)

    rows = statistics.around(code, REACH)
    return [[None if found is None else surrounding(*found) for found in row] for row in rows]


def list_examples(
    explorer: Explorer, model: ExploredModel, level: str, code: int, order: str, offset: int, limit: int
) -> PatchList:
    """Positions of a code: the closest ones, or all in order of image."""
    statistics = model.check_code(level, code)
    patches: list[Patch]
    if order == "closest":
        places = statistics.closest(code)
        total, places = len(places), places[offset : offset + limit]
    else:
        positions = statistics.positions[code]
        total, places = len(positions), statistics.locate(positions[offset : offset + limit])
    patches = [patch(explorer, model, level, place) for place in places]
    return PatchList(total=total, offset=offset, patches=patches, missing=_missing_of(model, level, code))
