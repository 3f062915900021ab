"""From what a person asks for to pictures."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tavq.data.transforms import to_uint8
from tavq.tasks.base import Prompt, Sampling
from tavq.tasks.folder import TaskModel

BATCH = 16
GAP = 2
"""Pixels between the pictures of a grid."""


def draw(
    model: TaskModel,
    prompt: Prompt,
    sampling: Sampling,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
) -> Float[Tensor, "b 3 y x"]:
    """Pictures in [-1, 1], on the CPU; some are drawn at a time, and all of them follow from the generator's state."""
    pictures = []
    for start in range(0, prompt.count, BATCH):
        part = prompt.part(start, min(start + BATCH, prompt.count))
        tokens = model.task.draw(part, sampling, generator)
        with torch.no_grad():
            pictures.append(model.tokenizer.decode(model.config.layout.indices(tokens)).clamp(-1, 1).cpu())
        if progress is not None:
            progress(min(start + BATCH, prompt.count))
    return torch.cat(pictures)


def grid(pictures: Float[Tensor, "b 3 y x"]) -> UInt8[np.ndarray, "h w 3"]:
    """All pictures on one, as near a square as their number allows."""
    b, _, y, x = pictures.shape
    columns = math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    page = np.full((rows * (y + GAP) - GAP, columns * (x + GAP) - GAP, 3), 255, np.uint8)
    for place, picture in enumerate(to_uint8(pictures).permute(0, 2, 3, 1).cpu().numpy()):
        top, left = place // columns * (y + GAP), place % columns * (x + GAP)
        page[top : top + y, left : left + x] = picture
    return page


def repeated(names: Sequence[str], count: int) -> list[str]:
    """A file name for each of `count` pictures of each condition."""
    digits = len(str(max(len(names), count)))
    if len(names) == 1:
        return [f"{number:0{digits}}" for number in range(1, count + 1)]
    return [
        f"{name:0{digits}}-{number:0{digits}}" for name in range(1, len(names) + 1) for number in range(1, count + 1)
    ]
