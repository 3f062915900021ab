"""benchmarks/kernels.py at a toy size: it compares the two forms and times both."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[4]
SCRIPT = ROOT / "benchmarks" / "kernels.py"


def run(*flags: str, **environment: str) -> subprocess.CompletedProcess[str]:
    everything = {**os.environ, "PYTHONPATH": str(ROOT / "src"), **environment}
    command = [sys.executable, "-W", "ignore::RuntimeWarning", str(SCRIPT), "--toy", "1", "--rounds", "1", *flags]
    return subprocess.run(command, env=everything, capture_output=True, text=True, timeout=300)


def test_both_forms_are_compared_and_timed(tmp_path: Path) -> None:
    pytest.importorskip("triton", reason="Triton is not installed: pip install 'tavq[triton]'")
    done = run("--json", str(tmp_path / "kernels.json"), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr[-2000:]
    cases = json.loads((tmp_path / "kernels.json").read_text())["cases"]
    assert [case.split(",")[0] for case in cases] == ["nearest entry", "nearest entry", "Sinkhorn"]
    for case in cases.values():
        assert case["plain"]["milliseconds"] > 0
        assert "equal the plain form's" in case["kernel"]["note"] or "of float64" in case["kernel"]["note"]


def test_where_the_kernels_cannot_run_it_says_so() -> None:
    done = run(TAVQ_KERNELS="torch")
    assert done.returncode != 0
    assert "The kernels do not run here" in done.stderr
