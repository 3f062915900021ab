"""Requests that take long have threads of their own, so that quick ones never wait for a thread behind them."""

from collections.abc import Callable
from typing import TypeVar

from anyio import CapacityLimiter
from anyio.to_thread import run_sync
from fastapi import Response
from pydantic import BaseModel

from tavq.explore.errors import Busy

T = TypeVar("T")


class Lane:
    """A few threads for one kind of work, and a bounded number of requests that wait for one.

    Args:
        name: of the work, for people.
        threads: that work at a time.
        waiting: requests that may wait; more are refused as busy.
    """

    def __init__(self, name: str, threads: int, waiting: int) -> None:
        self.name, self.most = name, threads + waiting
        self.inside = 0
        self._limiter = CapacityLimiter(threads)

    async def run(self, work: Callable[[], T]) -> T:
        """What `work` returns, from one of the threads; Busy where too many wait."""
        if self.inside >= self.most:
            raise Busy(f"{self.most} {self.name} are being worked on or wait; try again.")
        self.inside += 1
        try:
            return await run_sync(work, limiter=self._limiter)
        finally:
            self.inside -= 1

    async def answer(self, work: Callable[[], BaseModel]) -> Response:
        """The answer of `work` as JSON, which is written in the thread too."""
        body = await self.run(lambda: work().model_dump_json().encode())
        return Response(body, media_type="application/json")


EDITS = Lane("edits", threads=2, waiting=126)
"""Edits and questions to tasks."""

NETWORKS = Lane("requests that use a model", threads=2, waiting=254)
"""Everything else that encodes or decodes an image, or embeds a text."""

FILES = Lane("image files", threads=4, waiting=508)
"""Image files that need no network."""

UMAPS = Lane("maps by UMAP", threads=1, waiting=15)
"""Maps that take up to minutes; those that are kept wait behind them."""
