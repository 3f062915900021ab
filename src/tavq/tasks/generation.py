"""Generated images from captions, segmentation maps, or no condition."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from tavq.core.devices import to_device
from tavq.core.errors import DataError, UsageError
from tavq.data.images import load_segmentation
from tavq.data.palette import colourize
from tavq.data.storage import DataFile
from tavq.data.transforms import to_float, to_uint8
from tavq.tasks.animation import FrameRecorder
from tavq.tasks.base import Prompt, Sampling, index_text
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.prompts import PromptEncoder

BATCH = 16
"""Images that are generated at once."""

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
    """Generates images in [-1, 1], in batches, and returns them on the CPU.

    Args:
        model: a generation task.
        prompt: what to generate.
        sampling: how to sample.
        generator: source of all random numbers.
        progress: called with the number of finished images.
        recorder: records the decoding steps, for an animation.
    """
    task, layout = model.task, model.task.output_layout(prompt)
    images = []
    for start in range(0, prompt.count, BATCH):
        stop = min(start + BATCH, prompt.count)
        part = prompt.slice(start, stop)
        if recorder is None:
            tokens = task.sample(part, sampling, generator)
        else:
            tokens = recorder.record(task.decode_steps(part, sampling, generator))
        images.append(model.decode(tokens, layout).cpu())
        if progress is not None:
            progress(stop)
    return torch.cat(images)


def image_grid(images: Float[Tensor, "b 3 y x"]) -> UInt8[np.ndarray, "h w 3"]:
    """All images in one, in a grid that is as near to a square as their number allows."""
    b, _, y, x = images.shape
    columns = math.ceil(math.sqrt(b))
    rows = math.ceil(b / columns)
    page = np.full((rows * (y + GAP) - GAP, columns * (x + GAP) - GAP, 3), 255, np.uint8)
    for index, image in enumerate(to_uint8(images).permute(0, 2, 3, 1).cpu().numpy()):
        top, left = index // columns * (y + GAP), index % columns * (x + GAP)
        page[top : top + y, left : left + x] = image
    return page


def build_prompt(
    model: TaskModel,
    captions: Sequence[str],
    maps: Sequence[DataFile],
    count: int,
    encoder: str | None = None,
    size: tuple[int, int] | None = None,
) -> tuple[Prompt, tuple[str, ...]]:
    """The prompt for `count` images of each caption or segmentation map, and notes for the user, one line each.

    Args:
        model: a generation task.
        captions: for a task that reads text.
        maps: image files of segmentation maps, for a task that reads these.
        count: images for each condition, or in all if the task has none.
        encoder: folder of the text encoder, if the name in the model's metadata cannot be resolved.
        size: height and width in positions, from `grid_size`.

    Raises:
        UsageError: the conditions are not those that the task reads.
    """
    task = model.config.task.name
    required = model.task.required_conditions(model.config.task)
    for condition, flag, given in (("text", "--prompt", captions), ("segmentation", "--segmentation", maps)):
        if given and condition not in required:
            raise UsageError(f"Task {task!r} of this model does not read {condition}; leave out {flag}.")
        if condition in required and not given:
            raise UsageError(f"This model generates from {condition}; add {flag}.")
    device = next(model.task.parameters()).device
    if captions:
        encoded = PromptEncoder(model.metadata, encoder, device)(captions)
        text = to_device(index_text(encoded.features, _repeat(len(captions), count)), device)
        return Prompt(len(captions) * count, text=text, size=size), encoded.notes
    if maps:
        encoded_maps = [_encode_map(model, path, size) for path in maps]
        tokens = torch.cat([tokens for tokens, _ in encoded_maps])
        notes = tuple(note for _, note in encoded_maps if note)
        return Prompt(len(maps) * count, condition=tokens[_repeat(len(maps), count)], size=size), notes
    return Prompt(count, size=size), ()


def grid_size(model: TaskModel, height: int | None, width: int | None) -> tuple[int, int] | None:
    """Height and width in positions of images of a size in pixels; None if neither side is given.

    A side that is not given is the one that the model was trained at. Raises UsageError if a side does not divide into
    whole positions, or the task does not support the size.
    """
    if height is None and width is None:
        return None
    own, factor, maps = model.config.layout, model.tokenizer.factor, model.condition_tokenizer
    multiple = factor if maps is None else math.lcm(factor, maps.factor)
    for name, side, smallest in (("height", height, own.height * factor), ("width", width, own.width * factor)):
        if side is not None and side % multiple:
            raise UsageError(f"--{name} {side} must be a multiple of {multiple} (pixels per token).")
        if side is not None and side < smallest:
            raise UsageError(f"--{name} {side} must be at least {smallest}, the {name} this model was trained at.")
    size = (height or own.height * factor) // factor, (width or own.width * factor) // factor
    model.task.output_layout(Prompt(1, size=size))
    return size


def _repeat(conditions: int, count: int) -> Tensor:
    """The index of each image's condition."""
    return torch.arange(conditions).repeat_interleave(count)


def _encode_map(model: TaskModel, path: DataFile, size: tuple[int, int] | None) -> tuple[Int[Tensor, "1 g"], str]:
    """The tokens of a segmentation map, at the size of the images to generate, and a note if it had to be cropped."""
    maps, map_layout = model.condition_tokenizer, model.config.condition_layout
    assert maps is not None
    assert map_layout is not None
    own, factor = model.config.layout, model.tokenizer.factor
    height, width = (factor * side for side in size or (own.height, own.width))
    classes = load_segmentation(path)
    try:
        image = colourize(classes, model.colours)
    except DataError as error:
        raise DataError(f"{path}: {error}") from error
    pixels = to_float(centre_crop(image, height, width))[None].to(next(model.task.parameters()).device)
    tokens = map_layout.resized(height // maps.factor, width // maps.factor).to_tokens(maps.encode(pixels))
    y, x = classes.shape
    if y * width == x * height and y >= height:
        return tokens, ""
    return tokens, f"{path} is {x} x {y} pixels; its centre is cropped and resized to {width} x {height}."


def centre_crop(image: UInt8[np.ndarray, "y x 3"], height: int, width: int) -> UInt8[Tensor, "3 {height} {width}"]:
    """The largest centre part with these proportions, resized by nearest neighbour.

    For a square it is the same as `transforms.crop_and_resize` with `nearest`.
    """
    scale = min(image.shape[0] / height, image.shape[1] / width)
    y, x = max(1, round(scale * height)), max(1, round(scale * width))
    top, left = (image.shape[0] - y + 1) // 2, (image.shape[1] - x + 1) // 2
    part = Image.fromarray(image[top : top + y, left : left + x])
    return torch.from_numpy(np.array(part.resize((width, height), Image.Resampling.NEAREST)).transpose(2, 0, 1).copy())


def image_names(conditions: int, count: int) -> list[str]:
    """File names of `count` images for each condition."""
    digits = len(str(max(conditions, count)))
    numbers = [f"{number:0{digits}}" for number in range(1, count + 1)]
    if conditions <= 1:
        return numbers
    return [f"{condition:0{digits}}-{number}" for condition in range(1, conditions + 1) for number in numbers]
