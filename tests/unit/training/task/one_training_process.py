"""One of the processes that train a small prior into a run folder, and may be killed while they do.

Called by test_sharded_runs.py as: one_training_process.py RANK WORLD STORE OUT SPECIFICATION
"""

import json
import os
import signal
import sys
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
from torch.distributed.checkpoint import HuggingFaceStorageWriter

from tavq.core import files
from tavq.core.config import build
from tavq.core.errors import StoppedError
from tavq.data.folder import FolderDataset
from tavq.recipes.schema import TaskRecipe
from tavq.training import sharded_checkpoint
from tavq.training.reporting import SilentReporter
from tavq.training.task.trainer import TaskTrainer


class Told(SilentReporter):
    """A Reporter that stops the run after a step and keeps the messages."""

    def __init__(self, at: int | None) -> None:
        self.at, self.stop, self.messages = at, lambda: None, list[str]()

    def progress(self, step: int, steps: int, line: dict[str, Any] | None) -> None:
        if step == self.at:
            self.stop()

    def message(self, text: str) -> None:
        self.messages.append(text)


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def die_while_writing(step: int) -> None:
    """Leave half of the file of this process at its checkpoint of a step."""
    write = HuggingFaceStorageWriter.write_data

    def cut(self: Any, plan: Any, planner: Any) -> Any:
        done = write(self, plan, planner)
        if sharded_steps[-1] == step:
            path = next(Path(self.path).glob(f"shard-{dist.get_rank() + 1:05d}-*"))
            os.truncate(path, path.stat().st_size // 2)
            die()
        return done

    HuggingFaceStorageWriter.write_data = cut  # type: ignore[method-assign]


sharded_steps: list[int] = []


def note_steps() -> None:
    """Keep the step of each checkpoint that is written."""
    write = sharded_checkpoint.write

    def noted(path: Path, *rest: Any) -> None:
        sharded_steps.append(int(path.name))
        write(path, *rest)

    sharded_checkpoint.write = noted


def die_before_the_name(step: int) -> None:
    """End where all parts are on disk and the folder has no name yet."""
    replace = files.replace_folder

    def last(new: Path, path: Path) -> None:
        if path.name == f"{step:08d}":
            die()
        replace(new, path)

    files.replace_folder = last


KILLS = {"writing": die_while_writing, "naming": die_before_the_name}


def main(rank: int, world: int, store: str, out: str, given: dict[str, Any]) -> None:
    """Train, or go on training, as the specification says."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    note_steps()
    kill = given.get("kill")
    if kill is not None and kill["rank"] == rank:
        KILLS[kill["while"]](kill["step"])
    told = Told(given.get("stop"))
    recipe = build(TaskRecipe, given["recipe"], "test")
    data = FolderDataset(Path(given["data"]), "train")
    trainer = TaskTrainer(recipe, given["tokenizer"], data, Path(given["run"]), reporter=told)
    told.stop = trainer.loop.stop
    try:
        trainer.run(resume=given.get("resume", False))
    except StoppedError:
        assert given.get("stop") is not None
    if rank == 0:
        (Path(out) / "messages.json").write_text(json.dumps(told.messages))
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], json.loads(sys.argv[5]))
