"""A Chromium for tests, where this machine has one, and calls to it that always end."""

import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chromium-headless-shell")

FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync"]  # fmt: skip


def find_chromium() -> str | None:
    """The first Chromium of the system that runs, or else one that playwright installed; None without one."""
    kept = Path(os.environ.get("PLAYWRIGHT_BROWSERS_PATH", "~/.cache/ms-playwright")).expanduser()
    found = [*filter(None, map(shutil.which, NAMES)), *map(str, sorted(kept.glob("chromium-*/chrome-linux*/chrome")))]
    return next(filter(_runs, found), None)


def _runs(chromium: str) -> bool:
    # Ubuntu's chromium-browser may be a script that only asks to install a snap.
    with suppress(OSError, subprocess.TimeoutExpired):
        return subprocess.run([chromium, "--version"], capture_output=True, timeout=60).returncode == 0
    return False


@contextmanager
def open_browser(api: Any, chromium: str) -> Iterator[tuple[Any, int]]:
    """A browser, and the process that drives it: when this is killed, the browser ends, and so does every call to it.

    Args:
        api: `playwright.sync_api`.
        chromium: what `find_chromium` found.
    """
    before = _children()
    with api.sync_playwright() as playwright:
        [driver] = _children() - before
        browser = playwright.chromium.launch(executable_path=chromium, args=FLAGS)
        yield browser, driver
        browser.close()


def _children() -> set[int]:
    """The processes that this thread started."""
    return set(map(int, Path(f"/proc/self/task/{threading.get_native_id()}/children").read_text().split()))


@contextmanager
def ending_within(seconds: float, *processes: int) -> Iterator[None]:
    """Kill processes when the block takes longer: `page.evaluate` and others wait for their answer without end."""

    def kill() -> None:
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, signal.SIGABRT)  # a process with PYTHONFAULTHANDLER prints its threads first

    timer = threading.Timer(seconds, kill)
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
