"""Disks of several hosts, which show late what another host wrote."""

import time
from collections.abc import Callable

VISIBLE = 10.0
"""Seconds until a folder of another host must be seen."""


def wait_until_seen(is_seen: Callable[[], bool]) -> bool:
    """Whether something that another host wrote is seen, at the latest after `VISIBLE` seconds."""
    end = time.monotonic() + VISIBLE
    while not is_seen():
        if time.monotonic() >= end:
            return False
        time.sleep(0.1)
    return True
