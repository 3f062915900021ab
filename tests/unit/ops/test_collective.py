"""Joined processes part without leaving anything behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import tavq

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
