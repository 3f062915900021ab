"""From what a person asks for to pictures."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.palette import coloured
from tavq.data.pictures import load_segmentation
from tavq.data.transforms import prepare, to_float, to_uint8
from tavq.interfaces import to_device
from tavq.tasks.animating import Film
from tavq.tasks.base import Prompt, Sampling, rows_of
from tavq.tasks.folder import TaskModel
from tavq.tasks.prompting import Prompter

BATCH = 16
GAP = 2
"""Pixels between the pictures of a grid."""


def draw(
    model: TaskModel,
    prompt: Prompt,
    sampling: Sampling,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
    film: Film | None = None,
) -> Float[Tensor, "b 3 y x"]:
    """Pictures in [-1, 1], on the CPU; some are drawn at a time, and all of them follow from the generator's state.

    A film keeps how they came to be.
    """
    task, layout = model.task, model.config.layout
    pictures = []
    for start in range(0, prompt.count, BATCH):
        part = prompt.part(start, min(start + BATCH, prompt.count))
        if film is None:
            tokens = task.draw(part, sampling, generator)
        else:
            tokens = film.take(task.passes(part, sampling, generator))
        pictures.append(model.decoded(tokens, layout).cpu())
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


def ask(
    model: TaskModel, captions: Sequence[str], maps: Sequence[Path], count: int, encoder: str | None = None
) -> tuple[Prompt, tuple[str, ...]]:
    """What to draw: `count` pictures of each caption or segmentation map, or just `count`; and notes for a person.

    Raises UsageError where the task reads something else than what is given, or cannot use it.
    """
    needs = model.task.needs(model.config.task)
    for what, given in (("text", captions), ("segmentation", maps)):
        if given and what not in needs:
            raise UsageError(
                f"The task {model.config.task.name!r} of this model does not draw from {what}; leave it out."
            )
        if what in needs and not given:
            raise UsageError(f"This model draws from {what}; give it with --{'prompt' if what == 'text' else what}.")
    device = next(model.task.parameters()).device
    if captions:
        typed = Prompter(model.facts, encoder, device)(captions)
        text = to_device(rows_of(typed.features, _each(len(captions), count)), device)
        return Prompt(len(captions) * count, text=text), typed.notes
    if maps:
        tokens = torch.cat([_map_tokens(model, path) for path in maps])
        return Prompt(len(maps) * count, given=tokens[_each(len(maps), count)]), ()
    return Prompt(count), ()


def _each(conditions: int, count: int) -> Tensor:
    return torch.arange(conditions).repeat_interleave(count)


def _map_tokens(model: TaskModel, path: Path) -> Int[Tensor, "1 g"]:
    """The tokens of a file's segmentation map."""
    assert model.given is not None
    assert model.config.given is not None
    size = int(model.facts["size"])
    square = to_float(prepare(coloured(load_segmentation(path)), size, nearest=True))[None]
    return model.config.given.tokens(model.given.encode(square.to(next(model.task.parameters()).device)))


def repeated(conditions: int, count: int) -> list[str]:
    """A file name for each of `count` pictures of each condition."""
    digits = len(str(max(conditions, count)))
    numbers = [f"{number:0{digits}}" for number in range(1, count + 1)]
    if conditions <= 1:
        return numbers
    return [f"{condition:0{digits}}-{number}" for condition in range(1, conditions + 1) for number in numbers]
