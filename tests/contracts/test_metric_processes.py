"""Two processes that saw half of the items each score them exactly as one does that saw all."""

import json
import os
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import pytest

import tavq


def test_two_processes_score_as_one(tmp_path: Path) -> None:
    script = str(Path(__file__).with_name("one_metric_process.py"))
    environment = {**os.environ, "PYTHONPATH": str(Path(tavq.__file__).parents[1])}
    with ExitStack() as stack:  # leaving it closes the logs and waits for the processes
        started = []
        for rank, world in ((0, 1), (0, 2), (1, 2)):
            log = stack.enter_context((tmp_path / f"{world}-{rank}.log").open("w"))
            command = [sys.executable, script, str(rank), str(world), str(tmp_path / "store"), str(tmp_path)]
            process = stack.enter_context(subprocess.Popen(command, stderr=log, env=environment))
            stack.callback(process.kill)
            started.append(process)
        codes = [process.wait(timeout=300) for process in started]
    assert codes == [0, 0, 0], "".join(path.read_text() for path in tmp_path.glob("*.log"))
    alone, first, second = (json.loads((tmp_path / f"{name}.json").read_text()) for name in ("1-0", "2-0", "2-1"))
    assert (alone["c"]["pictures"], alone["a"]["questions"], alone["b"]["phrases"]) == (12, 12, 12)
    assert alone["d"]["kid_corners"] > 0.1
    for found in (first, second):
        # sums of float64 in another order
        assert found["d"].pop("fd_corners") == pytest.approx(alone["d"]["fd_corners"], rel=1e-12)
    alone["d"].pop("fd_corners")
    assert first == alone
    assert second == alone
