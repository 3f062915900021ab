"""One of the processes that measure a tokenizer together, each its share of the batches.

Called by test_evaluation_processes.py as: one_evaluation_process.py RANK WORLD STORE OUT DATA
"""

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import numpy as np
import torch
import torch.distributed as dist
from conftest import TEXT_WIDTH, TOKENS, Source, small_tokenizer
from torch import Tensor

from tavq.core import files
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.evaluation.tokenizer import evaluate
from tavq.interfaces import FULL_TEXT, FULL_TEXT_IDS, GRANULARITIES, POOLED
from tavq.metrics.record import evaluation_as_json
from tavq.nets.features.extractors import FeatureNetwork

BATCH = 3


class Patches(FeatureNetwork):
    """Means of 2 x 2 patches: a network that needs no weights."""

    name = "patches"
    width = 12
    sha256 = "0" * 64

    def stages(self, images: Tensor) -> list[Tensor]:
        return [torch.nn.functional.adaptive_avg_pool2d(images, 2).flatten(1)[..., None, None]]


class Letters(Source):
    """Texts of 1 to 5 units, drawn from the number in the file name; every fourth image has none."""

    def __contains__(self, key: object) -> bool:
        return int(Path(str(key)).stem) % 4 != 3

    def vectors(self, key: str) -> dict[str, Any]:
        rng = np.random.default_rng(int(Path(key).stem))
        units = {
            name: rng.standard_normal((int(rng.integers(1, 6)), TEXT_WIDTH)).astype(np.float32)
            for name in (*GRANULARITIES, FULL_TEXT)
        }
        ids = rng.integers(TOKENS, size=len(units[FULL_TEXT]))
        return {**units, FULL_TEXT_IDS: ids, POOLED: units[FULL_TEXT].mean(0)}


def main(rank: int, world: int, store: str, out: str, data: str) -> None:
    """All images, and then the first batch alone, of which the second process sees nothing."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    tokenizer = small_tokenizer(align="lg").eval()
    dataset = FolderDataset(Path(data))
    found = {}
    for name, limit in (("all", None), ("first batch", BATCH)):
        loader = EvaluationLoader(dataset, DataConfig(size=32), BATCH, Letters(), limit, rank, world)
        found[name] = evaluation_as_json(evaluate(tokenizer, loader, [Patches()]))
        loader.join_faults()
        found[name]["faults"] = [str(fault) for fault in loader.faults]
    files.write_json(Path(out) / f"{world}-{rank}.json", found)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4], sys.argv[5])
