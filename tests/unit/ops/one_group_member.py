"""One of the processes of test_collective.py: prints the threads that are left when Python ends."""

import atexit
from pathlib import Path

import torch

from tavq.ops.collective import barrier, join_processes


def print_threads() -> None:
    print(sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")))


def main() -> None:
    """Joins, trains a step with a model that a cycle holds, parts."""
    atexit.register(print_threads)  # what is registered first is called last
    with join_processes():
        held: list[object] = [model := torch.nn.parallel.DistributedDataParallel(torch.nn.Linear(1, 1))]
        held.append(held)
        optimizer = torch.optim.Adam(model.parameters())
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        barrier()


if __name__ == "__main__":
    main()
