"""One of the processes that train together: runs each part on its share of the batches and saves the results.

Called by test_processes.py as: one_process.py RANK WORLD STORE OUT
"""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import torch
import torch.distributed as dist
from conftest import small_tokenizer

from tavq.core import files
from tavq.interfaces import codebooks, quantizers
from tavq.ops.collective import any_process
from tavq.tokenizer import Tokenizer

IMAGES, ROUNDS = 6, 3


def show(tokenizer: Tokenizer, rank: int, world: int) -> dict[str, torch.Tensor]:
    """The state after three batches, and the indices and losses of each batch."""
    width = tokenizer.quantizer.grid_width(tokenizer.config.codebook)
    found: dict[str, torch.Tensor] = {}
    share = IMAGES // world
    for step in range(ROUNDS):
        batch = torch.randn(IMAGES, width, 3, 4, generator=torch.Generator().manual_seed(step))
        torch.manual_seed(100 * rank + step)  # each process has its own random numbers
        mine = batch[rank * share : (rank + 1) * share]
        made = tokenizer.train().quantizer(mine, tokenizer.codebook, update=True)
        found[f"indices/{step}"] = made.indices
        found |= {f"losses/{key}/{step}": loss.value.detach() for key, loss in made.losses.items()}
    return found | {f"state/{key}": value for key, value in tokenizer.state_dict().items() if "coder." not in key}


def main(rank: int, world: int, store: str, out: str) -> None:
    """Run every registered codebook and quantizer."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    tensors = {
        "any/told_by_one": torch.tensor(any_process(rank == world - 1)),
        "any/told_by_none": torch.tensor(any_process(False)),
    }
    for kind, names in (("codebook", codebooks), ("quantizer", quantizers)):
        for name in names:
            found = show(small_tokenizer(**{kind: name}), rank, world)
            tensors |= {f"{kind}/{name}/{key}": value.contiguous() for key, value in found.items()}
    files.write_tensors(Path(out) / f"{world}-{rank}.safetensors", tensors)
    if world > 1:
        dist.destroy_process_group()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
