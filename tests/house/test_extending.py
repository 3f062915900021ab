"""The example of docs/extending.md is tested by the contracts when its one file is there, and found out when wrong."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def example() -> tuple[str, str]:
    """The path that the page names and the file it shows."""
    page = (ROOT / "docs" / "extending.md").read_text()
    place = re.search(r"Save this as `(src/tavq/quantizers/\w+\.py)`", page)
    code = re.search(r"```python\n(.*?)```", page, re.DOTALL)
    assert place is not None
    assert code is not None
    return place.group(1), code.group(1)


def contracts(root: Path, code: str) -> tuple[int, str]:
    """Exit code and output of the contract tests for the new quantizer in a copy of the package with its file."""
    place, _ = example()
    for part in ("src", "tests/contracts"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    for part in ("pyproject.toml", "tests/conftest.py", "tests/shape_checker.py", "tests/processes.py"):
        shutil.copy(ROOT / part, root / part)
    assert not (root / place).exists()
    (root / place).write_text(code)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "tests/contracts",
        "-k",
        Path(place).stem,
    ]
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    done = subprocess.run(command, cwd=root, env=environment, capture_output=True, text=True, timeout=300, check=False)
    return done.returncode, done.stdout + done.stderr


def test_the_example_is_tested_and_passes(tmp_path: Path) -> None:
    code, output = contracts(tmp_path, example()[1])
    assert code == 0, output
    passed = re.search(r"(\d+) passed", output)
    assert passed is not None
    assert int(passed.group(1)) >= 20
    assert "skipped" not in output.splitlines()[-1]


def test_a_wrong_one_is_found_out(tmp_path: Path) -> None:
    right = example()[1]
    assert "p=1).argmin(1)" in right
    code, output = contracts(tmp_path, right.replace("p=1).argmin(1)", "p=1).argmax(1)"))
    assert code == 1, output
    assert "test_quantising_twice_changes_nothing" in output
