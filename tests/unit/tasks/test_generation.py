"""What is asked for, in which order it comes back, and the page that shows it."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tavq.core.config import build
from tavq.core.errors import DataError, UsageError
from tavq.data.images import save_png
from tavq.data.palette import colourize
from tavq.data.transforms import crop_and_resize, to_uint8
from tavq.interfaces import TextFeatures, TextUnits
from tavq.tasks import generation
from tavq.tasks.animation import FrameRecorder
from tavq.tasks.base import Prompt, Sampling
from tavq.tasks.generation import GAP, build_prompt, centre_crop, generate_images, grid_size, image_grid, image_names
from tavq.tasks.model_folder import TaskConfig, TaskModel
from tavq.tasks.prompts import EncodedPrompts
from tavq.tokenizer import Tokenizer, TokenizerConfig

SIZE = 16


def tokenizer(seed: int, multipliers: tuple[int, ...]) -> Tokenizer:
    torch.manual_seed(seed)
    net = {"channels": 8, "multipliers": multipliers, "blocks": 1, "attention": False}
    values = {"net": net, "codebook": {"name": "learned", "entries": 16, "width": 8}}
    made = Tokenizer(build(TokenizerConfig, values, "test")).eval().requires_grad_(False)
    plain = (torch.rand(16, 3, 1, 1) * 2 - 1).expand(-1, -1, 32, 32)
    next(iter(made.codebook.parameters())).copy_(made.encoder(plain)[1].mean((2, 3)))
    return made


def model(
    task: str = "prior", map_multipliers: tuple[int, ...] | None = None, text: int | None = None, **changes: Any
) -> TaskModel:
    """Of 4 x 4 tokens of 4 pixels a side, and with `map_multipliers` of maps by a tokenizer with these multipliers."""
    maps = None if map_multipliers is None else tokenizer(2, map_multipliers)
    settings = {"name": task, "layers": 1, "heads": 2, "width": 16, **changes}
    values: dict[str, Any] = {"task": settings, "layout": {"height": 4, "width": 4, "sizes": [16]}}
    if maps is not None:
        values["condition_layout"] = {"height": SIZE // maps.factor, "width": SIZE // maps.factor, "sizes": [16]}
        settings["segmentation"] = True
    values["text_width"] = text
    config = build(TaskConfig, values, "test")
    torch.manual_seed(3)
    made = config.make().eval().requires_grad_(False)
    for parameter in made.parameters():
        parameter += torch.randn(parameter.shape) * 0.3
    return TaskModel(config, made, tokenizer(1, (1, 1, 2)), maps, {"size": SIZE})


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def maps(tmp_path: Path) -> list[Path]:
    """Three maps: of one class, of halves, and not square."""
    tables = [np.full((16, 16), 2, np.uint8), np.zeros((16, 16), np.uint8), np.zeros((40, 24), np.uint8)]
    tables[1][:, 8:], tables[2][20:] = 3, 1
    for number, table in enumerate(tables):
        save_png(tmp_path / f"{number}.png", table)
    return [tmp_path / f"{number}.png" for number in range(3)]


# --- what is asked for ----------------------------------------------------------------------------------------------


def test_unused_and_missing_conditions_are_refused(maps: list[Path]) -> None:
    plain, mapped, with_text = model(), model(map_multipliers=(1, 1, 2)), model("diffusion", text=6, steps=4)
    cases: list[tuple[TaskModel, tuple[str, ...], list[Path], str]] = [
        (plain, ("a barn",), [], "Task 'prior' of this model does not read text; leave out --prompt"),
        (plain, (), maps, "Task 'prior' of this model does not read segmentation; leave out --segmentation"),
        (with_text, ("a barn",), maps, "Task 'diffusion' of this model does not read segmentation"),
        (mapped, (), [], "This model generates from segmentation; add --segmentation"),
        (with_text, (), [], "This model generates from text; add --prompt"),
        (with_text, ("a barn",), [], "trained without a text store"),
    ]
    for asked, captions, map_multipliers, message in cases:
        with pytest.raises(UsageError, match=message):
            build_prompt(asked, captions, map_multipliers, 2)
    prompt, notes = build_prompt(plain, (), (), 3, size=(4, 6))
    assert (prompt, notes) == (Prompt(3, size=(4, 6)), ())


def test_maps_are_repeated_in_order(maps: list[Path]) -> None:
    mapped = model(map_multipliers=(1, 1, 2))
    single = [build_prompt(mapped, (), [path], 1)[0].condition for path in maps]
    prompt, _ = build_prompt(mapped, (), maps, 2)
    assert prompt.count == 6
    assert prompt.condition is not None
    for row, map_multipliers in enumerate(prompt.condition):
        assert torch.equal(map_multipliers, single[row // 2][0])
    assert len({tuple(map_multipliers.tolist()) for map_multipliers in prompt.condition}) == 3


def test_captions_are_repeated_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    mask = torch.arange(3) < torch.tensor([1, 3, 2])[:, None]
    units = TextUnits(torch.zeros(3, 3, 6), mask)
    typed = EncodedPrompts(TextFeatures(units, units, units), ("one note",))
    monkeypatch.setattr(generation, "PromptEncoder", lambda *_: lambda captions: typed)
    prompt, notes = build_prompt(model("diffusion", text=6, steps=4), ("a", "b", "c"), (), 2)
    assert (prompt.count, notes) == (6, ("one note",))
    assert prompt.text is not None
    assert prompt.text.words.mask.sum(1).tolist() == [1, 1, 3, 3, 2, 2]


@pytest.mark.parametrize(("conditions", "count", "names"), [
    (0, 3, ["1", "2", "3"]),
    (1, 2, ["1", "2"]),
    (1, 10, [f"{number:02}" for number in range(1, 11)]),
    (2, 2, ["1-1", "1-2", "2-1", "2-2"]),
    (10, 1, [f"{number:02}-01" for number in range(1, 11)]),
])  # fmt: skip
def test_names(conditions: int, count: int, names: list[str]) -> None:
    assert image_names(conditions, count) == names
    assert image_names(conditions, count) == sorted(names)


@pytest.mark.parametrize("multipliers", [(1, 2), (1, 1, 2), (1, 1, 1, 2)], ids=["finer", "alike", "coarser"])
def test_maps_of_the_trained_size_and_of_a_larger_one(multipliers: tuple[int, ...], maps: list[Path]) -> None:
    """The larger one holds what the map's middle part of these proportions holds, nearest pixel by pixel."""
    mapped = model(map_multipliers=multipliers)
    assert mapped.condition_tokenizer is not None
    for path in maps:
        classes = np.asarray(generation.load_segmentation(path))
        expected = mapped.condition_tokenizer.encode(to_float(crop_and_resize(colourize(classes), SIZE, nearest=True)))
        found = build_prompt(mapped, (), [path], 1)[0].condition
        assert found is not None
        assert torch.equal(found, expected.flatten(1))
    wide = build_prompt(mapped, (), maps[1:2], 1, size=(4, 8))[0].condition
    halves = np.zeros((16, 32), np.int32)  # of the middle 8 of 16 rows, twice as large
    halves[:, 16:] = 3
    pixels = torch.from_numpy(colourize(halves)).permute(2, 0, 1)
    assert wide is not None
    assert torch.equal(wide, mapped.condition_tokenizer.encode(to_float(pixels)).flatten(1))


def to_float(images: Tensor) -> Tensor:
    return images[None].float() / 127.5 - 1


@pytest.mark.parametrize("shape", [(16, 16), (40, 24), (23, 41), (7, 9), (300, 1)])
@pytest.mark.parametrize("side", [8, 16, 24])
def test_centre_crop_of_a_square_is_that_of_training(shape: tuple[int, int], side: int) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert torch.equal(centre_crop(image, side, side), crop_and_resize(image, side, nearest=True))


def test_centre_crop_by_hand() -> None:
    image = np.arange(6 * 8, dtype=np.uint8).reshape(6, 8)[..., None].repeat(3, 2)
    assert centre_crop(image, 2, 8)[0].tolist() == [list(range(16, 24)), list(range(24, 32))]
    assert centre_crop(image, 3, 2)[0].tolist() == [[11, 13], [27, 29], [43, 45]]


def test_a_map_that_cannot_be_read_names_its_file(tmp_path: Path) -> None:
    mapped = model(map_multipliers=(1, 1, 2))
    save_png(tmp_path / "colours.png", np.zeros((4, 4, 3), np.uint8))
    with pytest.raises(DataError, match=r"colours\.png: it holds colours"):
        build_prompt(mapped, (), [tmp_path / "colours.png"], 1)


# --- sizes ----------------------------------------------------------------------------------------------------------


def test_sides_in_pixels_become_positions() -> None:
    plain = model()
    assert grid_size(plain, None, None) is None
    assert grid_size(plain, 16, None) == grid_size(plain, 16, 16) == (4, 4)
    assert grid_size(plain, None, 20) == (4, 5)
    assert grid_size(plain, 32, None) == (8, 4)
    coarse = model(map_multipliers=(1, 1, 1, 2))  # 8 pixels for a token of the map, 4 for one of the image
    assert grid_size(coarse, 24, 32) == (6, 8)
    assert grid_size(model("diffusion", text=6, steps=4), 16, 16) == (4, 4)


@pytest.mark.parametrize(
    ("height", "width", "changes", "message"),
    [
        (18, None, {}, r"--height 18 must be a multiple of 4 \(pixels per token\)"),
        (16, 33, {}, "--width 33 must be a multiple of 4"),
        (20, 16, {"map_multipliers": (1, 1, 1, 2)}, "--height 20 must be a multiple of 8"),
        (16, 18, {"map_multipliers": (1, 2)}, "--width 18 must be a multiple of 4"),
        (12, None, {}, "--height 12 must be at least 16, the height this model was trained at"),
        (None, 8, {}, "--width 8 must be at least 16"),
        (4096, 1024, {}, "1,024 x 256 positions of 1 is too large; at most 65,536"),
        (16, 32, {"task": "diffusion", "text": 6, "steps": 4}, "'diffusion' only generates images of 4 x 4 positions"),
    ],
)
def test_sides_that_are_refused(height: int | None, width: int | None, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        grid_size(model(**changes), height, width)


# --- images -------------------------------------------------------------------------------------------------------


def test_images_are_generated_in_batches_from_one_generator(monkeypatch: pytest.MonkeyPatch, maps: list[Path]) -> None:
    """Each batch with its own conditions, after the one before; and a recorder sees the same."""
    monkeypatch.setattr(generation, "BATCH", 4)
    mapped = model(map_multipliers=(1, 1, 2))
    prompt, _ = build_prompt(mapped, (), maps, 3)
    with_text: list[int] = []
    found = generate_images(mapped, prompt, Sampling(), generator(), with_text.append)
    assert with_text == [4, 8, 9]
    ours, parts = generator(), []
    for start, stop in ((0, 4), (4, 8), (8, 9)):
        assert prompt.condition is not None
        tokens = mapped.task.sample(Prompt(stop - start, condition=prompt.condition[start:stop]), Sampling(), ours)
        parts.append(mapped.tokenizer.decode(mapped.config.layout.to_indices(tokens)).clamp(-1, 1))
    assert torch.equal(found, torch.cat(parts))
    recorder = FrameRecorder()
    assert torch.equal(generate_images(mapped, prompt, Sampling(), generator(), recorder=recorder), found)
    torch.testing.assert_close(mapped.decode(recorder.states()[-1], mapped.config.layout), found)


def test_the_batch_size_changes_nothing_at_temperature_0(monkeypatch: pytest.MonkeyPatch, maps: list[Path]) -> None:
    mapped, cold = model(map_multipliers=(1, 1, 2)), Sampling(temperature=0)
    prompt, _ = build_prompt(mapped, (), maps, 3)
    whole = generate_images(mapped, prompt, cold, generator())
    assert len({tuple(image.flatten().tolist()) for image in whole}) > 1
    for batch in (1, 2, 8):
        monkeypatch.setattr(generation, "BATCH", batch)
        torch.testing.assert_close(generate_images(mapped, prompt, cold, generator()), whole)


def test_larger_images_are_decoded_in_smaller_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    plain, sizes = model("masked"), []
    decode = plain.tokenizer.decode
    monkeypatch.setattr(
        plain.tokenizer, "decode", lambda indices: sizes.append(tuple(indices.shape)) or decode(indices)
    )
    found = generate_images(plain, Prompt(5, size=(8, 16)), Sampling(steps=1), generator())
    assert found.shape == (5, 3, 32, 64)
    assert sizes == [(2, 8, 16), (2, 8, 16), (1, 8, 16)]
    generate_images(
        plain, Prompt(1, size=(20, 20)), Sampling(steps=1), generator()
    )  # even one is more than what is usual


@pytest.mark.parametrize(
    ("count", "rows", "columns"), [(1, 1, 1), (2, 1, 2), (3, 2, 2), (4, 2, 2), (5, 2, 3), (7, 3, 3)]
)
def test_an_image_grid_is_nearly_square(count: int, rows: int, columns: int) -> None:
    """Of images that are not square, each at its place, white around them."""
    images = torch.linspace(-1, 0.9, count)[:, None, None, None].expand(-1, 3, 4, 6)
    page = image_grid(images)
    assert page.shape == (rows * (4 + GAP) - GAP, columns * (6 + GAP) - GAP, 3)
    expected = np.full_like(page, 255)
    for number in range(count):
        top, left = number // columns * (4 + GAP), number % columns * (6 + GAP)
        expected[top : top + 4, left : left + 6] = to_uint8(images[number, 0, 0, 0])
    assert np.array_equal(page, expected)
