"""Which options of a command lower the memory that it needs."""

import inspect
from collections.abc import Callable, Sequence
from typing import Any

from cyclopts import App

from tavq.core.memory import TRAINING_ADVICE, TRAINING_SETTINGS

OPTIONS = {
    "batch": "a smaller --batch",
    "size": "a smaller --size",
    "count": "a smaller --count",
    "longest_side": "a smaller --longest-side",
    "jobs": "a smaller --jobs",
    "workers": "a smaller --workers",
    "limit": "--limit",
}
"""Options of other commands that lower it."""


def find_command(app: App, words: Sequence[str]) -> tuple[list[str], Callable[..., Any] | None]:
    """The words of a line that name its command, and its function; None for a group of commands."""
    named: list[str] = []
    for word in words:
        if word.startswith("-") or word not in app:
            break
        app = app[word]
        named.append(word)
    return named, app.default_command


def advise(app: App, words: Sequence[str]) -> str:
    """Say which options of the command that was called lower the memory that it needs.

    Args:
        app: the command line.
        words: its arguments.
    """
    _, command = find_command(app, words)
    names = inspect.signature(command).parameters if command is not None else {}
    if "settings" in names:
        return _advise_training()
    known = [text for name, text in OPTIONS.items() if name in names]
    if "device" in names:
        known.append("another --device")
    return f"Try {' or '.join(known)}" if known else "Close other programs, or use a machine with more memory"


def _advise_training() -> str:
    return f"{TRAINING_ADVICE}. {_how_to_resume()}"


def _how_to_resume() -> str:
    from tavq.training.provenance import MAY_CHANGE  # loads torch, which a training has loaded

    free = [f"--train.{name}" for name in TRAINING_SETTINGS if f"train.{name}" in MAY_CHANGE]
    kept = f"; {' and '.join(free)} may change" if free else ""
    return f"The run keeps its checkpoints, and goes on with the same settings and --resume{kept}"
