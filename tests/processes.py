"""Run a script as one process and as several, for tests that compare the results."""

import os
import subprocess
import sys
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path

import tavq


def run_alone_and_as_two(script: Path, folder: Path, *more: Path) -> None:
    """Run `script RANK WORLD STORE FOLDER MORE…` for (0, 1), (0, 2) and (1, 2) at once; all must succeed."""
    run_at_once(script, folder, ((0, 1), (0, 2), (1, 2)), *more)


def run_as(world: int, script: Path, folder: Path, *more: Path | str) -> None:
    """Run `script RANK WORLD STORE FOLDER MORE…` as a number of processes; all must succeed."""
    (folder / "store").unlink(missing_ok=True)  # one that is used again knows the processes before
    run_at_once(script, folder, [(rank, world) for rank in range(world)], *more)


def run_at_once(script: Path, folder: Path, processes: Iterable[tuple[int, int]], *more: Path | str) -> None:
    """Run `script RANK WORLD STORE FOLDER MORE…` for each (RANK, WORLD) at once; all must succeed."""
    environment = {**os.environ, "PYTHONPATH": str(Path(tavq.__file__).parents[1])}
    with ExitStack() as stack:  # leaving it closes the logs and waits for the processes
        started = []
        for rank, world in processes:
            log = stack.enter_context((folder / f"{world}-{rank}.log").open("w"))
            command = [sys.executable, str(script), str(rank), str(world), str(folder / "store"), str(folder)]
            command += map(str, more)
            process = stack.enter_context(subprocess.Popen(command, stderr=log, env=environment))
            stack.callback(process.kill)
            started.append(process)
        codes = [process.wait(timeout=300) for process in started]
    assert not any(codes), "".join(path.read_text() for path in folder.glob("*.log"))
