"""The command line: it parses, calls `tavq.api`, prints, and chooses the exit code."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from cyclopts import App, CycloptsError

from tavq.cli import console
from tavq.cli.renamed_flags import with_new_flags
from tavq.core.errors import RenamedWarning, TavqError
from tavq.core.version import __version__

COMMANDS = {
    "demo": "tavq.cli.demo:demo",
    "data": "tavq.cli.data:app",
    "describe": "tavq.cli.describe:describe",
    "text": "tavq.cli.text:text",
    "recipes": "tavq.cli.recipes:app",
    "train": "tavq.cli.train:train",
    "evaluate": "tavq.cli.tokenizers:evaluate",
    "encode": "tavq.cli.tokenizers:encode",
    "decode": "tavq.cli.tokenizers:decode",
    "task": "tavq.cli.tasks:app",
    "generate": "tavq.cli.generation:generate",
    "complete": "tavq.cli.generation:complete",
    "caption": "tavq.cli.understanding:caption",
    "ask": "tavq.cli.understanding:ask",
    "ground": "tavq.cli.understanding:ground",
    "fill": "tavq.cli.understanding:fill",
    "search": "tavq.cli.search:app",
    "metrics": "tavq.cli.metrics:app",
    "report": "tavq.cli.reports:report",
    "compare": "tavq.cli.reports:compare",
}
"""Where each command or group of commands is defined; a module is imported when its command is called."""

app = App(
    name="tavq",
    help="Text-aligned image tokenizers: train, compare, inspect and ship codebooks that know what they mean.",
    version=__version__,
    help_format="plaintext",  # markdown would load a parser and a highlighter, half of the start-up time
    help_epilogue="Start with: tavq demo",
)
for _name, _path in COMMANDS.items():
    app.command(_path, name=_name)


def run(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code: 0 done, 1 the work failed or found faults, 2 the call was wrong."""
    words = sys.argv[1:] if arguments is None else arguments
    if not words or words[0].startswith("-"):
        app.resolved_commands()  # the list of commands shows the first line of each docstring
    try:
        with _messages_as_lines():
            code = app(with_new_flags(words), exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        return _fail(str(error).strip(), 2)
    except TavqError as error:
        return _fail(str(error), error.exit_code)
    except BrokenPipeError:
        return 1
    except OSError as error:
        return _fail(f"{error.filename or 'A file'} cannot be used: {error.strerror or error}.", 1)
    except KeyboardInterrupt:
        return _fail("interrupted", 1)
    return code if isinstance(code, int) else 0


def main() -> None:
    """Run the command that the shell was given, and exit with its code."""
    sys.exit(run())


def _fail(message: str, code: int) -> int:
    print(f"tavq: {message}", file=sys.stderr)
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
