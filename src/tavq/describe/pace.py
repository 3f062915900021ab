"""When a request may be sent, and how long to wait after one that failed."""

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime

LONGEST_WAIT = 3600.0  # seconds; a server that asks for more is asked again after an hour


@dataclass(frozen=True)
class Patience:
    """How often a request is sent again, and how long is waited between: doubling from `first` to `longest` seconds.

    `attempts` are made once the server has answered anything: about five minutes, in which a server starts anew.
    `attempts_before` are made while it never has: what is wrong then is mostly its address.
    """

    attempts: int = 10
    attempts_before: int = 4
    first: float = 1.0
    longest: float = 60.0

    def seconds(self, failures: int) -> float:
        """The wait after so many failures in a row, between half of it and all, so that not all come back at once."""
        return min(self.longest, self.first * 2 ** (failures - 1)) * random.uniform(0.5, 1)


class Pace:
    """Spaces requests evenly to at most so many a minute, and holds all of them while the server asks to wait."""

    def __init__(self, per_minute: float | None) -> None:
        self.gap = 60 / per_minute if per_minute else 0.0
        self._next = 0.0
        self._held = 0.0

    async def turn(self) -> None:
        """Returns when the next request may be sent."""
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(max(0.0, self._held - clock()))
            now = clock()
            mine = max(self._next, now)
            self._next = mine + self.gap
            await asyncio.sleep(mine - now)
            if clock() >= self._held:
                return

    def hold(self, seconds: float) -> None:
        """No request is sent for so long."""
        self._held = max(self._held, asyncio.get_running_loop().time() + seconds)


def retry_after(headers: Mapping[str, str]) -> float:
    """The seconds that a server asks to wait, given as a number or a date; 0 where it asks for none."""
    value = headers.get("retry-after", "")
    try:
        seconds = float(value) if value.strip() else 0.0
    except ValueError:
        try:
            date = parsedate_to_datetime(value)
            seconds = (date - datetime.now(date.tzinfo or UTC).replace(tzinfo=date.tzinfo)).total_seconds()
        except (ValueError, OverflowError):
            return 0.0
    return min(max(seconds, 0.0), LONGEST_WAIT) if seconds == seconds else 0.0
