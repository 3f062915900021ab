"""Joined processes part without leaving anything behind."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
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
    monkeypatch.setattr(collective, "rendezvous", lambda *rest, **more: iter([(dist.HashStore(), 1, 2)]))
    monkeypatch.setattr(collective, "agree_on_name", lambda *rest: "start")
    monkeypatch.setattr(collective, "_start", "")
    with collective.join_processes():
        pass
    [(backend, settings)] = joined
    assert settings["timeout"] >= timedelta(hours=6)
    assert backend == ("nccl" if devices else "gloo")
    assert settings.get("device_id") == (torch.device("cuda", 1) if devices else None)


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> dist.TCPStore:
    """The store of a `torchrun` of two processes."""
    store = dist.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    values = {"WORLD_SIZE": "2", "RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "True", "MASTER_ADDR": "127.0.0.1"}
    for name, value in {**values, "MASTER_PORT": str(store.port)}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(collective, "GRACE", 0.3)
    return store


@pytest.mark.parametrize(
    ("lost", "told"),
    [
        ([False, False], [True, False]),
        ([True, False], [True, True]),  # the failure comes late: it is told all the same
        ([False, True], [True, False]),
        ([True, True], [True, False]),
    ],
)
def test_a_lost_connection_does_not_hide_a_failure(store: dist.TCPStore, lost: list[bool], told: list[bool]) -> None:
    assert [collective.is_first_to_fail(each) for each in lost] == told


def test_a_lost_connection_waits_for_the_failure(store: dist.TCPStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(collective, "GRACE", 60.0)
    with ThreadPoolExecutor() as pool:
        lost = pool.submit(collective.is_first_to_fail, True)
        assert collective.is_first_to_fail()
        assert not lost.result(timeout=30)


@pytest.mark.parametrize("rank", ["0", "1"])
def test_without_a_store_a_failure_is_told(monkeypatch: pytest.MonkeyPatch, rank: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.delenv("TORCHELASTIC_USE_AGENT_STORE", raising=False)
    assert collective.is_first_to_fail()
    assert collective.is_first_to_fail(lost=True) == (rank == "0")
