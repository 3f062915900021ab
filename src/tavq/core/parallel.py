"""Run functions side by side, each in its own process with one torch thread.

Several torch threads in one process wait for each other many times per step, and spin while they wait. On cores that
other programs use too, this multiplies the CPU time; processes with one thread each never wait for each other.
"""

import logging
import multiprocessing
import os
import sys
import time
import traceback
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from typing import Any, Protocol, runtime_checkable

from tavq.core.errors import TavqError
from tavq.core.memory import TRAINING_ADVICE, describe_out_of_memory, is_out_of_memory
from tavq.core.signals import end_with_parent, stop_on_signal

MAX_WORKERS = 64
"""Processes that load images; each holds a copy of the list of images."""

STOP_SECONDS = 60.0
"""How long a job may take to stop (finish a training step, write a checkpoint) before it is killed."""

INTERRUPTED = 130
"""Exit code of a job that was interrupted, as shells have it."""


@runtime_checkable
class Progress(Protocol):
    """Receives the progress of a job."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


@dataclass(frozen=True)
class Job:
    """A call `function(*arguments, progress)`, where `progress` is a Progress.

    Another process imports the function by its name, so it is defined at the top level of a module; arguments and
    result are pickled.
    """

    name: str
    """Comes first in error messages."""
    function: Callable[..., Any]
    arguments: tuple[Any, ...] = ()
    device: str | None = None
    """Where it computes, as `tavq.core.devices.use_device` takes it."""


@contextmanager
def one_thread() -> Iterator[None]:
    """Within this context torch uses one thread."""
    import torch  # not at the top: the command line shows its help without it

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run_in_parallel(jobs: Sequence[Job], progress: Callable[[int, int, int | None, str], None]) -> list[Any]:
    """Run jobs at the same time and return their results in order.

    If a job fails, or this process is interrupted, the other jobs are stopped before the error is raised. What jobs
    write to the log `tavq` is written to the log of this process. A script that calls this function must be guarded
    by `if __name__ == "__main__"`.

    Args:
        jobs: the calls.
        progress: called with the position of a job in `jobs`, and what the job reported: (done, total, note).

    Raises:
        Exception: the error of the job that failed first; the message of a TavqError begins with the job's name.
        TavqError: the process of a job ended before its function did.
        KeyboardInterrupt: SIGINT or SIGTERM arrived.
    """
    # Spawned, not forked: this process may have threads or use a GPU, and a forked copy of it could not.
    context = multiprocessing.get_context("spawn")
    processes: list[BaseProcess] = []
    running: dict[Connection, int] = {}
    results: list[Any] = [None] * len(jobs)
    try:
        with stop_on_signal(_interrupt):
            for index, job in enumerate(jobs):
                receiver, sender = context.Pipe(duplex=False)
                process = context.Process(target=_run_job, args=(sender, job))
                process.start()
                sender.close()  # now the job holds the only sending end, and recv() fails when the job is dead
                processes.append(process)
                running[receiver] = index
            while running:
                for connection in wait(list(running)):
                    assert isinstance(connection, Connection)
                    index = running[connection]
                    kind, value = _receive(connection, jobs[index].name, processes[index])
                    if kind == "progress":
                        progress(index, *value)
                    elif kind == "log":
                        level, message = value
                        logging.getLogger("tavq").log(level, "%s", message)
                    elif kind == "error":
                        raise type(value)(f"{jobs[index].name}: {value}") if isinstance(value, TavqError) else value
                    else:
                        results[index] = value
                        del running[connection]
    finally:
        _stop(processes, running)
    return results


def _interrupt() -> None:
    raise KeyboardInterrupt


def _receive(connection: Connection, name: str, process: BaseProcess) -> tuple[str, Any]:
    """The next message of a job, as kind and value."""
    try:
        kind, value = connection.recv()
    except EOFError:
        process.join()
        code = process.exitcode or 0
        killed = f"was killed by signal {-code}" if code < 0 else "ended"
        raise TavqError(
            f"{name}: its process {killed} before it was done. If nobody stopped it, the machine may be out of memory."
        ) from None
    return kind, value


def _stop(processes: Sequence[BaseProcess], running: Mapping[Connection, int]) -> None:
    """Ask running jobs to stop, wait until they have, and kill those that take too long."""
    for index in running.values():
        processes[index].terminate()
    try:
        deadline, remaining = time.monotonic() + STOP_SECONDS, list(running)
        while remaining and time.monotonic() < deadline:
            for connection in wait(remaining, timeout=1):
                assert isinstance(connection, Connection)
                # Read on: a job that waits for space in the pipe could not stop. By bytes, as a signal may have come in
                # the middle of a message.
                if not os.read(connection.fileno(), 1 << 16):
                    remaining.remove(connection)
    finally:
        for index in running.values():
            processes[index].join(timeout=1)
            processes[index].kill()
        for process in processes:
            process.join()
        for connection in running:
            connection.close()


def _run_job(sender: Connection, job: Job) -> None:
    """Run a job in its own process and send what it reports, logs, returns or raises."""
    logger = logging.getLogger("tavq")
    logger.addHandler(_LogSender(sender))
    logger.setLevel(logging.INFO)
    logger.propagate = False

    end_with_parent()

    def progress(done: int, total: int | None = None, note: str = "") -> None:
        sender.send(("progress", (done, total, note)))

    try:
        from tavq.core.devices import use_device  # loads torch

        with one_thread(), use_device(job.device):
            message = "result", job.function(*job.arguments, progress)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except (TavqError, OSError) as error:
        message = "error", error
    except Exception as error:
        if is_out_of_memory(error):
            message = "error", TavqError(describe_out_of_memory(error, TRAINING_ADVICE))
        else:  # a fault of the program: show where it happened
            message = "error", RuntimeError(f"in another process:\n{traceback.format_exc()}")
    with suppress(BrokenPipeError):
        sender.send(message)


class _LogSender(logging.Handler):
    """Send each log message to the process that started this one."""

    def __init__(self, sender: Connection) -> None:
        super().__init__()
        self._sender = sender

    def emit(self, record: logging.LogRecord) -> None:
        """Send a message with its level."""
        self._sender.send(("log", (record.levelno, record.getMessage())))
