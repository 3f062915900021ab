"""Routes of images, heat maps and searches."""

import asyncio
from typing import Annotated, Literal

from anyio.to_thread import run_sync
from fastapi import APIRouter, Query, Request

from tavq.core.errors import DataError
from tavq.explore.answers.base import Granularity, Level
from tavq.explore.answers.codes import PatchList
from tavq.explore.answers.images import HeatMap, ImageList, ImagePage, SearchResult, UploadResult
from tavq.explore.errors import BadRequest
from tavq.explore.pages.finding import search_patch, search_text, search_upload
from tavq.explore.pages.images import heat_map, list_images, show_image
from tavq.explore.requests import PatchRequest
from tavq.explore.server.asked import PAGE, ImageName, LevelName, Limit, Model, Offset, Shown, Text

FOUND = 24
"""Results of a search where the request says nothing."""

UPLOADS_AT_ONCE = 2
"""Bodies of uploads in memory at a time."""

router = APIRouter()
_uploading = asyncio.Semaphore(UPLOADS_AT_ONCE)


@router.get("/images")
def images(
    explorer: Shown,
    query: Text = "",
    split: Annotated[str | None, Query(max_length=100)] = None,
    offset: Offset = 0,
    limit: Limit = PAGE,
) -> ImageList:
    """The images of a split with a query in their captions or file names."""
    return list_images(explorer, query, split, offset, limit)


@router.get("/models/{model}/images/{image}")
def image_page(explorer: Shown, model: Model, image: ImageName) -> ImagePage:
    """An image with its codes, its text and its reconstruction."""
    return show_image(explorer, model, image)


@router.get("/models/{model}/levels/{level}/images/{image}/heat")
def heat(
    explorer: Shown,
    model: Model,
    level: LevelName,
    image: ImageName,
    unit: Annotated[int, Query(ge=0, le=1 << 24)],
    granularity: Granularity = "words",
    source: Literal["statistics", "aligned"] = "statistics",
) -> HeatMap:
    """Where the codes of an image carry a unit of text."""
    return heat_map(explorer, model, level, image, granularity, unit, source)


@router.get("/models/{model}/search")
def search(explorer: Shown, model: Model, text: Text, level: Level = "deep", limit: Limit = FOUND) -> SearchResult:
    """Units, codes, captions and images that a typed text finds."""
    return search_text(explorer, model, level, text, limit)


@router.post("/models/{model}/search/image")
async def search_image(request: Request, explorer: Shown, model: Model, limit: Limit = FOUND) -> UploadResult:
    """Images like an uploaded one; the body is the image file."""
    async with _uploading:
        data = await request.body()
        try:
            return await run_sync(search_upload, explorer, model, data, limit)
        except DataError as error:
            raise BadRequest(str(error)) from error


@router.post("/models/{model}/search/patch")
def search_patches(explorer: Shown, model: Model, request: PatchRequest) -> PatchList:
    """Positions where the codes of a rectangle are found again."""
    return search_patch(explorer, model, request)
