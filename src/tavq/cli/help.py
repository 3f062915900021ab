"""Help: docstrings as paragraphs, and lists that are made when the help is shown."""

import inspect
from collections.abc import Callable, Mapping
from importlib import resources
from typing import Any

from cyclopts import App

from tavq import api


def add_with_list(
    group: App, name: str, function: Callable[..., Any], entries: Callable[[], Mapping[str, str]], title: str = ""
) -> None:
    """Add a command to a group.

    Args:
        group: the group.
        name: the command's name.
        function: what it runs.
        entries: returns what the list holds: a text for each name.
        title: a line above the list.
    """

    class Listing(App):
        @property
        def help_epilogue(self) -> str:
            lines = [f"{entry}: {text}" for entry, text in entries().items()]
            return "\n\n".join([title, *lines] if title else lines)

        @help_epilogue.setter
        def help_epilogue(self, value: str | None) -> None:
            """Ignore the value that App sets when it is made."""

    command = Listing(name=name)
    command.default(function)
    group.command(command)


def shipped_task_recipes() -> dict[str, str]:
    """Return the first sentence about each shipped recipe of a task, without loading the package of recipes."""
    folder = resources.files("tavq").joinpath("recipes", "tasks")
    found = {}
    for path in folder.iterdir():
        if path.name.endswith(".yaml"):
            description = api.read_yaml(path.read_text(encoding="utf-8"), path.name)["description"]
            found[path.name.removesuffix(".yaml")] = description.split(". ")[0].rstrip(".") + "."
    return dict(sorted(found.items()))


def format_default(value: Any) -> str | None:
    """Format the default of a flag for help; None where it says nothing."""
    if value in (None, False, ()):
        return None
    return " ".join(map(str, value)) if isinstance(value, tuple) else str(value)


def join_lines(docstring: str) -> str:
    """Return a docstring with each paragraph, and each argument, on one line."""
    lines: list[str] = []
    for line in inspect.cleandoc(docstring).splitlines():
        indent = len(line) - len(line.lstrip())
        starts = not line or not lines or not lines[-1] or lines[-1].endswith("Args:") or indent == 4
        if starts:
            lines.append(line)
        else:
            lines[-1] += " " + line.strip()
    return "\n".join(lines)
