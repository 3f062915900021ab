"""Which passes an animation shows, what is grey in it, and how long its frames stand."""

import io
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from PIL import Image, ImageSequence
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.tasks.animation import (
    LAST_MILLISECONDS,
    MAX_FRAMES,
    MAX_IMAGES,
    MILLISECONDS,
    FrameRecorder,
    decode_states,
    gif_bytes,
)
from tavq.tasks.base import TokenLayout
from tavq.tasks.model_folder import TaskConfig, TaskModel
from tavq.tokenizer import Tokenizer, TokenizerConfig


def decode_steps(count: int, images: int = 1, first: int = 0) -> Iterator[Tensor]:
    """Of one token, which is the number of the pass, beside the number of the image."""
    for number in range(count):
        yield torch.stack([torch.full((images,), number), torch.arange(first, first + images)], dim=1)


@pytest.mark.parametrize("count", [2, 3, 31, 32, 33, 64, 65, 66, 129, 1000])
def test_frames_are_evenly_spaced_and_include_the_first_and_last(count: int) -> None:
    recorder = FrameRecorder()
    assert recorder.record(decode_steps(count)).tolist() == [[count - 1, 0]]
    found = [int(state[0, 0]) for state in recorder.states()]
    assert len(found) == min(count, MAX_FRAMES)
    assert found[0] == 0
    assert found[-1] == count - 1
    steps = np.diff(found)
    assert steps.min() >= 1
    assert steps.max() <= 2 * count / MAX_FRAMES + 1


def test_batches_are_joined_step_by_step() -> None:
    recorder = FrameRecorder()
    for count, first in ((4, 0), (3, 2)):
        recorder.record(decode_steps(count, 2, first))
    firsts = [state[:, 0].tolist() for state in recorder.states()]
    assert firsts == [
        [0, 0, 0, 0],
        [1, 1, 1, 1],
        [2, 2, 2, 2],
        [3, 3, 2, 2],
    ]
    assert recorder.states()[0][:, 1].tolist() == [0, 1, 2, 3]


def test_only_the_first_images_are_recorded() -> None:
    recorder = FrameRecorder()
    for first in range(0, 96, 24):
        assert len(recorder.record(decode_steps(2, 24, first))) == 24
    assert recorder.states()[1][:, 1].tolist() == list(range(MAX_IMAGES))


def test_an_animation_needs_decoded_tokens() -> None:
    recorder = FrameRecorder()
    recorder.record(decode_steps(1))
    with pytest.raises(UsageError, match="There is nothing to animate"):
        recorder.states()
    with pytest.raises(UsageError, match="There is nothing to animate"):
        FrameRecorder().states()


@pytest.mark.parametrize("parts", [1, 2])
def test_exactly_the_missing_positions_are_grey(parts: int) -> None:
    torch.manual_seed(0)
    net = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}
    settings = {"net": net, "codebook": {"name": "learned", "entries": 16, "width": 8, "parts": parts}}
    settings |= {"quantizer": {"name": "product"}} if parts > 1 else {}
    tokenizer = Tokenizer(build(TokenizerConfig, settings, "test")).eval()
    layout = TokenLayout(height=3, width=4, sizes=tokenizer.codebook.sizes)
    task = {"name": "masked", "layers": 1, "heads": 2, "width": 16}
    config = build(TaskConfig, {"task": task, "layout": layout.model_dump()}, "test")
    model = TaskModel(config, config.make().eval(), tokenizer.requires_grad_(False), None, {})
    tokens = torch.cat([torch.arange(parts).repeat(12)[None] * layout.sizes[0] + 1] * 2)
    last, first = tokens.clone(), tokens.clone()
    first[:, 0] = 0  # drawn, and another one later
    first[1, 6 * parts - 1] = layout.vocabulary  # row 1, column 1
    filled = torch.where(first == layout.vocabulary, last, first)
    found = list(decode_states(model, layout, [first, last]))
    assert torch.equal(found[1], model.decode(last, layout))
    cell = torch.zeros(2, 6, 8, dtype=torch.bool)
    cell[1, 2:4, 2:4] = True
    assert torch.equal(found[0], model.decode(filled, layout).masked_fill(cell[:, None], 0))
    assert not torch.equal(found[0][0], found[1][0])


def test_an_animation_holds_its_last_page_and_its_colours() -> None:
    pages = [np.full((6, 9, 3), 128, np.uint8) for _ in range(3)]
    pages[1][:, :4], pages[2][:, :4], pages[2][:, 4:] = (250, 10, 20), (250, 10, 20), (0, 90, 200)
    with Image.open(io.BytesIO(gif_bytes(pages))) as image:
        assert image.info["loop"] == 0
        found, times = [], []
        for page in ImageSequence.Iterator(image):
            found.append(np.asarray(page.convert("RGB")))
            times.append(page.info["duration"])
    assert times == [MILLISECONDS, MILLISECONDS, LAST_MILLISECONDS]
    for page, expected in zip(found, pages, strict=True):
        assert np.abs(page.astype(int) - expected).max() <= 4
