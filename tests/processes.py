"""Run a script or a command as one process and as several, for tests that compare the results."""

import subprocess
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch.distributed as dist
from command_server import shared_server, wait_together


def run_alone_and_as_two(script: Path, folder: Path, *more: Path) -> None:
    """Run `script RANK WORLD STORE FOLDER MORE…` for (0, 1), (0, 2) and (1, 2) at once; all must succeed."""
    run_at_once(script, folder, ((0, 1), (0, 2), (1, 2)), *more)


def run_as(world: int, script: Path, folder: Path, *more: Path | str) -> None:
    """Run `script RANK WORLD STORE FOLDER MORE…` as a number of processes; all must succeed."""
    (folder / "store").unlink(missing_ok=True)  # one that is used again knows the processes before
    run_at_once(script, folder, [(rank, world) for rank in range(world)], *more)


def run_at_once(script: Path, folder: Path, processes: Iterable[tuple[int, int]], *more: Path | str) -> None:
    """Run `script RANK WORLD STORE FOLDER MORE…` for each (RANK, WORLD) at once; all must succeed."""
    codes = try_at_once(script, folder, processes, *more)
    assert not any(codes), "".join(path.read_text() for path in folder.glob("*.log"))


def try_at_once(script: Path, folder: Path, processes: Iterable[tuple[int, int]], *more: Path | str) -> list[int]:
    """The same; returns the exit codes. Where one fails, the others are killed."""
    started = []
    for rank, world in processes:
        log = folder / f"{world}-{rank}.log"
        words = (rank, world, folder / "store", folder, *more)
        started.append(shared_server().start_one_of_many(log, words, script))
    return wait_together(started, 300)


def run_tavq(
    world: int, arguments: Sequence[object], script: Path | None = None, **variables: str
) -> "subprocess.CompletedProcess[str]":
    """Run `tavq ARGUMENTS`, or a script with them, as a number of processes with what `torchrun` tells them.

    `variables` are more of the environment. The exit code is not 0 if one failed.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        code = max(map(abs, launch(world, arguments, folder, script, **variables)))
        out, errors = (
            "".join((folder / f"{stream}-{rank}").read_text() for rank in range(world)) for stream in ("out", "errors")
        )
    return subprocess.CompletedProcess(list(map(str, arguments)), code, out, errors)


def launch(
    world: int, arguments: Sequence[object], folder: Path, script: Path | None = None, **variables: str
) -> list[int]:
    """The same; returns all exit codes, and leaves what process N prints in `out-N` and `errors-N` of a folder."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    usual = {"WORLD_SIZE": world, "LOCAL_WORLD_SIZE": world, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": store.port,
             "TORCHELASTIC_USE_AGENT_STORE": "True", "TORCHELASTIC_RUN_ID": "test", "TORCHELASTIC_RESTART_COUNT": 0,
             }  # fmt: skip
    started = []
    for rank in range(world):
        own = {**usual, "RANK": rank, "LOCAL_RANK": rank} if world > 1 else {}
        told = {name: str(value) for name, value in {**own, **variables}.items()}
        streams = folder / f"out-{rank}", folder / f"errors-{rank}"
        started.append(shared_server().start_one_of_many(streams[0], arguments, script, streams[1], **told))
    return wait_together(started, 600, ask=True)
