"""The examples of docs/extending.md work as they stand: each is its own files, and nothing else is edited."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "extending.md").read_text()

COMMANDS = """
import shutil, sys
from tavq.cli import run

def call(*words):
    code = run([str(word) for word in words])
    assert code == 0, (words, code)

few = ("--train.steps", 4, "--train.batch", 4, "--train.log_every", 2, "--train.checkpoint_every", 4)
net = ("--model.net.channels", 8, "--model.codebook.entries", 16, "--train.adversarial", "null")
call("data", "scenes", "scenes", "--images", 30, "--size", 32, "--seed", 0)
call("train", "vqgan-tiny", "--data", "scenes", "--out", "tokenizer", "--data.size", 32, *few, *net)
task = ("task", "train", "counting.yaml", "--tokenizer", "tokenizer", "--data", "scenes", "--out")
call(*task, "counter", *few)
call(*task, "blind", *few, "--task.image.source", "none")
call("task", "evaluate", "counter", "--data", "scenes")
call("task", "evaluate", "blind", "--data", "scenes")
call("report", "counter")
call("compare", "counter", "blind", "--out", "comparison.html")
"""
"""The commands of the page, with a tokenizer and few steps."""


def example(kind: str) -> tuple[str, str]:
    """The path that the page names for a kind of part, and the code that it shows for it."""
    place = re.search(rf"Save this as `(src/tavq/{kind}/\w+\.py)`", PAGE)
    assert place is not None
    return place.group(1), block("python", PAGE[place.end() :])


def block(language: str, text: str) -> str:
    """The first block of code."""
    found = re.search(rf"```{language}\n(.*?)```", text, re.DOTALL)
    assert found is not None
    return found.group(1)


def copy_package(root: Path, place: str, code: str) -> None:
    """Copies the package and its contract tests, and adds one file."""
    for part in ("src", "tests/contracts"):
        shutil.copytree(ROOT / part, root / part, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "pyproject.toml", root)
    for part in ("conftest.py", "shape_checker.py", "processes.py", "command_server.py"):
        shutil.copy(ROOT / "tests" / part, root / "tests")
    assert not (root / place).exists()
    (root / place).write_text(code)


def call(root: Path, *words: str) -> tuple[int, str]:
    """Exit code and output of Python in a copy of the package."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}
    environment["PYTHONPATH"] = str(root / "src")
    done = subprocess.run(
        [sys.executable, *words], cwd=root, env=environment, capture_output=True, text=True, timeout=600, check=False
    )
    return done.returncode, done.stdout + done.stderr


def contracts(root: Path, name: str, *more: str) -> tuple[int, str]:
    """Exit code and output of the contract tests for one part."""
    return call(root, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/contracts", *more, "-k", name)


def passed(output: str) -> int:
    found = re.search(r"(\d+) passed", output)
    assert found is not None
    return int(found.group(1))


# --- a quantizer ------------------------------------------------------------------------------------------------


def test_the_quantizer_is_tested_and_passes(tmp_path: Path) -> None:
    place, source = example("quantizers")
    copy_package(tmp_path, place, source)
    code, output = contracts(tmp_path, "manhattan")
    assert code == 0, output
    assert passed(output) >= 20
    assert "skipped" not in output.splitlines()[-1]


def test_a_wrong_quantizer_is_found_out(tmp_path: Path) -> None:
    place, source = example("quantizers")
    assert "p=1).argmin(1)" in source
    copy_package(tmp_path, place, source.replace("p=1).argmin(1)", "p=1).argmax(1)"))
    code, output = call(tmp_path, "-m", "pytest", "-q", "tests/contracts/test_quantizers.py", "-k", "manhattan")
    assert code == 1, output
    assert "test_quantizing_twice_changes_nothing" in output


# --- a task -----------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def with_task(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package with the files of the task."""
    root = tmp_path_factory.mktemp("task")
    place, source = example("tasks")
    copy_package(root, place, source)
    rest = PAGE[PAGE.index("Its recipe, `counting.yaml`") :]
    (root / "counting.yaml").write_text(block("yaml", rest))
    (root / "tests/unit/tasks").mkdir(parents=True)
    (root / "tests/unit/tasks/test_counting.py").write_text(block("python", rest))
    return root


def test_the_task_is_tested_and_passes(with_task: Path) -> None:
    code, output = contracts(with_task, "counting", "tests/unit/tasks/test_counting.py")
    assert code == 0, output
    assert passed(output) >= 20
    assert "skipped" not in output.splitlines()[-1]


def test_the_metrics_of_the_task_are_measured_reported_and_compared(with_task: Path) -> None:
    code, output = call(with_task, "-c", COMMANDS)
    assert code == 0, output
    for part in ("Right counts ↑", "Counting error ↓", "… constant answer", "count_error"):
        assert part in output, part
    page = (with_task / "counter/report.html").read_text()
    for part in (
        "Number of objects",
        "Right counts ↑",
        "constant answer",
        "the true number of objects",
        " objects</b>",
    ):
        assert part in page, part
    comparison = (with_task / "comparison.html").read_text()
    for part in ("tokenizer: codes", "no image at all", "Right counts ↑", "… constant answer"):
        assert part in comparison, part


def test_the_page_says_the_commands_that_are_run() -> None:
    for command in re.findall(r'call\("task", "(?:evaluate)", "\w+"|call\("(?:report)", "\w+"', COMMANDS):
        words = " ".join(re.findall(r'"(\w+)"', command))
        assert f"tavq {words}" in PAGE
