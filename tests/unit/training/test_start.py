"""`resume="auto"`: one call serves the first start, every restart and a run that is complete."""

import json
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from tavq.core import shared_disk
from tavq.core.errors import TrainingError, UsageError
from tavq.core.temporary import TEMP_PREFIX
from tavq.data.folder import FolderDataset
from tavq.recipes.schema import Recipe
from tavq.training import start
from tavq.training.run_folder import RunFolder
from tavq.training.tokenizer.trainer import Trainer

from .test_loop import Listener, weights

Make = Callable[..., Recipe]


@pytest.fixture
def train(recipe: Make, dataset: FolderDataset, tmp_path: Path) -> Callable[..., list[str]]:
    """Trains into tmp_path/NAME with the same call as every other time; returns what a person is told."""

    def run(name: str = "run", stop_at: int | None = None, **changes: object) -> list[str]:
        listener = Listener()
        if stop_at is not None:
            listener.at[stop_at] = lambda: signal.raise_signal(signal.SIGTERM)
        settings = recipe({f"train.{key}": value for key, value in changes.items()})
        Trainer(settings, dataset, tmp_path / name, reporter=listener).run("auto")
        return listener.messages

    return run


def test_the_same_call_starts_goes_on_and_ends(train: Callable[..., list[str]], tmp_path: Path) -> None:
    train("whole")
    for stop in (1, 3):
        with pytest.raises(TrainingError, match="Stopped by a signal"):
            train(stop_at=stop)
    assert train() == []
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    written = {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("[a-z0-9]*.*")}
    assert train() == ["The run is complete: all 4 steps are done, and the model is saved."]
    assert {path: path.stat().st_mtime_ns for path in (tmp_path / "run").rglob("[a-z0-9]*.*")} == written


@pytest.mark.parametrize("lost", ["model", "model/config.json"])
def test_a_run_killed_before_its_model_was_saved_is_not_complete(
    train: Callable[..., list[str]], tmp_path: Path, lost: str
) -> None:
    train()
    saved = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model") if lost == "model" else (tmp_path / "run" / lost).unlink()
    assert train() == []
    assert weights(tmp_path / "run") == saved


def test_the_model_of_fewer_steps_does_not_make_a_run_complete(train: Callable[..., list[str]], tmp_path: Path) -> None:
    """Steps were added, and the process was killed after the last checkpoint and before the model was replaced."""
    train(steps=2)
    shutil.copytree(tmp_path / "run/model", tmp_path / "old")
    train()
    saved = weights(tmp_path / "run")
    shutil.rmtree(tmp_path / "run/model")
    (tmp_path / "old").rename(tmp_path / "run/model")
    assert train() == []
    assert weights(tmp_path / "run") == saved


def test_a_run_killed_while_its_folder_was_made_starts(train: Callable[..., list[str]], tmp_path: Path) -> None:
    (tmp_path / f"run/{TEMP_PREFIX}1").mkdir(parents=True)
    (tmp_path / "run/log.jsonl").write_text("")
    assert train() == []
    assert weights(tmp_path / "run")


def test_another_run_is_refused(train: Callable[..., list[str]]) -> None:
    train()
    with pytest.raises(UsageError, match="was started with other settings"):
        train(learning_rate=0.5)


def test_a_checkpoint_that_appears_late_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = RunFolder(tmp_path)

    def appear(seconds: float) -> None:
        path = folder.checkpoints / "00000007"
        path.mkdir(parents=True, exist_ok=True)
        (path / "state.json").touch()

    monkeypatch.setattr(shared_disk, "VISIBLE", 0.0)
    assert start.find_step(folder, 7) == 0
    monkeypatch.setattr(shared_disk, "VISIBLE", 10.0)
    monkeypatch.setattr(shared_disk.time, "sleep", appear)
    assert start.find_step(folder, 7) == 7
    assert start.find_step(folder, 0) == 7  # the first process starts a run where this one sees another


def test_another_number_of_processes_is_recorded_once(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    (tmp_path / "provenance.json").write_text(json.dumps({"processes": 2}))
    for step, processes in ((3, 2), (5, 4), (7, 4), (9, 1), (8, 4)):
        folder.record_processes(step, processes)
    assert folder.process_changes() == [{"step": 5, "processes": 4}]
    folder.record_processes(9, 2)
    assert folder.process_changes()[1:] == [{"step": 9, "processes": 2}]
