"""The command line, in this process for speed, and two trained runs that the tests share."""

import contextlib
import io
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

SMALL = "--model.net.channels 8 --model.net.multipliers [1,1,2] --model.codebook.entries 16 --model.codebook.width 8"
SMALL += " --data.size 32 --train.steps 3 --train.batch 4 --train.warmup 1 --train.log_every 1"
SMALL += " --train.adversarial.start 2 --train.adversarial.discriminator.channels 8"


@dataclass(frozen=True)
class Done:
    """What a command gave back."""

    code: int
    out: str
    err: str


Tavq = Callable[..., Done]


def _run(*arguments: object) -> Done:
    from tavq.cli import run

    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        code = run([str(argument) for argument in arguments])
    return Done(code, out.getvalue(), err.getvalue())


@pytest.fixture(scope="session")
def tavq() -> Tavq:
    """Runs `tavq ARGUMENTS`."""
    return _run


@pytest.fixture(scope="session")
def small() -> list[str]:
    """Settings that make a shipped recipe train in a second."""
    return SMALL.split()


@pytest.fixture(scope="session")
def home(shared_images: Path, tmp_path_factory: pytest.TempPathFactory, small: list[str]) -> Path:
    """A folder with `data` and its text store, and with the runs `plain` and `aligned`; to be read only."""
    home = tmp_path_factory.mktemp("home")
    data = home / "data"
    shutil.copytree(shared_images, data, ignore=shutil.ignore_patterns("text"))
    for command in (
        ("text", data),
        ("train", "vqgan-tiny", "--data", data, "--out", home / "plain", *small),
        ("train", "ta-vqgan-tiny", "--data", data, "--out", home / "aligned", *small, "--model.align.iterations", 5),
    ):
        done = _run(*command)
        assert done.code == 0, done.err
    return home
