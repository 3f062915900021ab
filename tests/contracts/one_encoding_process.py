"""One of the processes that encode the images of a task together, and say how many each encoded.

Called by test_encoding_processes.py as: one_encoding_process.py RANK WORLD STORE OUT DATA shared|apart
"""

import json
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist
from conftest import small_tokenizer

from tavq.core.files import sha256, write_json
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.tasks.base import TokenLayout
from tavq.tasks.understanding import ImageInput
from tavq.tokenizer import Tokenizer
from tavq.training.task import tokens, understanding_data
from tavq.training.task.tokens import TOKENS, FrozenTokenizer, encode_split, load_or_encode
from tavq.training.task.understanding_data import FEATURES, FeatureCache

rank, world, store, out, data, disks = (int(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:])
if world > 1:
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
tokens.BATCH = understanding_data.BATCH = 3
encoded = {"tokens": 0, "features": 0}


def count(name: str, work: Any, images: int) -> Any:
    """`work`, which counts the images that it is given in its argument of this number."""

    def counted(*arguments: Any) -> Any:
        encoded[name] += len(arguments[images])
        return work(*arguments)

    return counted


Tokenizer.encode = count("tokens", Tokenizer.encode, 1)  # type: ignore[method-assign]
understanding_data.extract_encoder_features = count("features", understanding_data.extract_encoder_features, 1)

torch.manual_seed(0)
tokenizer = small_tokenizer().eval()
side = 16 // tokenizer.factor
layout = TokenLayout(height=side, width=side, sizes=tokenizer.codebook.sizes)
frozen = FrozenTokenizer(tokenizer, {"sha256": "0"}, 16, layout, "small")
dataset, config, device = FolderDataset(Path(data)), DataConfig(size=16), torch.device("cpu")
run = Path(out) / f"run-{world}" / ("shared" if disks == "shared" else str(rank))
run.mkdir(parents=True, exist_ok=True)
found: dict[str, Any] = {}
for turn in ("first", "again"):
    encoded.update(tokens=0, features=0)
    table = load_or_encode(
        run / TOKENS, "stamp", lambda: encode_split(frozen, dataset, config, flip=False, device=device)
    )
    features = FeatureCache(ImageInput(source="features"), frozen, dataset, config, run, device)
    found[turn] = {
        "encoded": dict(encoded),
        "keys": table.keys,
        "tokens": table.tokens.tolist(),
        "faults": [str(fault) for fault in (*table.faults, *features.faults)],
        "features": features.load(range(len(features.keys))).tolist(),
        "files": [sha256(run / TOKENS), sha256(run / FEATURES)],
    }
(Path(out) / f"{world}-{rank}.json").unlink(missing_ok=True)
write_json(Path(out) / f"{world}-{rank}.json", json.loads(json.dumps(found)))
if world > 1:
    dist.destroy_process_group()
