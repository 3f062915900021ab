"""Requests to the application from inside this process, without a socket."""

import asyncio
from urllib.parse import urlsplit

from fastapi import FastAPI

from tavq.core.errors import FileError
from tavq.explore.server.security import Message


def fetch_inside(app: FastAPI, address: str) -> tuple[str, bytes]:
    """The type and the bytes of the answer to a GET request; FileError where it is refused."""
    status, kind, body = asyncio.run(_get(app, address))
    if status != 200:
        raise FileError(f"{address} cannot be answered: {body[:500].decode('utf-8', 'replace')}")
    return kind, body


async def _get(app: FastAPI, address: str) -> tuple[int, str, bytes]:
    parts = urlsplit(address)
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": "GET", "path": parts.path,
        "raw_path": parts.path.encode(), "query_string": parts.query.encode(), "headers": [], "scheme": "http",
        "server": ("127.0.0.1", 0), "client": ("127.0.0.1", 0), "root_path": "",
    }  # fmt: skip
    messages: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        messages.append(message)

    await app(scope, receive, send)
    headers = dict(messages[0]["headers"])
    body = b"".join(message.get("body", b"") for message in messages[1:])
    return messages[0]["status"], headers.get(b"content-type", b"").decode(), body
