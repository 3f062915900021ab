"""Completion of images (inpainting): masks, the tokens that they hide, and the completed images."""

import re
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from tavq.core.errors import UsageError, suggest
from tavq.data.images import load_image
from tavq.tasks.animation import FrameRecorder
from tavq.tasks.base import Prompt, Sampling, Task, TokenLayout, tasks
from tavq.tasks.model_folder import TaskModel

MASK_NAMES = ("left", "right", "top", "bottom", "centre")
"""Halves of an image, and a centred box of half its sides."""

BOX = re.compile(r"(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6})")

HIDDEN_GREY = 128
"""The pixels of a mask file that are at least this bright are hidden."""

EVALUATION_MASKS = {"any": ("right", "centre"), "end": ("bottom",)}
"""The masks for evaluation, by the `completion` of a task."""


# --- masks, True where hidden -----------------------------------------------------------------------------------


def read_mask(text: str, height: int, width: int, size: int) -> Bool[Tensor, "{size} {size}"]:
    """The hidden pixels of an image after it was cropped to its centre square and resized to `size`.

    Args:
        text: `left`, `right`, `top`, `bottom` (halves of the square), `centre` (a centred box of half its sides), a
            box `x,y,w,h` in pixels of the image, or the path of an image of the same size that is white where the
            image is hidden and black where it is kept.
        height: of the upright image.
        width: of the upright image.
        size: side of the square.

    Raises:
        UsageError: it is none of these, does not fit the image, or hides nothing of the square.
        DataError: the file cannot be read.
    """
    if text in MASK_NAMES:
        return named_mask(text, size)
    box = BOX.fullmatch(text)
    if box:
        mask = _box_mask([int(number) for number in box.groups()], height, width)
    else:
        mask = _read_mask_file(text, height, width)
    square = _crop_and_resize(mask, size)
    if not square.any():
        raise UsageError(
            f"The mask {text!r} hides nothing of the image's centre square. In a mask file white is hidden and black "
            "is kept."
        )
    return square


def named_mask(name: str, size: int) -> Bool[Tensor, "{size} {size}"]:
    """A mask of MASK_NAMES for a square."""
    mask = torch.zeros(size, size, dtype=torch.bool)
    half, quarter = size // 2, size // 4
    regions = {
        "left": mask[:, :half],
        "right": mask[:, half:],
        "top": mask[:half],
        "bottom": mask[half:],
        "centre": mask[quarter : size - quarter, quarter : size - quarter],
    }
    regions[name].fill_(True)
    return mask


def _box_mask(numbers: list[int], height: int, width: int) -> Bool[Tensor, "y x"]:
    x, y, w, h = numbers
    if not (w and h) or x + w > width or y + h > height:
        raise UsageError(
            f"The box {x},{y},{w},{h} (x,y,w,h) must not be empty and must lie inside the image of {width} x {height} "
            "pixels."
        )
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[y : y + h, x : x + w] = True
    return mask


def _read_mask_file(text: str, height: int, width: int) -> Bool[Tensor, "y x"]:
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"Unknown mask {text!r}; known: {', '.join(MASK_NAMES)}, a box x,y,w,h in pixels, or the path of an image "
            f"that is white where pixels are hidden.{suggest(text, MASK_NAMES)}"
        )
    image = load_image(path)
    if image.shape[:2] != (height, width):
        raise UsageError(
            f"The mask {text} is {image.shape[1]} x {image.shape[0]} pixels and its image {width} x {height}; they "
            "must have the same size."
        )
    return torch.from_numpy(image.astype(np.float32).mean(2) >= HIDDEN_GREY)


def _crop_and_resize(mask: Bool[Tensor, "y x"], size: int) -> Bool[Tensor, "{size} {size}"]:
    """Crops and resizes as `transforms.crop_and_resize` does with the image; a pixel is hidden if any of it was."""
    height, width = mask.shape
    side = min(height, width)
    y, x = (height - side + 1) // 2, (width - side + 1) // 2
    cropped = mask[y : y + side, x : x + side].float()
    return F.adaptive_max_pool2d(cropped[None], size)[0] > 0


def hidden_tokens(masks: Bool[Tensor, "b y x"], layout: TokenLayout) -> Bool[Tensor, "b n"]:
    """Which tokens must be generated: all parts of the positions that contain a hidden pixel."""
    y, x = masks.shape[1:]
    if y % layout.height or x % layout.width or not (y and x):
        raise UsageError(
            f"A mask of {x} x {y} pixels does not fit {layout.width} x {layout.height} tokens: its sides must be "
            "multiples of these."
        )
    positions = F.max_pool2d(masks.float(), (y // layout.height, x // layout.width)) > 0
    return positions.flatten(1).repeat_interleave(layout.parts, dim=1)


def evaluation_masks(model: TaskModel) -> dict[str, Bool[Tensor, "y x"]]:
    """The masks that completion is evaluated on; none for a task with a condition or without completion."""
    if model.task.required_conditions(model.config.task):
        return {}
    names, size = EVALUATION_MASKS.get(model.task.completion, ()), model.size
    return {name: named_mask(name, size) for name in names}


# --- images ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def complete_images(
    model: TaskModel,
    images: Float[Tensor, "b 3 y x"],
    masks: Bool[Tensor, "b y x"],
    sampling: Sampling,
    generator: torch.Generator,
    recorder: FrameRecorder | None = None,
) -> Float[Tensor, "b 3 y x"]:
    """Images in [-1, 1] with generated pixels where they are hidden, and the given pixels, bit for bit, elsewhere.

    Hidden pixels have no influence: before an image is encoded, a smooth continuation of the known pixels replaces
    them. The edge between both is hard. A soft one would change known pixels, or blend generated ones with the
    continuation, which shows nothing.

    Args:
        model: a task that completes images.
        images: in [-1, 1].
        masks: True where hidden.
        sampling: how to sample.
        generator: source of all random numbers.
        recorder: records the decoding steps, for an animation.

    Raises:
        UsageError: the model cannot complete these regions or images of this size.
    """
    layout = model.config.layout
    keep = ~hidden_tokens(masks, layout)
    check_completion(model, keep)
    known = layout.to_tokens(model.tokenizer.encode(fill_smoothly(images, ~masks)))
    prompt = Prompt(len(images), known, keep)
    if recorder is None:
        tokens = model.task.sample(prompt, sampling, generator)
    else:
        tokens = recorder.record(model.task.decode_steps(prompt, sampling, generator))
    return torch.where(masks[:, None], model.decode(tokens, layout), images)


def check_completion(model: TaskModel, keep: Bool[Tensor, "b n"]) -> None:
    """Raise UsageError unless the model generates the tokens that are not kept, without a condition."""
    _check_supported(model.task, model.config.task.name, keep)
    required = model.task.required_conditions(model.config.task)
    if required:
        raise UsageError(
            f"This model generates from {' and '.join(sorted(required))}; only models without a condition complete "
            "images."
        )


def _check_supported(task: Task, name: str, keep: Bool[Tensor, "b n"]) -> None:
    """Raises UsageError unless the task can complete these regions."""
    able = " or ".join(repr(other) for other in tasks if getattr(tasks[other], "completion", "") == "any")
    if task.completion == "":
        raise UsageError(f"Task {name!r} cannot complete images; use a model of the task {able}.")
    if task.completion == "end" and bool((keep[:, 1:] & ~keep[:, :-1]).any()):
        raise UsageError(
            f"Task {name!r} generates tokens row by row, so it can only complete the end of an image, such as the mask "
            f"'bottom'; for any mask use a model of the task {able}."
        )


def fill_smoothly(images: Float[Tensor, "b 3 y x"], known: Bool[Tensor, "b y x"]) -> Float[Tensor, "b 3 y x"]:
    """The images with unknown pixels replaced by a smooth continuation of the known ones; grey if none is known.

    Push-pull: averages the known pixels at half the size until every pixel is known, and upsamples again.
    """
    return _push_pull(torch.where(known[:, None], images, 0), known[:, None].to(images.dtype))


def _push_pull(values: Float[Tensor, "b 3 y x"], weight: Float[Tensor, "b 1 y x"]) -> Float[Tensor, "b 3 y x"]:
    if bool((weight > 0).all()) or max(values.shape[2:]) == 1:
        return values
    fraction = F.avg_pool2d(weight, 2, ceil_mode=True)
    means = F.avg_pool2d(values * weight, 2, ceil_mode=True) / fraction.clamp(min=1e-12)
    coarse = _push_pull(means, (fraction > 0).to(values.dtype))
    upsampled = F.interpolate(coarse, values.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, values, upsampled)
