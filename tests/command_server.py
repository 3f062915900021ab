"""The command line in processes of its own that can be killed, started in hundredths of a second.

A server process imports everything once and forks for each command; a true `python -m tavq` takes seconds to start.
"""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

SERVER = """
import gc, json, os, resource, signal, sys, traceback
import tavq.cli, tavq.core.files, tavq.recipes, tavq.training.loop, tavq.text.store, tavq.describe.endpoint
import torch._dynamo
import huggingface_hub.utils._http

gc.freeze()

def die_at(call):
    replace, exchange, calls = os.replace, tavq.core.files.exchange_names, iter(range(1, 10**6))
    def count():
        if next(calls) == call:
            os.kill(os.getpid(), signal.SIGKILL)
    def counted(*places):
        count()
        replace(*places)
    def exchanged(*places):
        count()
        done = exchange(*places)
        count()
        return done
    os.replace, tavq.core.files.exchange_names = counted, exchanged

for line in sys.stdin:
    order = json.loads(line)
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        told = os.open(order["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(told, 1)
        os.dup2(told, 2)
        if order["die_at"]:
            die_at(order["die_at"])
        if order["largest_file"]:
            resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"],) * 2)
        try:
            code = tavq.cli.run(order["arguments"])
        except BaseException:
            traceback.print_exc()
            code = 70
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # taking the interpreter down costs more than the command
    print('started', child, flush=True)
    print('ended', os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


class Running:
    """A command that was started."""

    def __init__(self, server: "subprocess.Popen[str]", told: Path) -> None:
        self.server, self.told = server, told
        self.pid = self._answer("started")
        self.code: int | None = None

    def _answer(self, to: str) -> int:
        assert self.server.stdout is not None
        word, number = self.server.stdout.readline().split()
        assert word == to  # else the answers of two commands were mixed up
        return int(number)

    def signal(self, number: int, group: bool = False) -> None:
        """Sends a signal to the process, or as a terminal does to it and all it started."""
        with contextlib.suppress(ProcessLookupError):  # it was faster
            (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> int:
        """The exit code; minus the signal where one ended it."""
        self.code = self._answer("ended")
        return self.code

    @property
    def lines(self) -> list[str]:
        """What it wrote on both streams."""
        return self.told.read_text().splitlines()

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits for something to be so."""
        for _ in range(3000):
            if condition():
                return
            time.sleep(0.01)
        raise AssertionError(f"it never came to it: {self.lines}")


class CommandServer:
    """Starts commands, one at a time; ends with its context."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", "-c", SERVER]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.last: Running | None = None

    def start(self, told: Path, *arguments: object, die_at: int = 0, largest_file: int = 0) -> Running:
        """Start `tavq ARGUMENTS`, which writes both streams to `told`.

        Options: `die_at` kills it with SIGKILL just before that call of os.replace, and before and after an exchange
        of names, so between any two durable writes; `largest_file` makes longer files fail to be written, as a full
        disk does.
        """
        order = {"arguments": [str(argument) for argument in arguments], "told": str(told)}
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps({**order, "die_at": die_at, "largest_file": largest_file}) + "\n")
        self.process.stdin.flush()
        self.last = Running(self.process, told)
        return self.last

    def kill_last(self) -> None:
        """Kill the last command if nobody waited for its end."""
        if self.last is not None and self.last.code is None:
            self.last.signal(signal.SIGKILL)
            self.last.wait()

    def __enter__(self) -> "CommandServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_last()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait()
