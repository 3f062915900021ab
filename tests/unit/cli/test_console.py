"""Names and texts of other people are shown as they are: never as markup, never as commands for the terminal."""

import errno
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console
from rich.progress import Progress

from tavq.cli import console
from tavq.cli.metric_table import print_metrics
from tavq.core.errors import FileError
from tavq.metrics.record import Group, Metric

MARKUP = [
    "a red house [/b]",
    "[bold]house[/bold]",
    "[link=http://evil.example]tree[/link]",
    "[/]",
    "[/v2]",
    "[",
    "\\[b]",
    "[@click=app.quit]x[/]",
    ":smile:",
    "a [red] b [/red] c",
    "[[[/x]]]",
]
CONTROLS = {
    "\x1b[2J": "\\x1b[2J",
    "\x1b]8;;http://evil.example\x07tree": "\\x1b]8;;http://evil.example\\x07tree",
    "a\rb": "a\\rb",
    "\x9b31m": "\\x9b31m",
    "\u202egnp.exe": "\\u202egnp.exe",
    "\udcff.png": "\\udcff.png",
    "\x00": "\\x00",
}
SHOWN = {**{text: text for text in MARKUP}, **CONTROLS}


def without_blanks(text: str) -> str:
    return "".join(text.split())


def _bar(text: str) -> None:
    bar = console.Bar(text, 1, Progress())
    bar.shown = -1e9
    bar(1, note=text)


def _metric(text: str) -> None:
    print_metrics(text, [Metric(text, text, Group(text, text), 0.5, warning=text)])


PRINTERS: dict[str, Callable[[str], Any]] = {
    "say": console.say,
    "show": console.show,
    "title": lambda text: console.print_table(text, ["a"], [["b"]]),
    "column": lambda text: console.print_table("a", ["b", text], [["c", "d"]]),
    "cell": lambda text: console.print_table("a", ["b", "c"], [["c", text]]),
    "line of a bar": _bar,
    "metric": _metric,
}


@pytest.mark.parametrize("text", SHOWN)
@pytest.mark.parametrize("printer", PRINTERS)
def test_what_is_printed_is_the_text(
    printer: str, text: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(console, "console", Console(stderr=True, highlight=False, markup=False, emoji=False, width=200))
    PRINTERS[printer](text)
    printed = "".join(capsys.readouterr())
    assert without_blanks(SHOWN[text]) in without_blanks(printed)  # a title is wrapped to the width of its table
    assert text.isprintable() or text not in printed
    printed.encode()


@pytest.mark.parametrize("text", SHOWN)
def test_a_bar_on_a_terminal_shows_the_text(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    screen = io.StringIO()
    monkeypatch.setattr(console, "console", Console(file=screen, force_terminal=True, width=200, color_system=None))
    with console.bar(text, 2) as shown:
        shown(1, note=text)
    assert screen.getvalue().count(SHOWN[text]) >= 2


def test_text_that_is_no_command_is_left_alone() -> None:
    for text in ("naïve café", "日本語 한국어", "🏠 👩‍👩‍👧", "two\nlines\tand a tab", "עברית العربية"):
        assert console.escape_controls(text) == text


def test_json_is_written_before_anything_is_printed(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    with pytest.raises(BrokenPipeError), console.saved_as_json(path, {"a": 1}):
        raise BrokenPipeError(errno.EPIPE, "closed")
    assert json.loads(path.read_text()) == {"a": 1}


def test_a_result_is_printed_where_json_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(FileError, match="Could not write"), console.saved_as_json(tmp_path / "file" / "a.json", {}):
        console.show("the result")
    assert capsys.readouterr().out == "the result\n"


@pytest.mark.parametrize("steps", [0, 3])
def test_a_job_without_a_step_has_no_line(capsys: pytest.CaptureFixture[str], steps: int) -> None:
    with console.bar("Training") as bar:
        for step in range(steps):
            bar(step + 1, steps)
    assert ("Training: 3 of 3" in capsys.readouterr().err) == (steps == 3)
