"""The command line. Heavy packages are imported inside the commands, so that help is instant."""

import sys
from collections.abc import Sequence

from cyclopts import App, CycloptsError

from tavq.core.errors import TavqError
from tavq.core.version import __version__

app = App(
    name="tavq",
    help="Text-aligned image tokenizers: train, compare, inspect and ship codebooks that know what they mean.",
    version=__version__,
    help_format="plaintext",  # markdown would load a parser and a highlighter, half of the start-up time
    help_epilogue="Start with: tavq demo",
)

from tavq.cli import (  # noqa: E402  (the commands need `app`)
    data,
    demo,
    describe,
    metrics,
    recipes,
    reports,
    search,
    tasks,
    text,
    tokenizers,
    train,
    understanding,
)

for part in (demo, data, describe, text, recipes, train, tokenizers, tasks, understanding, search, metrics, reports):
    part.add_to(app)


def run(arguments: Sequence[str] | None = None) -> int:
    """Runs one command and returns its exit code: 0 done, 1 the work failed or found faults, 2 the call was wrong."""
    try:
        code = app(arguments, exit_on_error=False, print_error=False, result_action="return_value")
    except CycloptsError as error:
        print(f"tavq: {str(error).strip()}", file=sys.stderr)
        return 2
    except TavqError as error:
        print(f"tavq: {error}", file=sys.stderr)
        return error.exit_code
    except BrokenPipeError:
        return 1
    except OSError as error:
        print(f"tavq: {error.filename or 'A file'} cannot be used: {error.strerror or error}.", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print("tavq: interrupted", file=sys.stderr)
        return 1
    return code if isinstance(code, int) else 0


def main() -> None:
    """The `tavq` command."""
    sys.exit(run())
