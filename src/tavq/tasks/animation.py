"""Animations of decoding: the tokens after some of the steps, as images and as a GIF."""

import io
from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from PIL import Image
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.tasks.base import TokenLayout
from tavq.tasks.model_folder import TaskModel

MAX_FRAMES = 32
"""Of an animation."""

MAX_IMAGES = 64
"""Of an animation; only the first ones are animated, since each is decoded for every frame."""

MILLISECONDS, LAST_MILLISECONDS = 120, 2000
"""How long a frame lasts."""

GREY = 0.0
"""The colour of what is not decoded yet: the middle of [-1, 1]."""


class FrameRecorder:
    """Records the tokens of images after evenly spaced decoding steps.

    Images that are generated in several batches are joined step by step.
    """

    def __init__(self) -> None:
        self._batches: list[list[Int[Tensor, "b n"]]] = []
        self._room = MAX_IMAGES

    def record(self, steps: Iterable[Int[Tensor, "b n"]]) -> Int[Tensor, "b n"]:
        """Runs all decoding steps of a batch, keeps some of them, and returns the last one."""
        kept: list[Tensor] = []
        interval = 1
        for index, tokens in enumerate(steps):
            last = tokens[: self._room].cpu()
            if index % interval == 0:
                kept.append(last)
            if len(kept) > 2 * MAX_FRAMES:  # the number of steps is not known; memory must not grow with it
                kept, interval = kept[::2], 2 * interval
        if index % interval:
            kept.append(last)
        if self._room > 0:
            self._batches.append(kept)
            self._room -= len(last)
        return tokens

    def states(self) -> list[Int[Tensor, "b n"]]:
        """At most MAX_FRAMES of the recorded states, with the first and the last one.

        Raises UsageError if no token was decoded between these.
        """
        count = max(map(len, self._batches), default=0)
        if count < 2:
            raise UsageError("There is nothing to animate: no token was generated.")
        frames = min(count, MAX_FRAMES)
        steps = [round(frame * (count - 1) / (frames - 1)) for frame in range(frames)]
        return [self._state_at(step) for step in steps]

    def _state_at(self, step: int) -> Int[Tensor, "b n"]:
        """The tokens of all batches after a step; a batch that needed fewer steps shows its last one."""
        return torch.cat([batch[min(step, len(batch) - 1)] for batch in self._batches])


def decode_states(
    model: TaskModel, layout: TokenLayout, states: Sequence[Int[Tensor, "b n"]]
) -> Iterator[Float[Tensor, "b 3 y x"]]:
    """Images in [-1, 1] of each state, grey at the positions whose tokens are not decoded yet.

    There the decoder reads the tokens of the last state. With any others, their neighbours' pixels would change
    whenever a token is decoded.
    """
    factor = model.tokenizer.factor
    for tokens in states:
        missing = tokens == layout.vocabulary
        images = model.decode(torch.where(missing, states[-1], tokens), layout)
        positions = missing.view(len(tokens), layout.height, layout.width, layout.parts).any(3)
        grey = positions.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        yield images.masked_fill(grey[:, None].to(images.device), GREY)


def gif_bytes(pages: Sequence[UInt8[np.ndarray, "h w 3"]]) -> bytes:
    """A looping GIF that holds its last page.

    All frames share the 256 colours of the first and the last page, so that colours do not flicker.
    """
    ends = Image.fromarray(np.concatenate([pages[0], pages[-1]]))
    colours = ends.quantize(256, Image.Quantize.MEDIANCUT)
    frames = [Image.fromarray(page).quantize(palette=colours, dither=Image.Dither.NONE) for page in pages]
    times = [MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return buffer.getvalue()
