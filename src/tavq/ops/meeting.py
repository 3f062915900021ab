"""How the processes of one start find one another in a store that remembers earlier starts.

torchrun keeps one store for all its restarts, and PyTorch writes addresses under the same keys each time. So a process
that starts sooner than the others reads the address of one that is gone, and the restart fails. Here each start keeps
its keys to itself, under a name that its first process draws.
"""

import time
import uuid
from datetime import timedelta

import torch.distributed as dist

HELLO, REPLY, PRESENT = "tavq-hello/{}", "tavq-reply/{}", "tavq-present/{}/{}"
SHORTEST, LONGEST = 0.02, 0.5
"""Seconds between two looks into the store. A process that waited inside of the store would not hear SIGTERM."""


def agree_on_name(store: dist.Store, rank: int, world: int, timeout: timedelta) -> str:
    """A name that all processes of this start know, and no earlier start.

    Each process but the first leaves a word that it draws, and waits for the answer to this very word. The first one
    answers every word that it finds, be it of an earlier start, until all have said that they have its name.

    Args:
        store: that all processes reach.
        rank: of this process.
        world: the number of processes.
        timeout: how long to wait for the others.

    Raises:
        DistError: another process did not come in time.
    """
    own, end = uuid.uuid4().hex, time.monotonic() + timeout.total_seconds()
    if rank > 0:
        store.set(HELLO.format(rank), own)
    missing, pause = set(range(1, world)), SHORTEST
    while missing:
        if rank > 0 and store.check([REPLY.format(own)]):
            name = store.get(REPLY.format(own)).decode()
            store.set(PRESENT.format(name, rank), "")
            return name
        if rank == 0:
            missing = {other for other in missing if not _is_present(store, other, own)}
        if time.monotonic() > end:
            raise dist.DistError(f"process {rank} waited {timeout} for the other processes of this start")
        time.sleep(pause if missing else 0)
        pause = min(LONGEST, 1.5 * pause)
    return own


def _is_present(store: dist.Store, other: int, name: str) -> bool:
    """Whether another process has the name of this start; answers the word that it has left."""
    if store.check([PRESENT.format(name, other)]):
        return True
    if store.check([HELLO.format(other)]):
        store.set(REPLY.format(store.get(HELLO.format(other)).decode()), name)
    return False
