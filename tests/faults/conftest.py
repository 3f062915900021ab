"""The command line in processes of its own that can be killed."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from command_server import CommandServer, Running

Start = Callable[..., Running]


@pytest.fixture(scope="session")
def _server() -> Iterator[CommandServer]:
    with CommandServer() as server:
        yield server


@pytest.fixture
def start(_server: CommandServer, tmp_path: Path) -> Iterator[Start]:
    """Starts `tavq ARGUMENTS`, with the options of `CommandServer.start`; one at a time."""

    def begin(*arguments: object, die_at: int = 0, largest_file: int = 0) -> Running:
        return _server.start(tmp_path / "told.txt", *arguments, die_at=die_at, largest_file=largest_file)

    yield begin
    _server.kill_last()  # the test failed before its end
