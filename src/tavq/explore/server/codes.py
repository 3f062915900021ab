"""Routes of codes, units of text, maps and comparisons."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Response

from tavq.explore.answers.base import Granularity, Level, Overview
from tavq.explore.answers.codes import CodeList, CodeMap, CodePage, CodePair, PatchList
from tavq.explore.answers.images import ImageList
from tavq.explore.answers.units import ModelComparison, UnitList, UnitPage
from tavq.explore.pages.codes import list_codes, list_examples, show_code
from tavq.explore.pages.comparing import compare_codes, compare_models
from tavq.explore.pages.maps import show_map
from tavq.explore.pages.overview import show_overview
from tavq.explore.pages.units import list_unit_images, list_units, show_unit
from tavq.explore.requests import PAGE, CodeQuery, Index, Limit, Offset
from tavq.explore.server.asked import Model, Shown, Text
from tavq.explore.server.lanes import NETWORKS, UMAPS

router = APIRouter()


@router.get("/overview")
def overview(explorer: Shown) -> Overview:
    """Data, models, levels, held-out scores, limits, and what is missing."""
    return show_overview(explorer)


@router.get("/models/{model}/levels/{level}/codes")
def codes_of_level(model: Model, level: Level, query: Annotated[CodeQuery, Query()]) -> CodeList:
    """The codes of a level that pass the filters, sorted."""
    return list_codes(model, level, query)


@router.get("/models/{model}/levels/{level}/codes/{code}")
def code_page(explorer: Shown, model: Model, level: Level, code: Index) -> CodePage:
    """Everything about a code."""
    return show_code(explorer, model, level, code)


@router.get("/models/{model}/levels/{level}/codes/{code}/examples")
def examples(
    explorer: Shown,
    model: Model,
    level: Level,
    code: Index,
    order: Literal["closest", "images"] = "images",
    offset: Offset = 0,
    limit: Limit = PAGE,
) -> PatchList:
    """The positions of a code: the closest ones, or all in the order of images."""
    return list_examples(explorer, model, level, code, order, offset, limit)


@router.get("/models/{model}/levels/{level}/map", response_model=CodeMap)
async def code_map(
    model: Model,
    level: Level,
    method: Literal["pca", "umap"] = "pca",
    part: Annotated[int, Query(ge=0, le=4096)] = 0,
) -> Response:
    """The entries of a part in two dimensions."""
    lane = UMAPS if method == "umap" else NETWORKS
    return await lane.answer(lambda: show_map(model, level, method, part))


@router.get("/units/{granularity}")
def units(
    explorer: Shown, granularity: Granularity, query: Text = "", offset: Offset = 0, limit: Limit = PAGE
) -> UnitList:
    """Words, phrases or sentences that contain a query, most frequent first."""
    return list_units(explorer, granularity, query, offset, limit)


@router.get("/units/{granularity}/{unit}/images")
def unit_images(
    explorer: Shown, granularity: Granularity, unit: Index, offset: Offset = 0, limit: Limit = PAGE
) -> ImageList:
    """The images whose text has a unit."""
    return list_unit_images(explorer, granularity, unit, offset, limit)


@router.get("/models/{model}/levels/{level}/units/{granularity}/{unit}")
def unit_page(explorer: Shown, model: Model, level: Level, granularity: Granularity, unit: Index) -> UnitPage:
    """A unit and the codes that go with it: both ways by the statistics, and by the aligned space."""
    return show_unit(explorer, model, level, granularity, unit)


@router.get("/compare/codes")
def code_pair(explorer: Shown, first: Text, second: Text) -> CodePair:
    """Two codes side by side, each named MODEL:LEVEL:CODE."""
    return compare_codes(explorer, first, second)


@router.get("/compare/models")
def model_comparison(
    explorer: Shown, models: Text = "", level: Level = "deep", offset: Offset = 0, limit: Limit = PAGE
) -> ModelComparison:
    """The most frequent words with the code of each model that goes with them most."""
    return compare_models(explorer, models, level, offset, limit)
