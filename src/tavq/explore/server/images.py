"""Routes of images, heat maps and searches."""

from typing import Annotated, Literal

from fastapi import APIRouter, Query, Request, Response
from starlette.requests import ClientDisconnect

from tavq.core.errors import DataError
from tavq.explore.answers.base import Granularity, Level
from tavq.explore.answers.codes import PatchList
from tavq.explore.answers.images import HeatMap, ImageList, ImagePage, SearchResult, UploadResult
from tavq.explore.errors import BadRequest, Busy
from tavq.explore.pages.finding import search_patch, search_text, search_upload
from tavq.explore.pages.images import heat_map, list_images, show_image
from tavq.explore.requests import PAGE, ImageId, Limit, Offset, PatchRequest
from tavq.explore.server.asked import Model, Shown, Text
from tavq.explore.server.lanes import NETWORKS

FOUND = 24
"""Results of a search where the request says nothing."""

UPLOADS_AT_ONCE = 2
"""Uploads that are read and decoded at a time; more are refused as busy, and their bodies are not read."""

router = APIRouter()
_uploading = 0


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


@router.get("/models/{model}/images/{image}", response_model=ImagePage)
async def image_page(explorer: Shown, model: Model, image: ImageId) -> Response:
    """An image with its codes, its text and its reconstruction."""
    return await NETWORKS.answer(lambda: show_image(explorer, model, image))


@router.get("/models/{model}/levels/{level}/images/{image}/heat", response_model=HeatMap)
async def heat(
    explorer: Shown,
    model: Model,
    level: Level,
    image: ImageId,
    unit: Annotated[int, Query(ge=0, le=1 << 24)],
    granularity: Granularity = "words",
    source: Literal["statistics", "aligned"] = "statistics",
) -> Response:
    """Where the codes of an image carry a unit of text."""
    return await NETWORKS.answer(lambda: heat_map(explorer, model, level, image, granularity, unit, source))


@router.get("/models/{model}/search", response_model=SearchResult)
async def search(explorer: Shown, model: Model, text: Text, level: Level = "deep", limit: Limit = FOUND) -> Response:
    """Units, codes, captions and images that a typed text finds."""
    return await NETWORKS.answer(lambda: search_text(explorer, model, level, text, limit))


@router.post("/models/{model}/search/image", response_model=UploadResult)
async def search_image(request: Request, explorer: Shown, model: Model, limit: Limit = FOUND) -> Response:
    """Images like an uploaded one; the body is the image file, of which nothing is read while others are uploaded."""
    global _uploading
    if _uploading >= UPLOADS_AT_ONCE:
        raise Busy(f"{UPLOADS_AT_ONCE} images are being uploaded; try again.")
    _uploading += 1
    try:
        data = await _read(request)
        return await NETWORKS.answer(lambda: search_upload(explorer, model, data, limit))
    except DataError as error:
        raise BadRequest(str(error)) from error
    finally:
        _uploading -= 1


async def _read(request: Request) -> bytes:
    """The body, of which `Guard` bounds the length."""
    data = bytearray()
    try:
        async for part in request.stream():
            data += part
    except ClientDisconnect as error:
        raise BadRequest("The upload was broken off.") from error
    return bytes(data)


@router.post("/models/{model}/search/patch", response_model=PatchList)
async def search_patches(explorer: Shown, model: Model, request: PatchRequest) -> Response:
    """Positions where the codes of a rectangle are found again."""
    return await NETWORKS.answer(lambda: search_patch(explorer, model, request))
