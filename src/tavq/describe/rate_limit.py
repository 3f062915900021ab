"""When a request may be sent, and how long to wait after a failed one."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

MAX_WAIT = 3600.0  # seconds; a server that asks for more is asked again after an hour


@dataclass(frozen=True)
class RetryPolicy:
    """How often a request is repeated, with exponential backoff from `first_wait` to `max_wait` seconds.

    `attempts` applies once the server has answered anything: about five minutes, enough for a server to restart.
    `attempts_before` applies until then, when the cause is mostly a wrong address.
    """

    attempts: int = 10
    attempts_before: int = 4
    first_wait: float = 1.0
    max_wait: float = 60.0

    def wait(self, failures: int) -> float:
        """Seconds to wait after this many failures in a row; random in its upper half, so that workers spread out."""
        return min(self.max_wait, self.first_wait * 2 ** (failures - 1)) * random.uniform(0.5, 1)


class RateLimiter:
    """Spaces requests evenly, at most `per_minute` of them, and pauses all of them while the server asks to wait."""

    def __init__(self, per_minute: float | None) -> None:
        self.interval = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._paused_until = 0.0

    async def acquire(self) -> None:
        """Return when the next request may be sent."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(0.0, self._paused_until - clock()))
            now = clock()
            mine = max(self._next, now)
            self._next = mine + self.interval
            await asyncio.sleep(mine - now)
            if clock() >= self._paused_until:  # else the server asked to wait in the meantime
                return

    def pause(self, seconds: float) -> None:
        """Send no request for this long."""
        self._paused_until = max(self._paused_until, asyncio.get_running_loop().time() + seconds)


def parse_retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a server asks to wait, given as a number or a date; 0 without such a header."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value.strip() else 0.0
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date - datetime.now(date.tzinfo or UTC).replace(tzinfo=date.tzinfo)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), MAX_WAIT) if seconds == seconds else 0.0  # NaN counts as none
