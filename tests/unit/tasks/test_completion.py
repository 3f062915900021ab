"""Completion in images: masks by name, box and file, the tokens that they hide, and what comes back."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import DataError, UsageError
from tavq.data.images import save_png
from tavq.data.transforms import crop_and_resize
from tavq.interfaces import Losses
from tavq.tasks.base import Prompt, Sampling, Task, TokenLayout, tasks
from tavq.tasks.completion import MASK_NAMES, complete_images, fill_smoothly, hidden_tokens, named_mask, read_mask
from tavq.tasks.model_folder import TaskConfig, TaskModel
from tavq.tokenizer import Tokenizer, TokenizerConfig

SIZE, FACTOR = 16, 4


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


# --- masks ----------------------------------------------------------------------------------------------------------


def test_the_named_masks_by_hand() -> None:
    rows = {
        name: ["".join(".#"[pixel] for pixel in row) for row in named_mask(name, 4).tolist()] for name in MASK_NAMES
    }
    assert rows == {
        "left": ["##.."] * 4,
        "right": ["..##"] * 4,
        "top": ["####", "####", "....", "...."],
        "bottom": ["....", "....", "####", "####"],
        "centre": ["....", ".##.", ".##.", "...."],
    }
    assert torch.equal(read_mask("centre", 480, 640, 4), named_mask("centre", 4))


def test_a_box_is_in_pixels_of_the_original_image() -> None:
    """An image of 6 x 10 loses two columns on each side; the box's columns 3 and 4 are the square's 1 and 2."""
    mask = read_mask("3,1,2,4", 6, 10, 6)
    assert mask.nonzero().tolist() == [[y, x] for y in (1, 2, 3, 4) for x in (1, 2)]
    assert read_mask("3,1,2,4", 6, 10, 3).nonzero().tolist() == [[y, x] for y in (0, 1, 2) for x in (0, 1)]


@pytest.mark.parametrize("box", ["0,0,0,1", "9,0,2,1", "0,6,1,1", "999999,0,1,1"])
def test_a_box_outside_is_refused(box: str) -> None:
    with pytest.raises(UsageError, match=rf"The box {box} .*inside the image of 10 x 6 pixels"):
        read_mask(box, 6, 10, 6)


@pytest.mark.parametrize("shape", [(11, 8), (8, 11), (12, 8), (8, 8)])
def test_a_mask_file_is_cropped_like_its_image(shape: tuple[int, int], tmp_path: Path) -> None:
    image = np.zeros((*shape, 3), np.uint8)
    image[3:6, 4:7] = 255
    save_png(tmp_path / "mask.png", image)
    expected = crop_and_resize(image, 8)[0] == 255
    assert torch.equal(read_mask(str(tmp_path / "mask.png"), *shape, 8), expected)


def test_a_resized_pixel_is_hidden_if_any_of_it_was(tmp_path: Path) -> None:
    grey = np.zeros((9, 9), np.uint8)
    grey[4, 8], grey[0, 0] = 128, 127
    save_png(tmp_path / "mask.png", grey)
    assert read_mask(str(tmp_path / "mask.png"), 9, 9, 3).nonzero().tolist() == [[1, 2]]


def test_invalid_masks_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown mask 'botom'; known: left, .*Did you mean 'bottom'\?"):
        read_mask("botom", 8, 8, 8)
    black = tmp_path / "black.png"
    save_png(black, np.zeros((8, 8), np.uint8))
    with pytest.raises(UsageError, match=r"hides nothing.*white is hidden and black is kept"):
        read_mask(str(black), 8, 8, 8)
    with pytest.raises(UsageError, match="is 8 x 8 pixels and its image 7 x 9"):
        read_mask(str(black), 9, 7, 7)
    with pytest.raises(UsageError, match="hides nothing"):
        read_mask("0,0,1,6", 6, 10, 6)  # beside the square
    (tmp_path / "text.png").write_text("no image")
    with pytest.raises(DataError, match=r"text\.png: it is not an image"):
        read_mask(str(tmp_path / "text.png"), 8, 8, 8)


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 2**32), st.integers(1, 3), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3))
def test_a_token_is_hidden_if_any_of_its_pixels_is(seed: int, parts: int, h: int, w: int, factor: int) -> None:
    masks = torch.rand(2, h * factor, w * factor, generator=generator(seed)) < 0.2
    hidden = hidden_tokens(masks, TokenLayout(height=h, width=w, sizes=(3,) * parts)).view(2, h, w, parts)
    for b, y, x, part in np.ndindex(2, h, w, parts):
        cell = masks[b, y * factor : (y + 1) * factor, x * factor : (x + 1) * factor]
        assert bool(hidden[b, y, x, part]) == bool(cell.any())


def test_a_mask_that_does_not_fit_the_tokens_is_refused() -> None:
    for y, x in ((9, 8), (8, 9), (0, 8), (8, 0)):
        with pytest.raises(UsageError, match=f"A mask of {x} x {y} pixels does not fit 4 x 4 tokens"):
            hidden_tokens(torch.zeros(1, y, x, dtype=torch.bool), TokenLayout(height=4, width=4, sizes=(3,)))


# --- the continuation -----------------------------------------------------------------------------------------------


def test_the_continuation_keeps_known_pixels_and_depends_on_them_only() -> None:
    images = torch.rand(2, 3, 13, 10, generator=generator()) * 2 - 1
    known = torch.rand(2, 13, 10, generator=generator(1)) < 0.3
    filled = fill_smoothly(images, known)
    assert torch.equal(filled.movedim(1, 3)[known], images.movedim(1, 3)[known])
    assert torch.equal(fill_smoothly(images.masked_fill(~known[:, None], torch.nan), known), filled)
    assert filled.amin() >= images.amin()
    assert filled.amax() <= images.amax()


def test_the_continuation_of_one_colour_and_of_nothing() -> None:
    images = torch.full((1, 3, 16, 16), 0.7)
    torch.testing.assert_close(fill_smoothly(images, named_mask("left", 16)[None]), images)
    assert not fill_smoothly(images, torch.zeros(1, 16, 16, dtype=torch.bool)).any()


# --- images -------------------------------------------------------------------------------------------------------


class Row(Task):
    """A task that completes only what comes last: with token 0."""

    name, completion = "row", "end"

    def __init__(self, layout: TokenLayout) -> None:
        super().__init__()
        self.layout = layout

    def loss(self, batch: Any) -> Losses:
        return {}

    def sample(self, prompt: Prompt, sampling: Sampling, generator: torch.Generator) -> Tensor:
        assert prompt.known_tokens is not None
        assert prompt.keep_mask is not None
        return prompt.known_tokens * prompt.keep_mask


@pytest.fixture(scope="module")
def model() -> TaskModel:
    torch.manual_seed(0)
    net = {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False}
    codebook = {"name": "learned", "entries": 16, "width": 8}
    tokenizer = Tokenizer(build(TokenizerConfig, {"net": net, "codebook": codebook}, "test")).eval()
    assert tokenizer.factor == FACTOR
    with torch.no_grad():
        tokenizer.codebook.init_from_features(torch.randn(512, 8))
        for parameter in tokenizer.codebook.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    layout = TokenLayout(height=SIZE // FACTOR, width=SIZE // FACTOR, sizes=(16,))
    settings = {"name": "masked", "layers": 1, "heads": 2, "width": 16}
    config = build(TaskConfig, {"task": settings, "layout": layout.model_dump()}, "test")
    return TaskModel(config, config.make().eval(), tokenizer.requires_grad_(False), None, {})


def random_images(count: int) -> Tensor:
    return torch.rand(count, 3, SIZE, SIZE, generator=generator()) * 2 - 1


def masks(*names: str) -> Tensor:
    return torch.stack([named_mask(name, SIZE) for name in names])


def test_known_pixels_stay_bit_for_bit_and_hidden_ones_are_decoded(model: TaskModel) -> None:
    images, hidden = random_images(5), masks(*MASK_NAMES)
    hidden[1, 0, 0] = True  # a single pixel, whose whole cell is drawn anew
    completed = complete_images(model, images, hidden, Sampling(), generator())
    assert torch.equal(completed.movedim(1, 3)[~hidden], images.movedim(1, 3)[~hidden])
    assert (completed != images).any(dim=1)[hidden].float().mean() > 0.9
    layout = model.config.layout
    keep = ~hidden_tokens(hidden, layout)
    assert not keep[1, 0]
    known = layout.to_tokens(model.tokenizer.encode(fill_smoothly(images, ~hidden)))
    tokens = model.task.sample(Prompt(5, known, keep), Sampling(), generator())
    assert torch.equal(tokens[keep], known[keep])
    decoded = model.tokenizer.decode(layout.to_indices(tokens)).clamp(-1, 1)
    assert torch.equal(completed.movedim(1, 3)[hidden], decoded.movedim(1, 3)[hidden])


def test_hidden_pixels_have_no_influence(model: TaskModel) -> None:
    images, hidden = random_images(2), masks("right", "centre")
    other = torch.where(hidden[:, None], -images, images)
    one, two = (complete_images(model, some, hidden, Sampling(), generator()) for some in (images, other))
    assert torch.equal(one, two)
    assert not torch.equal(one, complete_images(model, images, hidden, Sampling(), generator(1)))


def test_nothing_hidden_and_all_hidden(model: TaskModel) -> None:
    images = random_images(2)
    nothing, everything = (torch.full((2, SIZE, SIZE), value) for value in (False, True))
    assert torch.equal(complete_images(model, images, nothing, Sampling(), generator()), images)
    sampled = model.task.sample(Prompt(2), Sampling(), generator())
    decoded = model.tokenizer.decode(model.config.layout.to_indices(sampled)).clamp(-1, 1)
    assert torch.equal(complete_images(model, images, everything, Sampling(), generator()), decoded)


def test_images_of_another_size_are_refused(model: TaskModel) -> None:
    wide = torch.zeros(1, 3, SIZE, 2 * SIZE)
    with pytest.raises(UsageError, match="The codes are 4 x 8 positions of 1; this model expects 4 x 4"):
        complete_images(model, wide, wide[:, 0] == 0, Sampling(), generator())


def test_a_task_that_completes_the_end_refuses_other_masks(model: TaskModel) -> None:
    row = replace(model, task=Row(model.config.layout))
    images = random_images(1)
    completed = complete_images(row, images, masks("bottom"), Sampling(), generator())
    assert torch.equal(completed[:, :, : SIZE // 2], images[:, :, : SIZE // 2])
    tail = masks("bottom")
    tail[0, 8:12, :8] = False  # from the middle of a row of tokens on is an end too
    complete_images(row, images, tail, Sampling(), generator())
    able = [name for name in tasks if getattr(tasks[name], "completion", "") == "any"]
    assert "masked" in able
    for name in ("left", "right", "top", "centre"):
        with pytest.raises(
            UsageError, match=r"can only complete the end of an image, such as the mask 'bottom'.*'masked'"
        ):
            complete_images(row, images, masks(name), Sampling(), generator())


def test_a_task_without_completion_is_refused(model: TaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Row, "completion", "")
    with pytest.raises(UsageError, match="cannot complete images; use a model of the task 'masked'"):
        complete_images(
            replace(model, task=Row(model.config.layout)), random_images(1), masks("left"), Sampling(), generator()
        )


def test_a_task_with_a_condition_is_refused(model: TaskModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Row, "required_conditions", classmethod(lambda cls, config: frozenset({"text"})))
    with pytest.raises(UsageError, match="generates from text"):
        complete_images(
            replace(model, task=Row(model.config.layout)), random_images(1), masks("bottom"), Sampling(), generator()
        )
