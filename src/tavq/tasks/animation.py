"""How images came to be: what stood after some of the passes, as images and as an animation."""

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

FRAMES = 32
"""At most, of an animation."""

SHOWN = 64
"""Images of an animation, the first ones; each is decoded for every frame."""

MILLISECONDS, LAST_MILLISECONDS = 120, 2000
"""How long a frame is shown."""

GREY = 0.0
"""Of what is not drawn yet: the middle of [-1, 1]."""


class FrameRecorder:
    """The tokens of some images after passes that lie evenly among all, however many there are.

    Images that are drawn in several batches are joined pass by pass.
    """

    def __init__(self) -> None:
        self._batches: list[list[Int[Tensor, "b n"]]] = []
        self._room = SHOWN

    def record(self, passes: Iterable[Int[Tensor, "b n"]]) -> Int[Tensor, "b n"]:
        """The last of a batch's passes, after keeping some of all."""
        kept: list[Tensor] = []
        every = 1
        for number, tokens in enumerate(passes):
            last = tokens[: self._room].cpu()
            if number % every == 0:
                kept.append(last)
            if len(kept) > 2 * FRAMES:  # memory must not grow with the passes
                kept, every = kept[::2], 2 * every
        if number % every:
            kept.append(last)
        if self._room > 0:
            self._batches.append(kept)
            self._room -= len(last)
        return tokens

    def states(self) -> list[Int[Tensor, "b n"]]:
        """At most FRAMES, the first and the last among them; UsageError where nothing was drawn between these."""
        count = max(map(len, self._batches), default=0)
        if count < 2:
            raise UsageError("There is nothing to animate: no token of these images was drawn.")
        frames = min(count, FRAMES)
        places = [round(frame * (count - 1) / (frames - 1)) for frame in range(frames)]
        return [torch.cat([batch[min(place, len(batch) - 1)] for batch in self._batches]) for place in places]


def decode_states(
    model: TaskModel, layout: TokenLayout, states: Sequence[Int[Tensor, "b n"]]
) -> Iterator[Float[Tensor, "b 3 y x"]]:
    """Images in [-1, 1] of each state of some tokens, grey at the positions that lack one yet.

    The decoder reads the last state's tokens there: any others would colour what is near, which then would change
    whenever a neighbour is drawn.
    """
    factor = model.tokenizer.factor
    for tokens in states:
        missing = tokens == layout.vocabulary
        images = model.decode(torch.where(missing, states[-1], tokens), layout)
        cells = missing.view(len(tokens), layout.height, layout.width, layout.parts).any(3)
        grey = cells.repeat_interleave(factor, 1).repeat_interleave(factor, 2)
        yield images.masked_fill(grey[:, None].to(images.device), GREY)


def gif_bytes(pages: Sequence[UInt8[np.ndarray, "h w 3"]]) -> bytes:
    """An endless animation as the bytes of a GIF file, its last page held; all share 256 colours of first and last."""
    ends = Image.fromarray(np.concatenate([pages[0], pages[-1]]))
    colours = ends.quantize(256, Image.Quantize.MEDIANCUT)
    frames = [Image.fromarray(page).quantize(palette=colours, dither=Image.Dither.NONE) for page in pages]
    times = [MILLISECONDS] * (len(frames) - 1) + [LAST_MILLISECONDS]
    buffer = io.BytesIO()
    frames[0].save(buffer, "GIF", save_all=True, append_images=frames[1:], duration=times, loop=0)
    return buffer.getvalue()
