"""One of the processes of test_collective.py: prints the threads that are left after the processes have parted."""

from pathlib import Path

import torch

from tavq.ops.collective import barrier, join_processes


def main() -> None:
    """Joins, makes an optimizer as a training does, parts."""
    with join_processes():
        torch.optim.Adam([torch.nn.Parameter(torch.ones(1))])
        barrier()
    print(sorted(path.read_text().strip() for path in Path("/proc/self/task").glob("*/comm")))


if __name__ == "__main__":
    main()
