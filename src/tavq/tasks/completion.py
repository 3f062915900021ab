"""Images of which a region is drawn anew: masks, the tokens that they hide, and the completed image."""

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

NAMES = ("left", "right", "top", "bottom", "centre")
"""Halves of an image, and the box of half its sides in its middle."""

BOX = re.compile(r"(\d{1,6}),(\d{1,6}),(\d{1,6}),(\d{1,6})")

WHITE = 128
"""The grey from which on a pixel of a mask's file hides."""


# --- masks, True where hidden -----------------------------------------------------------------------------------

EVALUATION_MASKS = {"any": ("right", "centre"), "end": ("bottom",)}
"""By what a task completes."""


def read_mask(text: str, height: int, width: int, size: int) -> Bool[Tensor, "{size} {size}"]:
    """The hidden pixels of an image of `height` x `width` after it was cut to its centre square of `size`.

    Args:
        text: `left`, `right`, `top`, `bottom` (halves of the square), `centre` (half its sides, in its middle), a box
            `x,y,w,h` in pixels of the image, or the path of an image of the same size that is white where the
            image is hidden and black where it stays.
        height: of the upright image.
        width: of the upright image.
        size: of the square's side.

    Raises:
        UsageError: it is none of these, does not fit the image, or hides nothing of the square.
        DataError: the file cannot be read.
    """
    if text in NAMES:
        return named_mask(text, size)
    box = BOX.fullmatch(text)
    mask = _box([int(number) for number in box.groups()], height, width) if box else _file(text, height, width)
    square = _square(mask, size)
    if not square.any():
        raise UsageError(
            f"The mask {text!r} hides nothing of the image's centre square: in a file, white hides and black stays."
        )
    return square


def named_mask(name: str, size: int) -> Bool[Tensor, "{size} {size}"]:
    """The mask of a square that goes by one of NAMES."""
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


def _box(numbers: list[int], height: int, width: int) -> Bool[Tensor, "y x"]:
    x, y, w, h = numbers
    if not (w and h) or x + w > width or y + h > height:
        raise UsageError(
            f"The box {x},{y},{w},{h} (x,y,w,h) does not lie in the image, which is {width} wide and {height} high."
        )
    mask = torch.zeros(height, width, dtype=torch.bool)
    mask[y : y + h, x : x + w] = True
    return mask


def _file(text: str, height: int, width: int) -> Bool[Tensor, "y x"]:
    path = Path(text)
    if not path.is_file():
        raise UsageError(
            f"Unknown mask {text!r}; known: {', '.join(NAMES)}, a box x,y,w,h in pixels, or the path of an image that "
            f"is white where it hides.{suggest(text, NAMES)}"
        )
    image = load_image(path)
    if image.shape[:2] != (height, width):
        raise UsageError(
            f"The mask {text} is {image.shape[1]} wide and {image.shape[0]} high; its image is {width} wide and "
            f"{height} high, and they must be alike."
        )
    return torch.from_numpy(image.astype(np.float32).mean(2) >= WHITE)


def _square(mask: Bool[Tensor, "y x"], size: int) -> Bool[Tensor, "{size} {size}"]:
    """Cut and resized as `transforms.crop_and_resize` does with the image; hidden is what holds anything hidden."""
    height, width = mask.shape
    side = min(height, width)
    y, x = (height - side + 1) // 2, (width - side + 1) // 2
    cut = mask[y : y + side, x : x + side].float()
    return F.adaptive_max_pool2d(cut[None], size)[0] > 0


def hidden_tokens(masks: Bool[Tensor, "b y x"], layout: TokenLayout) -> Bool[Tensor, "b n"]:
    """Which tokens must be drawn anew: those whose cell of the image holds a hidden pixel, all parts of them."""
    y, x = masks.shape[1:]
    if y % layout.height or x % layout.width or not (y and x):
        raise UsageError(
            f"A mask of {y} x {x} pixels does not fit {layout.height} x {layout.width} tokens: its sides must be "
            "multiples of these."
        )
    cells = F.max_pool2d(masks.float(), (y // layout.height, x // layout.width)) > 0
    return cells.flatten(1).repeat_interleave(layout.parts, dim=1)


# --- images ---------------------------------------------------------------------------------------------------


@torch.no_grad()
def complete(
    model: TaskModel,
    images: Float[Tensor, "b 3 y x"],
    masks: Bool[Tensor, "b y x"],
    sampling: Sampling,
    generator: torch.Generator,
    recorder: FrameRecorder | None = None,
) -> Float[Tensor, "b 3 y x"]:
    """Images in [-1, 1] whose hidden pixels are drawn anew and whose other pixels are those given, to the bit.

    What is hidden has no influence: before an image is encoded its hidden pixels are replaced by a smooth
    continuation of the known ones. The edge between both is hard. A soft one would either change known pixels or mix
    the drawn ones with the continuation, which shows nothing. A recorder keeps how the tokens came to be.

    Raises:
        UsageError: the model cannot fill in these tokens, or the sizes are not the ones it was made for.
    """
    task, layout = model.task, model.config.layout
    kept = ~hidden_tokens(masks, layout)
    _check_can_fill(task, model.config.task.name, kept)
    if task.required_conditions(model.config.task):
        needed = " and ".join(sorted(task.required_conditions(model.config.task)))
        raise UsageError(f"This model draws from {needed}; images are completed by models without a condition.")
    known = layout.to_tokens(model.tokenizer.encode(fill_smoothly(images, ~masks)))
    prompt = Prompt(len(images), known, kept)
    if recorder is None:
        drawn = task.sample(prompt, sampling, generator)
    else:
        drawn = recorder.record(task.decode_steps(prompt, sampling, generator))
    return torch.where(masks[:, None], model.decode(drawn, layout), images)


def _check_can_fill(task: Task, name: str, kept: Bool[Tensor, "b n"]) -> None:
    able = " or ".join(repr(other) for other in tasks if getattr(tasks[other], "completion", "") == "any")
    if task.completion == "":
        raise UsageError(f"The task {name!r} completes no images; a model of the task {able} does.")
    if task.completion == "end" and bool((kept[:, 1:] & ~kept[:, :-1]).any()):
        raise UsageError(
            f"The task {name!r} draws tokens row by row and completes only an image's end, such as the mask 'bottom'; "
            f"a model of the task {able} completes any mask."
        )


def fill_smoothly(images: Float[Tensor, "b 3 y x"], known: Bool[Tensor, "b y x"]) -> Float[Tensor, "b 3 y x"]:
    """The images with a smooth continuation of the known pixels in the place of the others; grey where none is known.

    Means of the known pixels at half the size, again and again until no pixel is unknown, and back (push-pull).
    """
    return _continued(torch.where(known[:, None], images, 0), known[:, None].to(images.dtype))


def _continued(values: Float[Tensor, "b 3 y x"], weight: Float[Tensor, "b 1 y x"]) -> Float[Tensor, "b 3 y x"]:
    if bool((weight > 0).all()) or max(values.shape[2:]) == 1:
        return values
    share = F.avg_pool2d(weight, 2, ceil_mode=True)
    means = F.avg_pool2d(values * weight, 2, ceil_mode=True) / share.clamp(min=1e-12)
    coarse = _continued(means, (share > 0).to(values.dtype))
    wide = F.interpolate(coarse, values.shape[2:], mode="bilinear", align_corners=False)
    return torch.where(weight > 0, values, wide)


def evaluation_masks(model: TaskModel) -> dict[str, Bool[Tensor, "y x"]]:
    """The masks a task is measured on; none where it completes nothing or only what it is told to."""
    if model.task.required_conditions(model.config.task):
        return {}
    return {
        name: named_mask(name, int(model.metadata["size"])) for name in EVALUATION_MASKS.get(model.task.completion, ())
    }
