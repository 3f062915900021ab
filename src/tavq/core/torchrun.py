"""What `torchrun` tells each of the processes that it starts, before they have joined and without loading torch."""

import os


def launched_processes() -> int:
    """The number of processes that `torchrun` started; 1 without it."""
    return int(os.environ.get("WORLD_SIZE", "1"))


def launched_here() -> int:
    """The number of processes that `torchrun` started on this machine; 1 without it."""
    return int(os.environ.get("LOCAL_WORLD_SIZE", "1"))


def launched_rank() -> int:
    """The rank of this process among those that `torchrun` started; 0 without it."""
    return int(os.environ.get("RANK", "0"))
