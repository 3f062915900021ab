"""Jobs side by side: what comes back, and what is left of the others when one ends badly."""

import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
from multiprocessing.context import SpawnProcess
from pathlib import Path
from typing import Any

import parallel_jobs
import pytest

import tavq
from tavq.core import parallel
from tavq.core.errors import DataError, TavqError
from tavq.core.parallel import Job, run_in_parallel


def silent(*report: Any) -> None:
    """No progress is shown."""


def is_running(folder: Path) -> bool:
    try:
        os.kill(int((folder / "pid").read_text()), 0)
    except ProcessLookupError:
        return False
    return True


def test_results_come_in_order_from_processes_of_one_thread(caplog: pytest.LogCaptureFixture) -> None:
    reports: list[tuple[Any, ...]] = []
    with caplog.at_level(logging.INFO, "tavq"):
        results = run_in_parallel(
            [Job("one", parallel_jobs.double, (1,)), Job("two", parallel_jobs.double, (2,))],
            lambda *report: reports.append(report),
        )
    assert [value for value, _, _ in results] == [2, 4]
    assert len({os.getpid(), *(process for _, process, _ in results)}) == 3
    assert [threads for _, _, threads in results] == [1, 1]
    for index in (0, 1):
        assert [report for report in reports if report[0] == index] == [
            (index, done, 3, f"of {index + 1}") for done in (1, 2, 3)
        ]
    assert sorted(record.getMessage() for record in caplog.records) == ["doubling 1", "doubling 2"]
    assert {record.levelno for record in caplog.records} == {logging.WARNING}


@pytest.mark.parametrize(
    ("kind", "error", "message"),
    [
        ("error", DataError, r"^bad: The data are bad\.$"),
        ("fault", RuntimeError, r"(?s)in another process:.*in fail\n.*ZeroDivisionError: of the program"),
        ("disk", OSError, r"No space left on device: 'model.safetensors'"),
        ("killed", TavqError, r"^bad: its process was killed by signal 9 before it was done\. .*out of memory"),
        ("interrupted", TavqError, r"^bad: its process ended before it was done\."),
    ],
)
def test_a_job_that_fails_stops_the_others(tmp_path: Path, kind: str, error: type[Exception], message: str) -> None:
    jobs = [
        Job("good", parallel_jobs.work_until_stopped, (tmp_path,)),
        Job("bad", parallel_jobs.fail, (tmp_path, kind)),
    ]
    with pytest.raises(error, match=message):
        run_in_parallel(jobs, silent)
    assert (tmp_path / "stopped").exists()  # it was asked, not killed
    assert not is_running(tmp_path)


def test_a_job_that_does_not_stop_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parallel, "STOP_SECONDS", 0.5)
    jobs = [Job("deaf", parallel_jobs.ignore_signals, (tmp_path,)), Job("bad", parallel_jobs.fail, (tmp_path, "error"))]
    with pytest.raises(DataError):
        run_in_parallel(jobs, silent)
    assert not is_running(tmp_path)


SCRIPT = """
import sys
from pathlib import Path
import parallel_jobs
from tavq.core.parallel import Job, run_in_parallel

if __name__ == "__main__":
    try:
        run_in_parallel([Job("one", getattr(parallel_jobs, sys.argv[2]), (Path(sys.argv[1]),))], lambda *report: None)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.parametrize(
    ("number", "job"),
    [
        (signal.SIGINT, "work_until_stopped"),
        (signal.SIGTERM, "work_until_stopped"),
        (signal.SIGKILL, "work_until_stopped"),
        (signal.SIGKILL, "ignore_signals"),  # it never reports, so that no report of it fails
    ],
)
def test_a_signal_to_the_first_process_ends_all(tmp_path: Path, number: signal.Signals, job: str) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    paths = [str(Path(tavq.__file__).parents[1]), str(Path(parallel_jobs.__file__).parent)]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths)}
    command = [sys.executable, str(script), str(tmp_path), job]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True) as process:
        parallel_jobs.wait_for(tmp_path / "started")
        process.send_signal(number)
        out, _ = process.communicate(timeout=120)
    if number == signal.SIGKILL:  # nobody can ask the job to stop: it ends by itself
        for _ in range(1000):
            if not is_running(tmp_path):
                break
            signal.sigtimedwait([], 0.02)
    else:
        assert out == "interrupted\n"
        assert (tmp_path / "stopped").exists()
    assert not is_running(tmp_path)


class Stubborn(SpawnProcess):
    """A process that answers its end in the pipe: it sends on, and closes its side when it was asked to stop."""

    def __init__(self, sender: Any) -> None:
        super().__init__()
        self.sender, self.killed = sender, False

    def terminate(self) -> None:
        self.thread = threading.Thread(target=self.finish)
        self.thread.start()

    def finish(self) -> None:
        for _ in range(100):
            self.sender.send(("progress", (1, None, "x" * 5000)))  # more than a pipe holds
        self.sender.close()

    def join(self, timeout: float | None = None) -> None:
        self.thread.join(timeout)

    def kill(self) -> None:
        self.killed = self.thread.is_alive()


def test_a_job_can_stop_though_a_signal_cut_one_of_its_messages() -> None:
    """A signal interrupts between two reads of a message; what follows is no message from its beginning."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    sender.send(("progress", (1, None, "x" * 1000)))
    os.read(receiver.fileno(), 100)
    process = Stubborn(sender)
    parallel._stop([process], {receiver: 0})
    assert not process.killed
