"""The command line in processes of its own that can be killed."""

from collections.abc import Callable, Iterator
from itertools import count
from pathlib import Path

import pytest
from command_server import Running, shared_server

Start = Callable[..., Running]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `tavq ARGUMENTS`, with the options of `CommandServer.start`."""

    server, told = shared_server(), (tmp_path / f"told-{number}.txt" for number in count())

    def begin(*arguments: object, die_at: int = 0, largest_file: int = 0) -> Running:
        return server.start(next(told), *arguments, die_at=die_at, largest_file=largest_file)

    yield begin
    server.kill_rest()  # the test failed before its end
