"""One of the processes that evaluate tasks together, in batches of three images: RANK WORLD STORE OUT PLACE."""

import contextlib
import sys
from pathlib import Path
from unittest.mock import patch

import torch
import torch.distributed as dist

from tavq.api import tasks
from tavq.core.files import write_json
from tavq.evaluation import generation, memorization, nearest_training, understanding
from tavq.metrics.record import evaluation_as_json


def main(rank: int, world: int, store: str, out: Path, place: Path) -> None:
    """Evaluate a task of each kind and write the metrics."""
    torch.set_num_threads(1)
    for module in (generation, memorization, nearest_training, understanding):
        module.BATCH = 3
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    judges = {"aligned": place / "aligned", "reader": place / "vqa"}
    for task, more in {"text-to-image": judges, "unconditional": {}, "vqa": {}}.items():
        found = tasks.evaluate_task(place / task, data=place / "data", split="train", limit=7, **more)
        write_json(out / f"{task}-{world}-{rank}.json", evaluation_as_json(found)["metrics"])
    if world > 1:
        dist.barrier()
        dist.destroy_process_group()


if __name__ == "__main__":
    with patch.object(tasks, "join_processes", contextlib.nullcontext):
        main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], Path(sys.argv[4]), Path(sys.argv[5]))
