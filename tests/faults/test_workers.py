"""The processes that read images for a command: killed, and interrupted with it."""

import os
import signal
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_server import Running
from PIL import Image

Start = Callable[..., Running]


@pytest.fixture
def slow(tmp_path: Path) -> Path:
    """Images that take long to decode, so that a command can be met at work."""
    noise = np.random.default_rng(0).integers(0, 255, (1500, 1500, 3), np.uint8)
    (tmp_path / "slow").mkdir()
    Image.fromarray(noise).save(tmp_path / "slow/0.png")
    for number in range(1, 200):
        os.link(tmp_path / "slow/0.png", tmp_path / f"slow/{number}.png")
    return tmp_path / "slow"


def children(process: int) -> list[int]:
    try:
        return [int(pid) for pid in Path(f"/proc/{process}/task/{process}/children").read_text().split()]
    except FileNotFoundError:
        return []


def alive(process: int) -> bool:
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def measuring(start: Start, slow: Path) -> Running:
    """`tavq metrics images` with two workers that have begun."""
    running = start("metrics", "images", slow, slow, "--size", 32, "--workers", 2)
    running.until(lambda: len(children(running.pid)) >= 2)
    return running


def test_a_killed_worker_of_a_command_is_explained(measuring: Running) -> None:
    os.kill(children(measuring.pid)[0], signal.SIGKILL)
    assert measuring.wait() == 1
    assert measuring.lines[-1].startswith("tavq: A data loading worker died")
    assert "fewer --workers" in measuring.lines[-1]


@pytest.mark.parametrize(("number", "group"), [(signal.SIGINT, True), (signal.SIGTERM, False), (signal.SIGKILL, False)])
def test_no_worker_outlives_its_command(measuring: Running, number: int, group: bool) -> None:
    """Also not where the command is gone before they begin to work; Ctrl-C reaches them too."""
    workers = children(measuring.pid)
    measuring.signal(number, group)
    assert measuring.wait() in (1, -signal.SIGKILL), "\n".join(measuring.lines)
    if number != signal.SIGKILL:
        assert measuring.lines[-1:] == ["tavq: interrupted"]
    measuring.until(lambda: not any(map(alive, workers)))
