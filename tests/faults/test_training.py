"""A run that is killed, stopped, out of disk or changed: the results of an undisturbed run, or a clear error."""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tavq.core import files, temporary

RECIPE = """
model:
  net: {channels: 8, multipliers: [1, 1, 2], blocks: 1, attention: false}
  codebook: {name: learned, entries: 16, width: 8, init: features}
data: {size: 16, flip: 0.5}
train:
  steps: 6
  batch: 2
  learning_rate: 1.0e-3
  ema: 0.9
  clip: 1.0
  adversarial: {start: 3, discriminator: {channels: 8, layers: 1}}
  log_every: 2
  sample_every: 4
  checkpoint_every: 2
"""
SRC = str(Path(__file__).parents[2] / "src")
LONG = ("--train.steps", 100_000, "--train.log_every", 1)

Start = Callable[..., Any]


@pytest.fixture(scope="session")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("recipe") / "tiny.yaml"
    path.write_text(RECIPE)
    return path


@pytest.fixture
def train(start: Start, recipe: Path, shared_images: Path, tmp_path: Path) -> Start:
    """Start training into tmp_path/run, or into another `out`."""

    def begin(*arguments: object, out: Path | None = None, data: Path = shared_images, **options: int) -> Any:
        return start("train", recipe, "--data", data, "--out", out or tmp_path / "run", *arguments, **options)

    return begin


@pytest.fixture(scope="session")
def _undisturbed() -> dict[str, bytes]:
    return {}


@pytest.fixture
def undisturbed(train: Start, tmp_path: Path, _undisturbed: dict[str, bytes]) -> bytes:
    """The weights of an undisturbed run."""
    if not _undisturbed:
        running = train(out=tmp_path / "undisturbed")
        assert running.wait() == 0, running.lines
        _undisturbed["weights"] = weights(tmp_path / "undisturbed")
    return _undisturbed["weights"]


def weights(run: Path) -> bytes:
    return (run / "model" / "model.safetensors").read_bytes()


def log_steps(run: Path) -> list[int]:
    return [line["step"] for line in files.read_json_lines(run / "log.jsonl")]


def leftovers(run: Path) -> list[str]:
    return [path.name for path in run.rglob(f"{temporary.TEMP_PREFIX}*")]


def resume(run: Path) -> list[str]:
    return ["--resume"] if (run / "recipe.yaml").exists() else []


def test_killed_between_any_two_writes(train: Start, tmp_path: Path) -> None:
    short = ("--train.steps", 2, "--train.checkpoint_every", 1, "--train.keep", 1, "--train.adversarial.start", 1)
    short += ("--train.log_every", 1)
    found: list[bytes] = []
    for death in range(1, 100):
        run = tmp_path / str(death)
        killed = train(*short, out=run, die_at=death)
        if killed.wait() == 0:
            break
        started_the_second_step = (run / "log.jsonl").exists() and 2 in log_steps(run)
        again = train(*short, *resume(run), out=run)
        assert again.wait() == 0, (death, again.lines)
        assert not any("damaged" in line for line in again.lines)
        assert not (started_the_second_step and any("No checkpoint" in line for line in again.lines))
        assert log_steps(run) == [1, 2]
        assert leftovers(run) == []
        found.append(weights(run))
    assert len(found) >= 15  # log, provenance, recipe, samples, model and two checkpoints take that many
    assert set(found) == {weights(run)}


@pytest.mark.parametrize("workers", [0, 1])
def test_killed_at_any_moment_again_and_again(train: Start, undisturbed: bytes, tmp_path: Path, workers: int) -> None:
    run = tmp_path / "run"
    rng = random.Random(workers)
    settings = ["--data.workers", workers, "--train.checkpoint_every", 1]
    for _ in range(8):
        running = train(*settings, *resume(run))
        time.sleep(rng.uniform(0.02, 0.5))
        running.signal(signal.SIGKILL)
        assert running.wait() in (0, -signal.SIGKILL), running.lines
    running = train(*settings, *resume(run))
    assert running.wait() == 0, running.lines
    assert weights(run) == undisturbed
    assert log_steps(run)[-1] == 6
    assert leftovers(run) == []


def test_a_real_process_killed_and_resumed(
    recipe: Path, shared_images: Path, undisturbed: bytes, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    command = [
        sys.executable,
        "-m",
        "tavq",
        "train",
        str(recipe),
        "--data",
        str(shared_images),
        "--out",
        str(run),
    ]
    command += ["--train.checkpoint_every", "1"]
    environment = {**os.environ, "PYTHONPATH": SRC}
    with subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL) as process:
        while not (run / "checkpoints" / "00000001").exists():
            assert process.poll() is None
            time.sleep(0.005)
        process.kill()
    assert process.returncode in (0, -signal.SIGKILL)
    done = subprocess.run([*command, "--resume"], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert weights(run) == undisturbed


@pytest.mark.parametrize(
    ("number", "group", "workers"), [(signal.SIGTERM, False, 0), (signal.SIGINT, True, 0), (signal.SIGINT, True, 1)]
)
def test_a_signal_stops_a_run_cleanly(
    train: Start, undisturbed: bytes, tmp_path: Path, number: int, group: bool, workers: int
) -> None:
    """A terminal sends Ctrl-C to the data loading workers too."""
    run = tmp_path / "run"
    running = train("--data.workers", workers, *LONG)
    running.until(lambda: (run / "log.jsonl").exists() and len(log_steps(run)) > 6)
    running.signal(number, group)
    assert running.wait() == 1
    step = max(int(path.name) for path in (run / "checkpoints").iterdir())
    assert running.lines == [
        f"tavq: Stopped by a signal after step {step} of 100000. A checkpoint was written; resume with the same "
        "command and --resume."
    ]
    assert leftovers(run) == []
    running = train("--resume", "--train.steps", step + 1)
    assert running.wait() == 0, running.lines
    whole = train("--train.steps", step + 1, out=tmp_path / "whole")
    assert whole.wait() == 0, whole.lines
    assert weights(run) == weights(tmp_path / "whole")


def test_a_second_writer_is_refused_and_changes_nothing(train: Start, tmp_path: Path) -> None:
    run = tmp_path / "run"
    first = train(*LONG)
    first.until(lambda: (run / "log.jsonl").exists() and len(log_steps(run)) > 1)
    first.signal(signal.SIGSTOP)
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    second = train("--resume")
    assert second.wait() == 1
    told = f"tavq: Another process (pid {first.pid}) is writing to {run}; wait for it or choose another --out."
    assert second.lines == [told]
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before
    first.signal(signal.SIGCONT)
    first.signal(signal.SIGTERM)
    assert first.wait() == 1


def test_a_changed_setting_is_refused_and_named(train: Start, tmp_path: Path) -> None:
    assert train("--train.steps", 2).wait() == 0
    running = train("--train.steps", 2, "--train.seed", 7, "--model.codebook.entries", 32, "--resume")
    assert running.wait() == 2
    assert len(running.lines) == 1
    assert "model.codebook.entries was 16, now 32, train.seed was 0, now 7" in running.lines[0]


def test_changed_data_is_refused(train: Start, image_folder: Path) -> None:
    assert train("--train.steps", 2, data=image_folder).wait() == 0
    with open(image_folder / "metadata.jsonl", "a") as file:
        file.write('{"file_name": "images/0.png", "split": "val"}\n')
    running = train("--train.steps", 4, "--resume", data=image_folder)
    assert running.wait() == 2
    assert len(running.lines) == 1
    assert "The data set changed since" in running.lines[0]


@pytest.mark.parametrize("share", [0.0, 0.5, 0.999])
def test_a_cut_checkpoint_costs_only_its_steps(train: Start, undisturbed: bytes, tmp_path: Path, share: float) -> None:
    run = tmp_path / "run"
    assert train("--train.steps", 4).wait() == 0
    newest = run / "checkpoints/00000004/state.safetensors"
    newest.write_bytes(newest.read_bytes()[: int(newest.stat().st_size * share)])
    running = train("--resume")
    assert running.wait() == 0, running.lines
    assert "Skipped a damaged checkpoint: " in running.lines[0]
    assert "00000004" in running.lines[0]
    assert weights(run) == undisturbed


def test_an_error_says_that_every_checkpoint_is_cut(train: Start, tmp_path: Path) -> None:
    assert train("--train.steps", 4).wait() == 0
    for path in (tmp_path / "run/checkpoints").rglob("state.json"):
        path.write_bytes(path.read_bytes()[:-9])
    running = train("--resume")
    assert running.wait() == 1
    assert len(running.lines) == 1
    assert "Every checkpoint in" in running.lines[0]


def test_a_full_disk_leaves_the_last_good_checkpoint(train: Start, undisturbed: bytes, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert train("--train.steps", 2).wait() == 0
    good = (run / "checkpoints/00000002/state.safetensors").read_bytes()
    running = train("--resume", largest_file=len(good) - 1)
    assert running.wait() == 1
    assert len(running.lines) == 1
    assert running.lines[0].startswith("tavq: Could not write ")
    assert running.lines[0].endswith("File too large. Free space or choose another path.")
    assert [path.name for path in (run / "checkpoints").iterdir()] == ["00000002"]
    assert (run / "checkpoints/00000002/state.safetensors").read_bytes() == good
    running = train("--resume")
    assert running.wait() == 0, running.lines
    assert weights(run) == undisturbed


def test_a_killed_reading_process_is_explained(train: Start, tmp_path: Path) -> None:
    running = train("--data.workers", 1, *LONG)
    running.until(lambda: (tmp_path / "run/log.jsonl").exists() and len(log_steps(tmp_path / "run")) > 1)
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    for child in children:
        os.kill(int(child), signal.SIGKILL)
    assert children
    assert running.wait() == 1
    assert len(running.lines) == 1, running.lines
    assert running.lines[0].startswith("tavq: A data loading worker died")
