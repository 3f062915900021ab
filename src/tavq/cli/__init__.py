"""The command line: it parses, calls `tavq.api`, prints, and chooses the exit code."""

import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, get_args

from cyclopts import App, CoercionError, CycloptsError, Group, Parameter

from tavq.cli import console
from tavq.cli.help import format_default, join_lines
from tavq.cli.memory import advise, find_command
from tavq.cli.renamed_flags import with_new_flags
from tavq.core.errors import RenamedWarning, TavqError
from tavq.core.memory import describe_out_of_memory, is_out_of_memory
from tavq.core.signals import interrupt_on_terminate
from tavq.core.torchrun import launched_processes
from tavq.core.version import __version__

PANELS = {
    "Start": {
        "demo": "tavq.cli.demo:demo",
        "doctor": "tavq.cli.doctor:doctor",
        "bench": "tavq.cli.bench:bench",
    },
    "Data": {
        "data": "tavq.cli.data:app",
        "describe": "tavq.cli.describe:describe",
        "text": "tavq.cli.text:text",
    },
    "Tokenizers": {
        "recipes": "tavq.cli.recipes:app",
        "train": "tavq.cli.train:train",
        "evaluate": "tavq.cli.tokenizers:evaluate",
        "encode": "tavq.cli.tokenizers:encode",
        "decode": "tavq.cli.tokenizers:decode",
        "import-checkpoint": "tavq.cli.checkpoints:import_checkpoint",
        "export": "tavq.cli.checkpoints:export",
        "push": "tavq.cli.checkpoints:push",
    },
    "Tasks": {
        "task": "tavq.cli.tasks:app",
        "generate": "tavq.cli.generation:generate",
        "complete": "tavq.cli.generation:complete",
        "caption": "tavq.cli.understanding:caption",
        "ask": "tavq.cli.understanding:ask",
        "ground": "tavq.cli.understanding:ground",
        "fill": "tavq.cli.understanding:fill",
        "search": "tavq.cli.search:app",
    },
    "Results": {
        "report": "tavq.cli.reports:report",
        "compare": "tavq.cli.reports:compare",
        "explore": "tavq.cli.explore:explore",
        "leaderboard": "tavq.cli.leaderboard:leaderboard",
        "study": "tavq.cli.study:study",
        "metrics": "tavq.cli.metrics:app",
    },
}
"""Where each command or group of commands is defined, as help lists them; a module is imported when it is called."""

COMMANDS = {name: path for commands in PANELS.values() for name, path in commands.items()}

SHARED = frozenset(
    {
        ("train",), ("evaluate",), ("encode",), ("decode",), ("task", "train"), ("task", "evaluate"), ("generate",),
        ("complete",), ("caption",), ("search", "index"), ("metrics", "images"), ("describe",), ("text",),
    }
)  # fmt: skip
"""Commands whose work the processes of torchrun share; the others would do all of it in each."""

INSTEAD = {
    "leaderboard": "measure each model by tavq evaluate, which processes share, or call it without torchrun",
    "study": "call it without torchrun; several studies may run at the same time, each on a GPU of its own "
    "(CUDA_VISIBLE_DEVICES)",
    "export": "call it without torchrun; to encode by several processes first use tavq encode, and give its file by "
    "--tokens",
}
"""What to do instead of commands that work in one process."""

app = App(
    name="tavq",
    help="Text-aligned image tokenizers: train, compare, inspect and ship codebooks that know what they mean.",
    version=__version__,
    help_format="plaintext",  # markdown would load a parser and a highlighter, half of the start-up time
    default_parameter=Parameter(show_default=format_default),
    suppress_keyboard_interrupt=False,  # `run` says that it was interrupted
)
for _panel, _commands in PANELS.items():
    _group = Group.create_ordered(_panel)
    for _position, (_name, _path) in enumerate(_commands.items()):
        app.command(_path, name=_name, group=_group, sort_key=_position)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the work failed or found faults, 2 the call was wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0].startswith("-"):
        app.resolved_commands()  # the list of commands shows the first line of each docstring
    if any(word in app.help_flags for word in words):
        _unwrap_docstring(words)
    if launched_processes() > 1 and not _is_shared(words):
        return _fail(_refusal(words), 2)
    try:
        with interrupt_on_terminate(), _messages_as_lines():
            code = app(with_new_flags(words), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(_describe_call(error), 2)
    except TavqError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    except RecursionError:
        return _fail("The data are nested more deeply than Python can follow; use fewer folders in each other.", 1)
    except (MemoryError, RuntimeError) as error:
        if launched_processes() > 1 and _is_lost_connection(error):
            return _fail("another process of torchrun ended, so this one stops", 1, lost=True)
        if not is_out_of_memory(error):
            raise
        return _fail(describe_out_of_memory(error, advise(app, words)), 1)
    return code if isinstance(code, int) else 0


def _describe_call(error: CycloptsError) -> str:
    """What is wrong with a call; of a flag that also takes a value, that it may stand alone."""
    text, argument = str(error).strip(), error.argument
    if isinstance(error, CoercionError) and argument is not None and bool in get_args(argument.hint):
        return f"{text} Or give {argument.name} without a value."
    return text


def _is_shared(words: Sequence[str]) -> bool:
    asks = any(word in (*app.help_flags, *app.version_flags) for word in words)
    return asks or not words or any(tuple(words[: len(command)]) == command for command in SHARED)


def _refusal(words: Sequence[str]) -> str:
    """Say that a command does not share its work, and what to do instead."""
    command = " ".join(find_command(app, words)[0]) or words[0]
    advice = INSTEAD.get(command, "call it without torchrun")
    shared = ", ".join(sorted(map(" ".join, SHARED)))
    return (
        f"tavq {command} works in one process, and torchrun started {launched_processes()}; {advice}. Several "
        f"processes share: {shared}."
    )


def _unwrap_docstring(words: Sequence[str]) -> None:
    """Prepare the docstring of the command that help is asked for: help keeps line breaks, which belong to the code."""
    _, function = find_command(app, words)
    if function is not None and function.__doc__:
        function.__doc__ = join_lines(function.__doc__)


def main() -> None:
    """Run the command that the shell was given, and exit with its code."""
    for stream in (sys.stdout, sys.stderr):  # a terminal of another encoding shows é as \\xe9 instead of failing
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    sys.exit(run())


def _is_lost_connection(error: BaseException) -> bool:
    from tavq.ops.collective import is_lost_connection

    return is_lost_connection(error)


def _fail(message: str, code: int, lost: bool = False) -> int:
    """Print why a command failed; of several processes the first that fails does, unless it only `lost` another."""
    if launched_processes() > 1:
        from tavq.ops.collective import is_first_to_fail  # loads torch

        if not is_first_to_fail(lost):
            return code
    print(f"tavq: {console.escape_controls(message)}", file=sys.stderr)
    return code


@contextmanager
def _messages_as_lines() -> Iterator[None]:
    """Show what the package logs, and its warnings about old names, as plain lines on standard error."""
    logger, handler = logging.getLogger("tavq"), console.LineHandler()
    level, propagate = logger.level, logger.propagate
    logger.addHandler(handler)
    logger.setLevel(logging.INFO)
    logger.propagate = False
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("always", RenamedWarning)
            warnings.showwarning = _show_warning(warnings.showwarning)
            yield
    finally:
        logger.removeHandler(handler)
        logger.setLevel(level)
        logger.propagate = propagate


def _show_warning(usual: Callable[..., None]) -> Callable[..., None]:
    seen: set[str] = set()

    def show(message: Warning | str, category: type[Warning], *where: Any, **more: Any) -> None:
        if not issubclass(category, RenamedWarning):
            usual(message, category, *where, **more)
        elif str(message) not in seen:  # a recipe may be read several times
            seen.add(str(message))
            console.say(f"tavq: {message}")

    return show
