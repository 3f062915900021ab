"""The application: routes, errors as JSON, and the files of the page."""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from anyio.to_thread import current_default_thread_limiter
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import RedirectResponse
from starlette.exceptions import HTTPException

from tavq.core.errors import TavqError, UsageError, first_line
from tavq.core.version import __version__
from tavq.explore.answers.base import PREFIX
from tavq.explore.errors import BadRequest, Busy, NotFound
from tavq.explore.explorer import Explorer
from tavq.explore.page_files import INDEX, KINDS, read_static
from tavq.explore.server import codes, edits, files, images
from tavq.explore.server.security import Application, Guard, refusal

THREADS = 8
"""Quick requests that are worked on at a time; those that take long have threads of their own (`lanes`)."""

CODES = {400: "bad_request", 403: "forbidden", 404: "not_found", 405: "bad_request", 413: "too_large"}


def make_app(explorer: Explorer, token: str, port: int) -> Application:
    """The server's application.

    Args:
        explorer: what it shows.
        token: what requests must know.
        port: that it listens on.
    """
    return Guard(make_api(explorer), token, port)


def make_api(explorer: Explorer) -> FastAPI:
    """The application without checks of who asks."""
    app = FastAPI(
        title="tavq explore", version=__version__, openapi_url=f"{PREFIX}/openapi.json", docs_url=None, redoc_url=None,
        lifespan=_limit_threads,
    )  # fmt: skip
    app.state.explorer = explorer
    for room in (codes, images, edits, files):
        app.include_router(room.router, prefix=PREFIX)
    _add_page(app, read_static())
    for kind, handle in HANDLERS.items():
        app.add_exception_handler(kind, handle)
    return app


@asynccontextmanager
async def _limit_threads(_: FastAPI) -> AsyncIterator[None]:
    current_default_thread_limiter().total_tokens = THREADS
    yield


# --- the page ---------------------------------------------------------------------------------------------------


def _add_page(app: FastAPI, static: Mapping[str, bytes]) -> None:
    """Serve the page at / and its files by their exact names; no other path leads to a file."""

    @app.get("/", include_in_schema=False)
    def page() -> Response:
        if INDEX not in static:
            return RedirectResponse(f"{PREFIX}/overview", 303)
        return Response(static[INDEX], media_type=KINDS["html"], headers={"cache-control": "no-cache"})

    @app.get("/static/{name:path}", include_in_schema=False)
    def file(name: str) -> Response:
        if name not in static:
            raise NotFound(f"The page has no file {name!r:.80}.")
        return Response(static[name], media_type=KINDS[name.rpartition(".")[2]], headers={"cache-control": "no-cache"})


# --- errors -----------------------------------------------------------------------------------------------------


def _respond(status: int, code: str, message: str) -> Response:
    headers = {"cache-control": "no-store", **({"retry-after": "1"} if status == Busy.status else {})}
    return Response(refusal(code, message), status, headers, "application/json")


async def _refuse(_: Request, error: Exception) -> Response:
    assert isinstance(error, BadRequest)
    return _respond(error.status, error.code, str(error))


async def _refuse_usage(_: Request, error: Exception) -> Response:
    return _respond(400, "bad_request", str(error))


async def _fail(_: Request, error: Exception) -> Response:
    return _respond(500, "failed", str(error))


async def _fail_unexpectedly(_: Request, error: Exception) -> Response:
    return _respond(500, "failed", f"The request failed ({type(error).__name__}: {first_line(error)[:200]}).")


async def _explain_http(_: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    code = CODES.get(error.status_code, "failed")
    return _respond(error.status_code, code, str(error.detail) or "The request cannot be answered.")


async def _explain_fields(_: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    issues = [f"{_place(issue)}: {issue['msg']}" for issue in error.errors()[:5]]
    return _respond(400, "bad_request", f"The request has fields that are not accepted: {'; '.join(issues)}.")


def _place(issue: Mapping[str, Any]) -> str:
    parts = [str(part) for part in issue["loc"] if part not in ("body", "query", "path")]
    return ".".join(parts)[:80] or "the body"


HANDLERS: dict[type[Exception], Callable[[Request, Exception], Awaitable[Response]]] = {
    BadRequest: _refuse,
    UsageError: _refuse_usage,
    TavqError: _fail,
    RequestValidationError: _explain_fields,
    HTTPException: _explain_http,
    Exception: _fail_unexpectedly,
}
