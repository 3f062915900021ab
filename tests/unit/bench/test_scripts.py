"""The scripts of benchmarks/ that measure scaling and a GPU, at toy sizes."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

ROOT = Path(__file__).parents[3]


def run(script: str, *flags: str | Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "src"), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, str(ROOT / "benchmarks" / script), *map(str, flags)]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300, check=False)


@pytest.mark.slow
def test_processes_are_measured_weak_strong_and_apart(tmp_path: Path) -> None:
    written = tmp_path / "scaling.json"
    done = run("scaling.py", "--worlds", "1,2", "--batch", "3", "--rounds", "1", "--steps", "1", "--json", written)
    assert done.returncode == 0, done.stderr
    cases = json.loads(written.read_text())["cases"]
    assert [case.split(",")[0] for case in cases] == ["weak", "strong", "apart"]
    for case, rows in cases.items():
        assert list(rows) == ["1 process", "2 processes"]
        images = 3 if case.startswith("strong") else 6
        two = rows["2 processes"]
        assert two["images_per_second"] == pytest.approx(1000 * images / two["milliseconds"])


@pytest.mark.slow
def test_the_checks_of_a_gpu_run_at_a_toy_size_on_a_cpu(tmp_path: Path) -> None:
    written = tmp_path / "toy.json"
    done = run("gpu_checks.py", "--device", "cpu", "--toy", "--skip", "kernels,grid", "--json", written)
    assert done.returncode == 0, done.stderr
    parts = json.loads(written.read_text())["parts"]
    assert list(parts) == ["waits", "resume", "indices", "encode"]
    assert parts["indices"]["result"]["equal_of_the_same_images"] == 1
    assert parts["resume"]["result"]["ratio"] > 0
    assert all(rate > 0 for rate in parts["encode"]["result"].values())


@pytest.mark.slow
def test_parts_that_fail_or_come_too_late_cost_no_others(tmp_path: Path) -> None:
    written = tmp_path / "toy.json"
    flags = ("--device", "cpu", "--toy", "--parts", "encode,kernels,grid", "--seconds", "1", "--json", written)
    done = run("gpu_checks.py", *flags)
    parts = json.loads(written.read_text())["parts"]
    grid = parts["grid"]
    assert grid.get("skipped") == "the time was spent" or "not_measured" in grid["result"][-1]
    assert done.returncode == int(any("error" in part for part in parts.values()))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_its_checks_end_with_2(tmp_path: Path) -> None:
    done = run("gpu_checks.py", "--json", tmp_path / "gpu.json")
    assert done.returncode == 2
    assert "no CUDA device" in done.stderr
    assert not (tmp_path / "gpu.json").exists()
