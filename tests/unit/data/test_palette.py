"""The colours of segmentation maps, and maps instead of images."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from tavq.core.config import Config, build
from tavq.core.errors import DataError, UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.data.loader import EvaluationLoader, TrainingLoader
from tavq.data.palette import colourize, load_colours, palette_colours
from tavq.data.transforms import crop_and_resize, to_uint8

MAPS = DataConfig(size=16, images="segmentation", flip=0)


class _Recipe(Config):
    data: DataConfig


def test_the_colours_of_pascal_voc() -> None:
    """As its development kit prints them: background, aeroplane, bicycle, bird, boat, bottle, bus, car, cat, …"""
    found = palette_colours(np.array([0, 1, 2, 3, 4, 5, 6, 7, 8, 15, 20, 255]))
    expected = ["000000", "800000", "008000", "808000", "000080", "800080", "008080", "808080", "400000", "c08080"]
    assert [row.tobytes().hex() for row in found] == [*expected, "004080", "e0e0c0"]


def test_no_two_classes_share_a_colour_and_few_classes_are_far_apart() -> None:
    for power in (1, 2, 3):
        table = palette_colours(np.arange(8**power)).astype(int)
        apart = np.abs(table[:, None] - table[None]).max(2)
        assert apart[~np.eye(len(table), dtype=bool)].min() == 256 // 2**power
    assert len(np.unique(palette_colours(np.arange(1 << 24)[:: 1 << 7]), axis=0)) == 1 << 17
    assert palette_colours(np.array([(1 << 24) - 1])).tolist() == [[255, 255, 255]]


@pytest.mark.parametrize("bad", [-1, 1 << 24])
def test_a_class_without_a_colour(bad: int) -> None:
    with pytest.raises(DataError, match=r"must be 0 to 16,777,215; the segmentation has (-1 to 1|0 to 16777216)"):
        colourize(np.array([[1, bad]]))


def test_the_nearest_pixel_makes_no_new_colour() -> None:
    classes = np.random.default_rng(0).integers(0, 5, (40, 48))
    resized = crop_and_resize(colourize(classes), 16, nearest=True)
    known = {tuple(row) for row in palette_colours(np.arange(5)).tolist()}
    assert {tuple(pixel) for pixel in resized.flatten(1).T.tolist()} <= known
    square = colourize(classes)[:, 4:44]
    places = (np.arange(16) + 0.5) * 2.5
    assert np.array_equal(resized.permute(1, 2, 0).numpy(), square[places.astype(int)][:, places.astype(int)])


# --- a data set's own colours ---------------------------------------------------------------------------------------

OWN = {0: (255, 255, 255), 1: (0, 0, 0), 2: (10, 20, 30)}


def test_a_data_sets_own_colours_by_hand() -> None:
    assert colourize(np.array([[0, 2], [1, 0]]), OWN).tolist() == [
        [[255, 255, 255], [10, 20, 30]],
        [[0, 0, 0], [255, 255, 255]],
    ]
    for number in (3, -1):
        with pytest.raises(DataError, match=rf"has no colour for class {number}; it must name every class"):
            colourize(np.array([[0, number]]), OWN)


@pytest.mark.parametrize(
    ("own", "message"),
    [
        ({1: [1, 2, 3], 7: [0, 0, 0], 12: [1, 2, 3]}, r"classes 1 and 12 share the colour \[1, 2, 3\]"),
        ({-1: [0, 0, 0]}, "greater than or equal to 0"),
        ({1 << 24: [0, 0, 0]}, "less than 16777216"),
        ({1: [0, 0, 256]}, "less than or equal to 255"),
        ({1: [0, 0]}, r"data.colours.1.2' is missing"),
        ({1: [0, 0, 0, 0]}, "at most 3"),
        ({}, "at least 1"),
        ({number: [number % 256, number // 256, 0] for number in range(1025)}, "at most 1024"),
        ("red", "valid dictionary"),
    ],
)
def test_colours_that_are_refused(own: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        build(_Recipe, {"data": {"images": "segmentation", "colours": own}}, "test")
    with pytest.raises(UsageError):
        load_colours({"colours": own}, "config.json")


def test_colours_are_of_maps_alone() -> None:
    with pytest.raises(UsageError, match=r"colours applies to segmentation maps; set data\.images to segmentation"):
        build(DataConfig, {"colours": OWN}, "test")
    plain = DataConfig(size=32, flip=0)
    assert plain.for_segmentation(OWN) == DataConfig(size=32, flip=0, images="segmentation", colours=OWN)
    assert plain.for_segmentation(OWN).for_segmentation(None) == DataConfig(size=32, flip=0, images="segmentation")


def test_what_a_model_folder_keeps_is_what_a_recipe_gave() -> None:
    kept = json.loads(json.dumps(DataConfig(images="segmentation", colours=OWN).model_dump(mode="json")))
    assert load_colours(kept, "config.json") == OWN
    assert load_colours({"colours": None}, "config.json") is None
    assert load_colours({}, "config.json") is None  # of a folder from before there were any


@pytest.fixture
def mapped(make: Callable[..., Path]) -> Path:
    """Seven images of 20 x 16 pixels; of the odd ones the right half is class 1 on a ground of 0, of others 2."""
    folder = make(7, {number: {"segmentation": f"segmentation/{number}.png"} for number in range(7)})
    for number in range(7):
        classes = np.zeros((16, 20), np.uint8)
        classes[:, 10:] = 1 if number % 2 else 2
        save_png(folder / f"segmentation/{number}.png", classes)
    return folder


def images(folder: Path, config: DataConfig = MAPS) -> tuple[torch.Tensor, list[Any]]:
    loader = EvaluationLoader(FolderDataset(folder), config, 4)
    return torch.cat([batch.images for batch in loader]), loader.faults


def test_maps_are_read_in_the_place_of_images(mapped: Path) -> None:
    found, faults = images(mapped)
    assert faults == []
    expected = np.zeros((7, 3, 16, 16), np.uint8)
    for number in range(7):
        expected[number, 0 if number % 2 else 1, :, 8:] = 128
    assert np.array_equal(to_uint8(found).numpy(), expected)


def test_training_crops_and_mirrors_maps(mapped: Path) -> None:
    loader = TrainingLoader(FolderDataset(mapped), MAPS.model_copy(update={"flip": 0.5, "crop_scale": 0.3}), 40, 0)
    found = to_uint8(next(loader).images)
    loader.close()
    assert {tuple(pixel) for pixel in found.permute(0, 2, 3, 1).reshape(-1, 3).tolist()} == {
        (0, 0, 0),
        (128, 0, 0),
        (0, 128, 0),
    }
    left = (found[:, :, :, 0] > 0).any(1).any(1)
    assert 0 < int(left.sum()) < 40


def test_what_is_wrong_with_a_map_is_a_fault_of_its_image(mapped: Path, make: Callable[..., Path]) -> None:
    names = {number: {"segmentation": f"segmentation/{number}.png"} for number in range(7) if number != 2}
    make(7, names)
    Image.new("L", (5, 4)).save(mapped / "segmentation/0.png")
    Image.new("RGB", (20, 16)).save(mapped / "segmentation/1.png")
    (mapped / "segmentation/3.png").write_bytes(b"nothing")
    (mapped / "segmentation/4.png").unlink()
    (mapped / "images/5.png").unlink()
    found, faults = images(mapped)
    assert len(found) == 1
    said = {fault.where: fault.reason for fault in faults}
    assert sorted(said) == [f"images/{number}.png" for number in range(6)]
    assert said["images/0.png"] == "its segmentation: it has 5 x 4 pixels, but the image has 20 x 16"
    assert said["images/1.png"].startswith("its segmentation: it holds colours (RGB)")
    assert said["images/2.png"] == "it has no segmentation"
    assert said["images/3.png"].startswith("its segmentation: it is not an image")
    assert said["images/4.png"] == "its segmentation: no such file or directory"


def test_maps_are_read_in_their_own_colours_and_a_class_without_one_is_a_fault(mapped: Path) -> None:
    some = {number: colour for number, colour in OWN.items() if number != 1}
    for own, count in ((OWN, 7), (some, 4)):
        loader = EvaluationLoader(FolderDataset(mapped), MAPS.for_segmentation(own), 2)
        found = to_uint8(torch.cat([batch.images for batch in loader]))
        assert len(found) == count
        assert {tuple(pixel) for pixel in found.movedim(1, 3).flatten(0, 2).tolist()} == set(own.values())
    assert [fault.reason for fault in loader.faults] == [
        "its segmentation: data.colours has no colour for class 1; it must name every class of the maps"
    ] * 3


def test_a_data_set_without_maps(make: Callable[..., Path]) -> None:
    with pytest.raises(DataError, match=r"7 of 7 images in .* cannot be read; .* it has no segmentation"):
        images(make(7))
