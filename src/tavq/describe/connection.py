"""Requests to an OpenAI-compatible server: answers of bounded size, and no secret in what is shown."""

import re
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit, urlunsplit

MAX_REPLY = 1_000_000
"""Bytes of a reply that are read; a description has some thousand."""

LEAST_SECRET = 8
"""Characters of a key that is looked for in answers; a shorter one, such as `none` or `EMPTY`, may be a word."""


@dataclass(frozen=True)
class Reply:
    """What a server sent: at most `MAX_REPLY` bytes after decompression; not `whole` if there were more."""

    status: int
    headers: Any
    body: bytes
    whole: bool


class Connection:
    """A pool of connections to one server.

    Args:
        url: the server's base URL.
        key: sent as a bearer token.
        timeout: seconds without a byte after which a request fails.
    """

    def __init__(self, url: str, key: str, timeout: float) -> None:
        from huggingface_hub import get_async_session

        self.url, self.timeout = completion_url(url), timeout
        self._headers = {"Authorization": f"Bearer {key}"}
        self._client = get_async_session()
        self._client.event_hooks = {}  # the hub's own refuse every address where HF_HUB_OFFLINE is set

    async def post(self, payload: dict[str, Any]) -> Reply:
        """Send JSON and read the reply; raises the library's errors where the connection fails."""
        body, whole = b"", True
        request = self._client.stream(
            "POST", self.url, json=payload, headers=self._headers, timeout=self.timeout, follow_redirects=True
        )
        async with request as response:
            async for part in response.aiter_bytes():
                body += part
                if len(body) > MAX_REPLY:
                    whole = False
                    break
        return Reply(int(response.status_code), response.headers, body[:MAX_REPLY], whole)

    async def close(self) -> None:
        """Close all connections."""
        await self._client.aclose()


def completion_url(url: str) -> str:
    """Where a server with this base URL answers: `http://host:8000` and `http://host:8000/v1` mean the same."""
    parts = urlsplit(url)
    path = parts.path.rstrip("/")
    if not path.endswith("/chat/completions"):
        path += "/chat/completions" if path.endswith("/v1") else "/v1/chat/completions"
    return urlunsplit(parts._replace(path=path))


class Secrets:
    """The key, and the values in the query of the URL: finds and hides them in texts.

    Args:
        key: the API key; None if there is none.
        url: the server's URL.
    """

    def __init__(self, key: str | None, url: str) -> None:
        values = [key or "", *(value for _, value in parse_qsl(urlsplit(url).query))]
        self._values = [value for value in values if value]
        self._pattern = re.compile("|".join(map(_forms, self._values)), re.IGNORECASE) if self._values else None

    def hide(self, text: str) -> str:
        """The text with … for each secret, in whatever capitals and with whatever blanks it is repeated."""
        return text if self._pattern is None else self._pattern.sub("…", text)

    def occur_in(self, text: str) -> bool:
        """Whether a text repeats a secret that is too long to be a word."""
        long = [value for value in self._values if len(value) >= LEAST_SECRET and not value.isalpha()]
        return any(re.search(_forms(value), text, re.IGNORECASE) for value in long)


def hide_query(url: str) -> str:
    """The URL as messages show it, without the values of its query, which may hold a key."""
    parts = urlsplit(url)
    return urlunsplit(parts._replace(query="…" if parts.query else "", fragment=""))


def _forms(secret: str) -> str:
    """A pattern for a secret as it is and as it is quoted in a URL; any blanks stand for its blanks."""
    plain = r"\s+".join(map(re.escape, secret.split()))
    return f"{plain}|{re.escape(quote(secret, safe=''))}"
