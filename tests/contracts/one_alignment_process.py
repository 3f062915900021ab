"""One of the processes that align a batch together: saves the losses and the gradients of the aligner's networks.

Called by test_alignment_processes.py as: one_alignment_process.py RANK WORLD STORE OUT
"""

import sys
from pathlib import Path

import torch
import torch.distributed as dist

from tavq.align.ta import TransportAligner
from tavq.core import files
from tavq.interfaces import Quantized, TextFeatures, TextUnits, sum_losses
from tavq.ops.collective import all_reduce_mean

IMAGES = 6


def main(rank: int, world: int, store: str, out: str) -> None:
    """Aligns this process's part of six images, some of which have no text."""
    torch.set_num_threads(1)
    if world > 1:
        dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world)
    torch.manual_seed(0)
    # No variance, so that the noise, which differs between processes, has no effect.
    aligner = TransportAligner(TransportAligner.Config(contrast=0.5, samples=(2, 2, 2)), 4, 3).train()
    for network in aligner.networks.values():
        torch.nn.init.constant_(network.variance[2].bias, -200.0)  # type: ignore[union-attr, operator]
        torch.nn.init.zeros_(network.variance[2].weight)  # type: ignore[union-attr, operator]
    codes, texts = torch.randn(IMAGES, 4, 2, 2), torch.randn(IMAGES, 3, 3)
    found: dict[str, torch.Tensor] = {}
    # In the second batch one of two processes has no text, and must still take part in what the other waits for.
    for name, lengths in (("some", [1, 1, 0, 1, 1, 1]), ("half", [1] * 3 + [0] * 3)):
        found |= {f"{name}/{key}": value for key, value in align(aligner, codes, texts, lengths, rank, world).items()}
    # Without sampling texts keep their lengths, and the longest of one process is shorter than that of the other.
    torch.manual_seed(1)  # the samples above took more random numbers for more images
    whole = TransportAligner(TransportAligner.Config(contrast=0.5, sampling=False), 4, 3).train()
    several = align(whole, codes, texts, [3, 1, 2, 2, 1, 0], rank, world)
    found |= {f"unsampled/{key}": value for key, value in several.items()}
    files.write_tensors(Path(out) / f"{world}-{rank}.safetensors", found)
    if world > 1:
        dist.destroy_process_group()


def align(
    aligner: TransportAligner, codes: torch.Tensor, texts: torch.Tensor, lengths: list[int], rank: int, world: int
) -> dict[str, torch.Tensor]:
    """The losses, gradients and buffers after this process's part of a batch."""
    aligner.zero_grad()
    share = IMAGES // world
    own = slice(rank * share, (rank + 1) * share)
    longest = max(1, *lengths[own])
    mask = torch.arange(longest) < torch.tensor(lengths)[:, None]
    grid = Quantized(codes[own], codes[own], torch.zeros(share, 2, 2, dtype=torch.long), {})
    units = TextUnits(texts[own, :longest], mask[own])
    losses = aligner(dict.fromkeys(range(3), grid), TextFeatures(units, units, units))
    sum_losses(losses).backward()
    for parameter in aligner.parameters():  # as training does
        present = parameter.grad if parameter.grad is not None else torch.zeros_like(parameter)
        parameter.grad = all_reduce_mean(present)
    found = {f"loss/{key}": all_reduce_mean(loss.value.detach()) for key, loss in losses.items()}
    found |= {f"gradient/{key}": p.grad.clone() for key, p in aligner.named_parameters() if p.grad is not None}
    return found | {f"buffer/{key}": value.clone() for key, value in aligner.named_buffers()}


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4])
