"""What a person sees while a command works: bars on a terminal, plain lines elsewhere, tables, JSON."""

import logging
import re
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Parameter, validators
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from tavq import api
from tavq.core.errors import FileError, UsageError
from tavq.core.parallel import MAX_WORKERS
from tavq.core.torchrun import launched_processes, launched_rank

PLAIN_SECONDS = 10.0
"""Seconds between the lines that replace a bar where standard error is not a terminal."""

Count = Annotated[int, Parameter(validator=validators.Number(gte=1))]
"""1 or more."""
Workers = Annotated[int, Parameter(validator=validators.Number(gte=0, lte=MAX_WORKERS))]
"""Processes that read images."""
Seed = Annotated[int, Parameter(validator=validators.Number(gte=0))]
"""0 or more."""
NonNegative = Annotated[float, Parameter(validator=validators.Number(gte=0))]
"""0 or more."""
Probability = Annotated[float, Parameter(validator=validators.Number(gt=0, lte=1))]
"""Above 0, up to 1."""

_COMMANDS_OF_TERMINALS = re.compile("[\\x00-\\x08\\x0b-\\x1f\\x7f-\\x9f\\u202a-\\u202e\\u2066-\\u2069\\ud800-\\udfff]")
"""Control characters but newline and tab, marks that turn the direction of writing, and halves of surrogate pairs."""

console = Console(stderr=True, highlight=False, markup=False, emoji=False)


class LineHandler(logging.Handler):
    """Show each message of a log as a plain line."""

    def emit(self, record: logging.LogRecord) -> None:
        """Print the message."""
        say(record.getMessage())


def is_first_process() -> bool:
    """Return whether this process is the one that writes and prints, among the processes of `torchrun`."""
    return launched_processes() == 1 or launched_rank() == 0


class Bar:
    """Progress of one long job: a bar on a terminal, a line every few seconds elsewhere, nothing in other processes."""

    def __init__(self, title: str, total: int | None, display: Progress) -> None:
        self.title, self.total, self.done = escape_controls(title), total, 0
        self.started = self.shown = time.monotonic()
        self.called = False
        self._display = display
        self._task: TaskID | None = None

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        """Show that `done` of the job is done."""
        self.called = True
        self.done, self.total, note = done, total or self.total, escape_controls(note)
        if not is_first_process():
            return
        if console.is_terminal:
            self._update(note)
        elif time.monotonic() - self.shown > PLAIN_SECONDS:
            self.shown = time.monotonic()
            self._line(note)

    def _update(self, note: str) -> None:
        if self._task is None:  # only now: a job that is refused at once shows no bar
            self._task = self._display.add_task(self.title, total=self.total, note="")
            self._display.start()
        self._display.update(self._task, completed=self.done, note=note, total=self.total)

    def _line(self, note: str) -> None:
        seconds = time.monotonic() - self.started
        of = f" of {self.total:,}" if self.total else ""
        say(f"{self.title}: {self.done:,}{of}, {seconds:.0f} s {note}".rstrip())

    def finish(self) -> None:
        """Say how long the job took, where no bar showed it and there was something to do."""
        if self.called and self._task is None and is_first_process() and not console.is_terminal:
            self._line("done")


@contextmanager
def bar(title: str, total: int | None = None) -> Iterator[Bar]:
    """Show the progress of a job while the context is open."""
    with bars([title], total) as (shown,):
        yield shown


@contextmanager
def bars(titles: Sequence[str], total: int | None = None) -> Iterator[list[Bar]]:
    """Show the progress of jobs that run at the same time, one bar below the other, while the context is open."""
    display = Progress(
        TextColumn("{task.description}", markup=False),
        BarColumn(bar_width=30),
        MofNCompleteColumn(),
        TimeRemainingColumn(compact=True, elapsed_when_finished=True),
        TextColumn("{task.fields[note]}", markup=False),
        console=console,
    )
    shown = [Bar(title, total, display) for title in titles]
    try:
        yield shown
    finally:
        if console.is_terminal:  # elsewhere it was not started, and stopping it would print an empty line
            display.stop()
    for each in shown:
        each.finish()


def escape_controls(text: str) -> str:
    """Return a text with what a terminal would obey spelled out, as `\\x1b` for the escape character."""
    return _COMMANDS_OF_TERMINALS.sub(lambda found: ascii(found[0])[1:-1], text)


def say(text: str) -> None:
    """Print a line for the person at the terminal, to standard error; metrics go to standard output.

    Like all that prints here it does nothing in other processes than the first.
    """
    if not is_first_process():
        return
    console.print(Text(escape_controls(text)), soft_wrap=True)


def show(text: str = "") -> None:
    """Print a result on standard output."""
    if is_first_process():
        print(escape_controls(text))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
    """Print a table on standard output; the first column and those of text are aligned to the left."""
    left = [index == 0 or all(isinstance(row[index], str) for row in rows) for index in range(len(columns))]
    print_cells(title, columns, [[*map(format_value, row)] for row in rows], left)


def print_cells(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]], left: Sequence[bool]) -> None:
    """Print a table of texts as they are, never read as markup; `left` says which columns are aligned to the left."""
    if not is_first_process():
        return
    # Text everywhere: rich reads markup and the names of emoji in a str
    shown = Table(title=Text(escape_controls(title), style="table.title"), title_justify="left")
    for name, is_left in zip(columns, left, strict=True):
        shown.add_column(Text(escape_controls(name)), justify="left" if is_left else "right")
    for row in rows:
        shown.add_row(*(Text(escape_controls(cell)) for cell in row))
    width = None if sys.stdout.isatty() else 200
    Console(file=sys.stdout, width=width, highlight=False).print(shown)


def format_value(value: Any) -> str:
    """Format a value of a table."""
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}" if abs(value) < 1000 else f"{value:,.0f}"
    if isinstance(value, int):
        return f"{value:,}"
    return str(value)


def format_interval(ends: Sequence[float] | None) -> str:
    """Format the two ends of an interval; nothing where there is none."""
    return "" if ends is None else f"{format_value(ends[0])} to {format_value(ends[1])}"


@contextmanager
def saved_as_json(path: Path | None, value: Mapping[str, Any] | Sequence[Any]) -> Iterator[None]:
    """Write a result where `--json` asks for it, then print it in the block; either is done if the other fails."""
    failed = None
    try:
        if path is not None and is_first_process():
            api.write_json(path, value)
    except FileError as error:
        failed = error
    yield
    if failed is not None:
        raise failed


def place_in_run(run: str, name: str) -> Path:
    """Return where a command writes by default: `name` in the run folder; UsageError where `run` is a hub name."""
    if not Path(run).is_dir() and run.partition("@")[0].count("/") == 1:
        raise UsageError(f"{run} is not a local folder; use --out to say where to write.")
    return Path(run) / name
