"""Routes of image files, with the headers by which a browser keeps them."""

import hashlib
import secrets
from collections.abc import Callable
from typing import Annotated

from fastapi import APIRouter, Query, Request, Response

from tavq.explore.answers.base import Level
from tavq.explore.explorer import Explorer
from tavq.explore.model import Pixels
from tavq.explore.pages.images import crop_patch, reconstruct, show_difference
from tavq.explore.pages.links import LARGEST_ORIGINAL, ORIGINAL
from tavq.explore.pages.maps import draw_atlas
from tavq.explore.pixels import encode
from tavq.explore.requests import ImageId, Index
from tavq.explore.server.asked import Model, Shown
from tavq.explore.server.lanes import FILES, NETWORKS, Lane

SESSION = secrets.token_hex(8)
"""Marks what belongs to this process alone: uploads."""

SECONDS = 300
"""How long a browser shows a file again without asking."""

Cell = Annotated[int, Query(ge=0, le=4096)]
Span = Annotated[int, Query(ge=1, le=64)]

router = APIRouter()


async def respond(
    request: Request, explorer: Explorer, kind: str, draw: Callable[[], Pixels], lane: Lane = FILES
) -> Response:
    """A file, or 304 where the browser has it: it depends on its address and the stores alone."""
    stores = [model.store.folder.name for model in explorer.models]
    upload = "/images/u" in request.url.path
    named = f"{request.url.path}?{request.url.query} {stores} {SESSION if upload else ''}"
    tag = f'"{hashlib.sha256(named.encode()).hexdigest()[:32]}"'
    headers = {"etag": tag, "cache-control": "private, no-cache" if upload else f"private, max-age={SECONDS}"}
    if request.headers.get("if-none-match") == tag:
        return Response(status_code=304, headers=headers)
    content = await lane.run(lambda: encode(draw(), kind))
    return Response(content, media_type=f"image/{kind.lower()}", headers=headers)


@router.get("/models/{model}/levels/{level}/codes/{code}/tile.png", response_class=Response)
async def tile(request: Request, explorer: Shown, model: Model, level: Level, code: Index) -> Response:
    """A code decoded alone."""
    model.check_decodes(level, code)
    return await respond(request, explorer, "PNG", lambda: model.tile(code), FILES if len(model.tiles) else NETWORKS)


@router.get("/models/{model}/levels/{level}/codes/{code}/mean.png", response_class=Response)
async def mean(request: Request, explorer: Shown, model: Model, level: Level, code: Index) -> Response:
    """A code decoded amid the mean of the entries that surround it."""
    model.check_decodes(level, code)
    return await respond(request, explorer, "PNG", lambda: model.decode_in_mean(code), NETWORKS)


@router.get("/models/{model}/levels/{level}/atlas/{page}.webp", response_class=Response)
async def atlas(request: Request, explorer: Shown, model: Model, level: Level, page: Index) -> Response:
    """A sheet of tiles."""
    return await respond(request, explorer, "WEBP", lambda: draw_atlas(model, level, page))


@router.get("/images/{image}/original.webp", response_class=Response)
async def original(
    request: Request,
    explorer: Shown,
    image: ImageId,
    size: Annotated[int, Query(ge=16, le=LARGEST_ORIGINAL)] = ORIGINAL,
) -> Response:
    """The centre square of an image."""
    explorer.images.number(image)
    return await respond(request, explorer, "WEBP", lambda: explorer.images.pixels(image, size))


@router.get("/models/{model}/images/{image}/reconstruction.png", response_class=Response)
async def reconstruction(request: Request, explorer: Shown, model: Model, image: ImageId) -> Response:
    """The reconstruction of an image."""
    return await respond(request, explorer, "PNG", lambda: reconstruct(explorer, model, image), NETWORKS)


@router.get("/models/{model}/images/{image}/difference.png", response_class=Response)
async def difference(request: Request, explorer: Shown, model: Model, image: ImageId) -> Response:
    """The absolute difference of an image and its reconstruction."""
    return await respond(request, explorer, "PNG", lambda: show_difference(explorer, model, image), NETWORKS)


@router.get("/models/{model}/levels/{level}/images/{image}/patch.webp", response_class=Response)
async def patch(
    request: Request,
    explorer: Shown,
    model: Model,
    level: Level,
    image: ImageId,
    row: Cell,
    column: Cell,
    height: Span = 1,
    width: Span = 1,
    around: Annotated[int, Query(ge=0, le=8)] = 1,
    decoded: bool = False,
    without: Annotated[int | None, Query(ge=0, le=1 << 24)] = None,
) -> Response:
    """A patch with its surroundings."""
    box = (row, column, height, width)
    lane = NETWORKS if decoded or without is not None else FILES

    def draw() -> Pixels:
        return crop_patch(explorer, model, level, image, box, around, decoded, without)

    return await respond(request, explorer, "WEBP", draw, lane)
