"""From what a person asks for to images."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from tavq.core.devices import to_device
from tavq.core.errors import DataError, UsageError
from tavq.data.images import load_segmentation
from tavq.data.palette import colourize
from tavq.data.transforms import to_float, to_uint8
from tavq.tasks.animation import FrameRecorder
from tavq.tasks.base import Prompt, Sampling, select_text
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.prompts import PromptEncoder

BATCH = 16
GAP = 2
"""Pixels between the images of a grid."""


def generate_images(
    model: TaskModel,
    prompt: Prompt,
    sampling: Sampling,
    generator: torch.Generator,
    progress: Callable[[int], None] | None = None,
    recorder: FrameRecorder | None = None,
) -> Float[Tensor, "b 3 y x"]:
    """Images in [-1, 1], on the CPU; some are drawn at a time, and all of them follow from the generator's state.

    A recorder keeps how they came to be.
    """
    task, layout = model.task, model.task.output_layout(prompt)
    images = []
    for start in range(0, prompt.count, BATCH):
        part = prompt.slice(start, min(start + BATCH, prompt.count))
        if recorder is None:
            tokens = task.sample(part, sampling, generator)
        else:
            tokens = recorder.record(task.decode_steps(part, sampling, generator))
        images.append(model.decode(tokens, layout).cpu())
        if progress is not None:
            progress(min(start + BATCH, prompt.count))
    return torch.cat(images)


def image_grid(images: Float[Tensor, "b 3 y x"]) -> UInt8[np.ndarray, "h w 3"]:
    """All images on one, as near a square as their number allows."""
    b, _, y, x = images.shape
    columns = math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    page = np.full((rows * (y + GAP) - GAP, columns * (x + GAP) - GAP, 3), 255, np.uint8)
    for place, image in enumerate(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()):
        top, left = place // columns * (y + GAP), place % columns * (x + GAP)
        page[top : top + y, left : left + x] = image
    return page


def build_prompt(
    model: TaskModel,
    captions: Sequence[str],
    maps: Sequence[Path],
    count: int,
    encoder: str | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Prompt, tuple[str, ...]]:
    """What to draw: `count` images of each caption or segmentation map, or just `count`; and notes for a person.

    `size` is of `positions`. Raises UsageError where the task reads something else than what is given, or cannot use
    it.
    """
    needs = model.task.required_conditions(model.config.task)
    for what, given in (("text", captions), ("segmentation", maps)):
        if given and what not in needs:
            raise UsageError(
                f"The task {model.config.task.name!r} of this model does not draw from {what}; leave it out."
            )
        if what in needs and not given:
            raise UsageError(f"This model draws from {what}; give it with --{'prompt' if what == 'text' else what}.")
    device = next(model.task.parameters()).device
    if captions:
        typed = PromptEncoder(model.metadata, encoder, device)(captions)
        text = to_device(select_text(typed.features, _each(len(captions), count)), device)
        return Prompt(len(captions) * count, text=text, size=size), typed.notes
    if maps:
        found = [_map_tokens(model, path, size) for path in maps]
        tokens, notes = torch.cat([row for row, _ in found]), tuple(note for _, note in found if note)
        return Prompt(len(maps) * count, condition=tokens[_each(len(maps), count)], size=size), notes
    return Prompt(count, size=size), ()


def grid_size(model: TaskModel, height: int | None, width: int | None) -> tuple[int, int] | None:
    """The size in positions of images of so many pixels, a side that is not given as the model was trained at.

    Raises UsageError where a side is no whole number of positions, or the task draws no such images.
    """
    if height is None and width is None:
        return None
    own, factor = model.config.layout, model.tokenizer.factor
    whole = factor if model.condition_tokenizer is None else math.lcm(factor, model.condition_tokenizer.factor)
    for name, side, least in (("height", height, own.height * factor), ("width", width, own.width * factor)):
        if side is not None and side % whole:
            raise UsageError(f"--{name} {side} is no multiple of {whole}, the pixels of a side that go into one token.")
        if side is not None and side < least:
            raise UsageError(f"--{name} {side} is below {least}, the side of the images this model was trained on.")
    size = (height or own.height * factor) // factor, (width or own.width * factor) // factor
    model.task.output_layout(Prompt(1, size=size))
    return size


def _each(conditions: int, count: int) -> Tensor:
    return torch.arange(conditions).repeat_interleave(count)


def _map_tokens(model: TaskModel, path: Path, size: tuple[int, int] | None) -> tuple[Int[Tensor, "1 g"], str]:
    """The tokens of a file's segmentation map, of the size of the images to draw, and what a person is told of it."""
    assert model.condition_tokenizer is not None
    assert model.config.condition_layout is not None
    own, factor = model.config.layout, model.tokenizer.factor
    height, width = (factor * side for side in size or (own.height, own.width))
    classes = load_segmentation(path)
    try:
        image = colourize(classes, model.colours)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    pixels = to_float(centre_crop(image, height, width))[None].to(next(model.task.parameters()).device)
    step = model.condition_tokenizer.factor
    layout = model.config.condition_layout.resized(height // step, width // step)
    y, x = classes.shape
    note = (
        ""
        if y * width == x * height and y >= height
        else (f"{path} is {x} wide and {y} high, {width} by {height} are drawn: its middle is used, cut and resized.")
    )
    return layout.to_tokens(model.condition_tokenizer.encode(pixels)), note


def centre_crop(image: UInt8[np.ndarray, "y x 3"], height: int, width: int) -> UInt8[Tensor, "3 {height} {width}"]:
    """The largest middle part with these proportions, resized so that each pixel is one of the image's.

    Of a square the same as `transforms.crop_and_resize` with `nearest`.
    """
    scale = min(image.shape[0] / height, image.shape[1] / width)
    y, x = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (image.shape[0] - y + 1) // 2, (image.shape[1] - x + 1) // 2
    part = Image.fromarray(image[top : top + y, left : left + x])
    return torch.from_numpy(np.array(part.resize((width, height), Image.Resampling.NEAREST)).transpose(2, 0, 1).copy())


def image_names(conditions: int, count: int) -> list[str]:
    """A file name for each of `count` images of each condition."""
    digits = len(str(max(conditions, count)))
    numbers = [f"{number:0{digits}}" for number in range(1, count + 1)]
    if conditions <= 1:
        return numbers
    return [f"{condition:0{digits}}-{number}" for condition in range(1, conditions + 1) for number in numbers]
