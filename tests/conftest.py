"""Shapes in signatures are checked while tests run, and no test reaches the network."""

import os
import socket
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")  # two threads on a busy two-core machine are many times slower

import pytest
import torch
from jaxtyping import install_import_hook

install_import_hook("tavq", "beartype.beartype")
torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    connect = socket.socket.connect

    def local_only(self: socket.socket, address: Any) -> None:
        if self.family != socket.AF_UNIX and address[0] not in ("127.0.0.1", "::1", "localhost"):
            raise RuntimeError(f"A test tried to reach {address}; tests use no network.")
        connect(self, address)

    monkeypatch.setattr(socket.socket, "connect", local_only)


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets, or a skip where there is none."""
    folder = os.environ.get("TAVQ_REAL_DATA", "")
    if not folder or not Path(folder).is_dir():
        pytest.skip("TAVQ_REAL_DATA does not point to the real data sets")
    return Path(folder)
