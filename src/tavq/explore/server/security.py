"""Who may ask: the explorer's own page, with its token, from this machine; and how much at once."""

import hmac
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any
from urllib.parse import parse_qs

from fastapi import HTTPException

from tavq.explore.answers.base import Problem, Refusal
from tavq.explore.errors import BadRequest, Busy, Forbidden, TooLarge
from tavq.explore.images import UPLOAD_BYTES

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]

HEADER = b"x-tavq-token"
BODY_BYTES = 1 << 20
"""Of a JSON body."""

MAX_REQUESTS = 512
"""Requests that are answered or wait at a time; more are refused as busy."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data: blob:; connect-src 'self'; "
    "font-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = (
    (b"content-security-policy", POLICY.encode()),
    (b"x-content-type-options", b"nosniff"),
    (b"referrer-policy", b"no-referrer"),
    (b"x-frame-options", b"DENY"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cross-origin-opener-policy", b"same-origin"),
)

CLOSED = (
    b"<!doctype html><meta charset=utf-8><title>tavq explore</title>"
    b"<p>Open the address with the token that the command printed."
)


class Guard:
    """Refuses requests that do not come from the explorer's own page, and too large or too many of them.

    Args:
        app: answers the rest.
        token: what the page must know.
        port: of the server.
    """

    def __init__(self, app: Application, token: str, port: int) -> None:
        self.app, self.token, self.port = app, token, port
        self.hosts = {f"{name}:{port}" for name in ("127.0.0.1", "localhost")}
        self.cookie = f"tavq-explore-{port}"  # browsers send cookies to all ports of a host
        self.running = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return await (self.app(scope, receive, send) if scope["type"] == "lifespan" else _close(send))
        send = _with_headers(send)
        if scope["method"] == "HEAD":
            scope, send = {**scope, "method": "GET"}, _without_body(send)
        try:
            self._check_origin(scope)
            if token := self._new_token(scope):
                return await self._enter(token, send)
            self._check_token(scope)
            if self.running >= MAX_REQUESTS:
                raise Busy(f"More than {MAX_REQUESTS} requests at once; try again.")
            limited = _Limited(receive, _limit_of(scope))
            limited.check(_header(scope, b"content-length"))
        except BadRequest as error:
            return await self._refuse(scope, error, send)
        self.running += 1
        try:
            await self.app(scope, limited.receive, send)
        finally:
            self.running -= 1

    def _check_origin(self, scope: Scope) -> None:
        """Raise Forbidden for another host's name (DNS rebinding) and for requests of other pages."""
        host = _header(scope, b"host")
        if host not in self.hosts:
            raise Forbidden(f"The host must be 127.0.0.1:{self.port}; got {host!r:.80}.")
        origin = _header(scope, b"origin")
        if origin is not None and origin not in {f"http://{name}" for name in self.hosts}:
            raise Forbidden(f"Requests of other pages are refused; this one is of {origin!r:.80}.")
        site = _header(scope, b"sec-fetch-site")
        if site not in (None, "same-origin", "none") and scope["path"] != "/":
            raise Forbidden("Requests of other pages are refused.")

    def _new_token(self, scope: Scope) -> str | None:
        """The token in the address of the page, where it is the right one."""
        given = parse_qs(scope["query_string"].decode("latin-1")).get("token", [""])[0]
        return self.token if scope["path"] == "/" and scope["method"] == "GET" and self._is_token(given) else None

    def _is_token(self, given: str) -> bool:
        return hmac.compare_digest(given.encode("latin-1", "replace"), self.token.encode())

    async def _enter(self, token: str, send: Send) -> None:
        """Set the cookie, and leave the token out of the address."""
        cookie = f"{self.cookie}={token}; Path=/; HttpOnly; SameSite=Strict"
        await send({"type": "http.response.start", "status": 303, "headers": [
            (b"location", b"/"), (b"set-cookie", cookie.encode()), (b"cache-control", b"no-store"),
        ]})  # fmt: skip
        await send({"type": "http.response.body", "body": b""})

    def _check_token(self, scope: Scope) -> None:
        cookies = dict(part.strip().partition("=")[::2] for part in (_header(scope, b"cookie") or "").split(";"))
        if not self._is_token(_header(scope, HEADER) or cookies.get(self.cookie, "")):
            raise Forbidden("The token is missing or wrong; open the address that the command printed.")

    async def _refuse(self, scope: Scope, error: BadRequest, send: Send) -> None:
        page = scope["path"] == "/" and isinstance(error, Forbidden)
        body = CLOSED if page else refusal(error.code, str(error))
        kind = b"text/html; charset=utf-8" if page else b"application/json"
        headers = [(b"content-type", kind), (b"cache-control", b"no-store"), (b"content-length", b"%d" % len(body))]
        if isinstance(error, Busy):
            headers.append((b"retry-after", b"1"))
        await send({"type": "http.response.start", "status": error.status, "headers": headers})
        await send({"type": "http.response.body", "body": body})


def refusal(code: str, message: str) -> bytes:
    """The body of a refusal."""
    return Refusal(error=Problem(code=code, message=message)).model_dump_json().encode()


class _Limited:
    """Counts the bytes of a body while it arrives."""

    def __init__(self, receive: Receive, limit: int) -> None:
        self._receive, self.limit, self.bytes = receive, limit, 0

    def check(self, length: str | None) -> None:
        """Raise TooLarge for a body that is announced as too large."""
        if length is not None and not (length.isascii() and length.isdigit() and int(length) <= self.limit):
            raise TooLarge(f"The body may have at most {self.limit:,} bytes.")

    async def receive(self) -> Message:
        """The next part of the body."""
        message = await self._receive()
        self.bytes += len(message.get("body", b""))
        if self.bytes > self.limit:  # of FastAPI's kind, as it answers 400 to any other error while it reads a body
            raise HTTPException(TooLarge.status, f"The body may have at most {self.limit:,} bytes.")
        return message


def _limit_of(scope: Scope) -> int:
    return UPLOAD_BYTES if scope["path"].endswith("/search/image") else BODY_BYTES


def _header(scope: Scope, name: bytes) -> str | None:
    """A header of the request; where it is repeated, all its values, which are then refused."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key.lower() == name]
    return ", ".join(values) if values else None


def _with_headers(send: Send) -> Send:
    async def with_headers(message: Message) -> None:
        if message["type"] == "http.response.start":
            message = {**message, "headers": [*message.get("headers", []), *HEADERS]}
        await send(message)

    return with_headers


def _without_body(send: Send) -> Send:
    async def without_body(message: Message) -> None:
        await send({**message, "body": b""} if message["type"] == "http.response.body" else message)

    return without_body


async def _close(send: Send) -> None:
    await send({"type": "websocket.close", "code": 1008})
