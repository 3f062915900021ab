"""Joined processes part without leaving anything behind."""

import os
import subprocess
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist

import tavq
from tavq.ops import collective

SCRIPT = Path(__file__).with_name("one_group_member.py")


@pytest.mark.slow  # starts processes
@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the names of threads from /proc")
def test_no_thread_of_the_process_group_outlives_it() -> None:
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2", str(SCRIPT)]
    environment = {**os.environ, "PYTHONPATH": str(Path(tavq.__file__).parents[1])}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    # A thread of gloo that lives on holds tensors of Python, and aborts a process that ends before it: exit code -6.
    assert done.stdout.count("[") == 2
    assert "gloo" not in done.stdout


@pytest.mark.parametrize("devices", [0, 2])
def test_processes_wait_longer_than_a_text_store_takes(monkeypatch: pytest.MonkeyPatch, devices: int) -> None:
    """NCCL's default of ten minutes would end a run while the first process encodes the texts."""
    joined: list[tuple[str, dict[str, Any]]] = []
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: devices > 0)
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(dist, "init_process_group", lambda backend, **settings: joined.append((backend, settings)))
    monkeypatch.setattr(dist, "destroy_process_group", lambda: None)
    with collective.join_processes():
        pass
    [(backend, settings)] = joined
    assert settings["timeout"] >= timedelta(hours=6)
    assert backend == ("nccl" if devices else "gloo")
    assert settings.get("device_id") == (torch.device("cuda", 1) if devices else None)
