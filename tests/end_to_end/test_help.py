"""Help: instant, for every command, with an example that parses."""

import os
import re
import resource
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from cyclopts import App

from tavq.cli import COMMANDS, app
from tavq.cli.help import join_lines

SRC = str(Path(__file__).parents[2] / "src")
Tavq = Callable[..., Any]


def commands(part: App = app, path: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    if path:
        yield path
    for name in part:
        if not name.startswith("-"):
            yield from commands(part[name], (*path, name))


def test_help_is_instant() -> None:
    """CPU time, which other work on the machine does not change."""
    environment = {**os.environ, "PYTHONPATH": SRC}
    seconds = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        done = subprocess.run([sys.executable, "-m", "tavq", "--help"], env=environment, capture_output=True, text=True)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        assert done.returncode == 0
        assert "Usage: tavq COMMAND" in done.stdout
        seconds.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    assert min(seconds) < 0.5


@pytest.mark.parametrize("command", ["train", "data"])
def test_help_loads_nothing_heavy(command: str) -> None:
    script = f"import sys; from tavq.cli import run; run(['{command}', '--help']); print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "tavq.cli" in loaded
    assert not loaded & {"torch", "numpy", "transformers", "safetensors", "PIL", "pydantic", "yaml", "tavq.data"}


def test_every_command_is_here() -> None:
    names = {" ".join(path) for path in commands()}
    surface = "demo, data scenes, data check, data import, text, recipes, recipes show, train, evaluate, encode, decode"
    assert {*surface.split(", "), "report", "compare"} <= names


def test_a_command_loads_only_its_own_module() -> None:
    script = "import sys; from tavq.cli import run; run(['train', '--help']); print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": SRC}
    done = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.splitlines()[-1].split())
    assert "tavq.cli.train" in loaded
    assert not loaded & {"tavq.cli.metrics", "tavq.cli.tasks", "tavq.cli.text"}


def test_the_list_of_commands_says_what_each_does(tavq: Tavq) -> None:
    lines = tavq("--help").out.splitlines()
    for name in COMMANDS:
        assert any(re.match(rf"│ {name} +\S", line) for line in lines), name


@pytest.mark.parametrize("path", list(commands()), ids=" ".join)
def test_help_has_an_example_that_parses(tavq: Tavq, path: tuple[str, ...]) -> None:
    done = tavq(*path, "--help")
    assert (done.code, done.err) == (0, "")
    text = " ".join(done.out.split())
    found = re.findall(rf"Example: tavq ({' '.join(path)}\b.*?)(?= ╭| Example: |$)", text)
    assert found, text
    for example in found:
        app.parse_args(shlex.split(example), exit_on_error=False, print_error=False)


def test_help_keeps_no_line_breaks_of_the_code(tavq: Tavq) -> None:
    text = tavq("text", "--help").out
    assert "rebuilt store keeps the kinds" in text  # two lines of the docstring
    assert "[default: minilm]" in " ".join(text.replace("│", " ").split())
    assert "[default: False]" not in text
    assert "[default: None]" not in text


def test_task_train_lists_the_shipped_recipes(tavq: Tavq) -> None:
    from tavq import recipes

    text = tavq("task", "train", "--help").out
    names = recipes.names(recipes.TASKS)
    assert len(names) >= 18
    for name in names:
        assert f"\n{name}: " in text


def test_join_lines() -> None:
    docstring = """Do a thing
    at once.

    Then
    another.

    Args:
        one: The first,
            on two lines.
        two: The second.
    """
    expected = "Do a thing at once.\n\nThen another.\n\nArgs:\n    one: The first, on two lines.\n    two: The second."
    assert join_lines(docstring) == expected
    assert join_lines(expected) == expected


def test_the_version(tavq: Tavq) -> None:
    import tavq as package

    assert tavq("--version").out.strip() == package.__version__


def test_no_argument_gives_help(tavq: Tavq) -> None:
    done = tavq()
    assert done.code == 0
    assert "Usage: tavq COMMAND" in done.out
