"""Commands whose help ends with a list that is made when the help is shown."""

from collections.abc import Callable, Mapping
from typing import Any

from cyclopts import App


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
