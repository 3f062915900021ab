"""Commands and scripts in processes of their own that can be killed, started in hundredths of a second.

A server process imports everything once and forks for each command; a true `python -m tavq` takes seconds to start.
"""

import atexit
import contextlib
import functools
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

SERVER = """
import gc, json, os, resource, runpy, signal, sys, time, traceback, warnings
import tavq.api, tavq.cli, tavq.core.files, tavq.recipes, tavq.training.loop, tavq.text.store, tavq.describe.endpoint
import tavq.training.task.trainer, tavq.training.tokenizer.trainer
import torch._dynamo

gc.freeze()
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell lets what it starts in the background ignore it
ERRORS = ("error", None, Warning, None, 0)  # what -W error puts into the filters

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

def redirect(order):
    os.setpgid(0, 0)
    told = os.open(order["told"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    os.dup2(told, 1)
    os.dup2(os.open(order["errors"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC) if order["errors"] else told, 2)

def run_script(path, arguments):
    sys.argv, sys.path[0] = [path, *arguments], os.path.dirname(path)
    try:
        runpy.run_path(path, run_name="__main__")
    except SystemExit as end:
        if isinstance(end.code, str):
            print(end.code, file=sys.stderr)
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    return 0

def work(order):
    redirect(order)
    if order["die_at"]:
        die_at(order["die_at"])
    if order["largest_file"]:
        resource.setrlimit(resource.RLIMIT_FSIZE, (order["largest_file"],) * 2)
    if order["strict"]:
        import huggingface_hub.utils._http
    else:  # the package of the hub reads variables when it is imported
        warnings.filters.remove(ERRORS)
    os.environ.update(order["environment"])
    try:
        if order["script"]:
            code = run_script(order["script"], order["arguments"])
        else:
            code = tavq.cli.run(order["arguments"])
    except BaseException:
        traceback.print_exc()
        code = 70
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # taking the interpreter down costs more than the command

def wait(children, seconds, ask):
    # As torchrun does: where one fails, the others are asked to end, and later made to.
    codes, end, signals = {}, time.monotonic() + seconds, [signal.SIGTERM, signal.SIGKILL][1 - ask:]
    failed = False
    while len(codes) < len(children):
        for child in children:
            if child not in codes and (ended := os.waitpid(child, os.WNOHANG))[0]:
                codes[child] = os.waitstatus_to_exitcode(ended[1])
        if signals and (time.monotonic() > end or not failed and any(codes.values())):
            failed, number, end = True, signals.pop(0), time.monotonic() + 30
            for child in children:
                if child not in codes:
                    os.kill(child, number)
        time.sleep(0.005)
    return [codes[child] for child in children]

for line in sys.stdin:
    order = json.loads(line)
    if "children" in order:
        print(json.dumps(wait(**order)), flush=True)
        continue
    child = os.fork()
    if child == 0:
        work(order)
    print(child, flush=True)
"""


class Running:
    """A command that was started."""

    def __init__(self, server: "subprocess.Popen[str]", told: Path) -> None:
        self.server, self.told = server, told
        self.pid: int = _read_answer(server)
        self.code: int | None = None

    def signal(self, number: int, group: bool = False) -> None:
        """Sends a signal to the process, or as a terminal does to it and all it started."""
        with contextlib.suppress(ProcessLookupError):  # it was faster
            (os.killpg if group else os.kill)(self.pid, number)

    def wait(self) -> int:
        """The exit code; minus the signal where one ended it."""
        [self.code] = wait_together([self])
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


def _send(server: "subprocess.Popen[str]", order: Mapping[str, Any]) -> None:
    assert server.stdin is not None
    server.stdin.write(json.dumps(order) + "\n")
    server.stdin.flush()


def _read_answer(server: "subprocess.Popen[str]") -> Any:
    assert server.stdout is not None
    return json.loads(server.stdout.readline())


def wait_together(running: Sequence[Running], seconds: float = 600.0, ask: bool = False) -> list[int]:
    """The exit code of each; minus the signal where one ended it.

    Where one fails or time is up, the others are killed; with `ask` 30 seconds after a SIGTERM.
    """
    server = running[0].server
    _send(server, {"children": [each.pid for each in running], "seconds": seconds, "ask": ask})
    codes: list[int] = _read_answer(server)
    return codes


class CommandServer:
    """Starts commands and scripts; ends with its context."""

    def __init__(self) -> None:
        command = [sys.executable, "-W", "error", "-c", SERVER]
        tests = Path(__file__).parent
        paths = os.pathsep.join(map(str, (tests.parent / "src", tests)))
        kept = {name: value for name, value in os.environ.items() if not name.startswith("HF_")}
        environment = {**kept, "PYTHONPATH": paths, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        self.started: list[Running] = []

    def start(self, told: Path, *arguments: object, die_at: int = 0, largest_file: int = 0) -> Running:
        """Start `tavq ARGUMENTS`, which writes both streams to `told`; warnings are errors.

        Options: `die_at` kills it with SIGKILL just before that call of os.replace, and before and after an exchange
        of names, so between any two durable writes; `largest_file` makes longer files fail to be written, as a full
        disk does.
        """
        running = self._start(told, arguments, die_at=die_at, largest_file=largest_file, strict=True)
        self.started.append(running)
        return running

    def start_one_of_many(
        self, told: Path, arguments: Sequence[object], script: Path | None, errors: Path | None = None, **variables: str
    ) -> Running:
        """Start `tavq ARGUMENTS`, or a script with them, with more variables of the environment.

        What it prints goes to `told`, its errors there too or to a file of their own.
        """
        return self._start(told, arguments, environment=variables, errors=str(errors or ""), script=str(script or ""))

    def _start(self, told: Path, arguments: Sequence[object], **options: Any) -> Running:
        usual = {"die_at": 0, "largest_file": 0, "strict": False, "environment": {}, "errors": "", "script": ""}
        words = [str(argument) for argument in arguments]
        _send(self.process, {**usual, **options, "told": str(told), "arguments": words})
        return Running(self.process, told)

    def kill_rest(self) -> None:
        """Kill the commands for whose end nobody waited."""
        for running in self.started:
            if running.code is None:
                running.signal(signal.SIGKILL)
                running.wait()
        self.started.clear()

    def __enter__(self) -> "CommandServer":
        return self

    def __exit__(self, *_: object) -> None:
        self.kill_rest()
        for stream in (self.process.stdin, self.process.stdout):
            assert stream is not None
            stream.close()
        self.process.wait()


@functools.cache
def shared_server() -> CommandServer:
    """The server of this process of tests."""
    server = CommandServer()
    atexit.register(server.__exit__)
    return server
