"""However a run ends, the next one resumes without an image lost or described twice."""

import json
import os
import random
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from caption_server import Reply, Request, serving, truth

from tavq.data.folder import FolderDataset
from tavq.data.images import save_png

COUNT = 24


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(COUNT):
        save_png(tmp_path / "data" / f"{number:02}.png", np.full((8, 8, 3), 5 * number, np.uint8))
    return tmp_path / "data"


def read(folder: Path) -> list[dict[str, Any]]:
    """The whole lines of all files."""
    data = b"".join(path.read_bytes().rpartition(b"\n")[0] + b"\n" for path in sorted(folder.glob("long_text*.jsonl")))
    return [json.loads(line) for line in data.splitlines() if line.strip()]


def expected() -> dict[str, str]:
    return {f"{n:02}.png": f"The mean colour is {5 * n}, {5 * n}, {5 * n}. The image is small." for n in range(COUNT)}


def slowly(request: Request) -> Reply:
    """As a model that takes its time, another for each image."""
    reply = truth(request)
    return Reply(body=reply.body, wait=random.Random(str(request.image.getpixel((0, 0)))).uniform(0.01, 0.06))


@pytest.fixture
def url() -> Iterator[str]:
    with serving(slowly) as (url, _):
        yield url


def arguments(folder: Path, url: str) -> list[object]:
    return ["describe", folder, "--model", "m", "--endpoint", url, "--concurrency", 3]


def test_killed_at_any_moment_it_gives_the_same_lines(start: Callable[..., Any], folder: Path, url: str) -> None:
    draws = random.Random(0)
    path = folder / "long_text.jsonl"
    kills = 0
    for _ in range(40):
        running = start(*arguments(folder, url))
        wanted = len(read(folder)) + draws.randrange(1, 8)
        running.until(lambda wanted=wanted: len(read(folder)) >= min(wanted, COUNT))
        running.signal(signal.SIGKILL)
        kills += running.wait() == -signal.SIGKILL
        if len(read(folder)) == COUNT:
            break
        if kills % 2:  # and the machine lost the end of the last line
            os.truncate(path, path.stat().st_size - draws.randrange(1, 60))
    running = start(*arguments(folder, url))
    assert running.wait() == 0, running.lines
    found = read(folder)
    assert kills >= 4
    assert {line["file_name"]: line["text"] for line in found} == expected()
    assert max(Counter(line["file_name"] for line in found).values()) == 1


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_cleanly(start: Callable[..., Any], folder: Path, url: str, number: int) -> None:
    running = start(*arguments(folder, url))
    running.until(lambda: len(read(folder)) >= 3)
    running.signal(number)
    assert running.wait() == 1
    assert "Stopped by a signal. Finished descriptions are kept; run the same command to resume." in running.lines
    assert (folder / "long_text.jsonl").read_bytes().endswith(b"}\n")
    assert len(read(folder)) < COUNT
    assert start(*arguments(folder, url)).wait() == 0
    assert {line["file_name"]: line["text"] for line in read(folder)} == expected()
    assert len(read(folder)) == COUNT


def test_a_full_disk_stops_it_and_loses_nothing(start: Callable[..., Any], folder: Path, url: str) -> None:
    running = start(*arguments(folder, url), largest_file=1000)
    assert running.wait() == 1
    assert any("Could not write" in line for line in running.lines), running.lines
    assert 0 < len(read(folder)) < COUNT
    assert start(*arguments(folder, url)).wait() == 0
    assert {line["file_name"]: line["text"] for line in read(folder)} == expected()


HOLD = """
import sys
from pathlib import Path
from tavq.core.locks import lock
with lock(Path(sys.argv[1]), lambda owner: RuntimeError(owner)):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_two_do_not_write_one_file(start: Callable[..., Any], folder: Path, url: str) -> None:
    command = [sys.executable, "-c", HOLD, str(folder / ".long_text.jsonl.lock")]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2] / "src")}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        running = start(*arguments(folder, url))
        assert running.wait() == 1
        assert f"Another process (pid {holder.pid}) is writing" in running.lines[0]
        assert read(folder) == []
        assert start(*arguments(folder, url), "--shard", "1/2").wait() == 0  # another file
        shard = len(read(folder))
        assert 0 < shard < COUNT
        holder.kill()
    assert (folder / ".long_text.jsonl.lock").read_text() == str(holder.pid)  # stale, and no obstacle
    assert start(*arguments(folder, url)).wait() == 0
    assert len(read(folder)) == COUNT
    assert {record.file_name: record.text for record in FolderDataset(folder)} == expected()
