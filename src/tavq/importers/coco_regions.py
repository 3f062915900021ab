"""The class of each pixel of COCO's images, from whichever of its published forms is there.

Every form becomes the same numbers: COCO's category of each pixel, 1 to 91 things, 92 to 182 stuff, 183 the rest
("other"), 184 to 200 stuff that the panoptic form merged, and 0 where nothing is said.
"""

import io
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int, Shaped, UInt8
from PIL import Image

from tavq.core.errors import DataError
from tavq.data.images import MAX_PIXELS
from tavq.importers.archives import ImageFiles, coco_id, find_locations
from tavq.importers.masks import region_mask
from tavq.importers.reasons import UNUSABLE_SEGMENTATION
from tavq.importers.rescaling import Size

THINGS_AND_STUFF = ("stuffthingmaps_trainval2017", "stuffthingmaps", "annotations/stuffthingmaps_trainval2017",
                    "annotations/stuffthingmaps", "annotations/train2017", "annotations/val2017")  # fmt: skip
STUFF = tuple(f"{at}stuff_{split}2017_pixelmaps" for at in ("", "annotations/") for split in ("train", "val"))
PANOPTIC = tuple(f"{at}panoptic_{split}2017" for at in ("", "annotations/") for split in ("train", "val"))

Pixels = UInt8[np.ndarray, "y x"]


@dataclass
class Regions:
    """The regions of images as their annotations give them, before they are drawn: (category, segmentation)."""

    things: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    stuff: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    panoptic: dict[str, tuple[str, dict[int, int]]] = field(default_factory=dict)
    """The PNG of each image and the category of each of its segments."""


def label_maps(
    form: str, source: Path, regions: Regions, sizes: Mapping[str, Size | None], left_out: Counter[str]
) -> Iterator[tuple[str, Pixels]]:
    """The class of each pixel, by one of FORMS, of those of the images in `sizes` that have it, in any order."""
    if form == "stuffthingmaps":
        yield from _from_pngs(find_locations(source, THINGS_AND_STUFF), sizes, left_out)
    elif form == "panoptic":
        yield from _from_panoptic(find_locations(source, PANOPTIC), regions, sizes, left_out)
    elif form == "pixelmaps":
        for image, pixels in _grey_pngs(find_locations(source, STUFF), sizes, left_out):
            yield image, _drawn(pixels.astype(np.uint8), regions.things.get(image, ()), left_out)
    else:
        for image, size in sizes.items():
            if image in regions.stuff and size is not None:
                stuff, things = regions.stuff[image], regions.things.get(image, [])
                yield image, _drawn(np.zeros(size[::-1], np.uint8), [*stuff, *things], left_out)


FORMS = ("stuffthingmaps", "panoptic", "pixelmaps", "stuff")
"""From the one that says most. The last two hold stuff alone, and the things of `instances` are drawn over it."""


def forms_here(source: Path, has_panoptic: bool, has_stuff: bool) -> list[str]:
    """Which of FORMS there are in `source`."""
    here = {
        "stuffthingmaps": bool(find_locations(source, THINGS_AND_STUFF)),
        "panoptic": has_panoptic and bool(find_locations(source, PANOPTIC)),
        "pixelmaps": bool(find_locations(source, STUFF)),
        "stuff": has_stuff,
    }
    return [form for form in FORMS if here[form]]


def _drawn(pixels: Pixels, regions: Iterable[tuple[int, Any]], left_out: Counter[str]) -> Pixels:
    """The regions over the pixels, one after the other."""
    pixels = pixels.copy()
    for category, segmentation in regions:
        try:
            pixels[region_mask(segmentation, *pixels.shape)] = category
        except DataError:
            left_out["regions that cannot be decoded"] += 1
    return pixels


def _from_pngs(places: list[Path], images: Iterable[str], left_out: Counter[str]) -> Iterator[tuple[str, Pixels]]:
    """COCO-Stuff's maps of things and stuff, which hold the category less 1, and 255 where nothing is said."""
    for image, pixels in _grey_pngs(places, images, left_out):
        yield image, (pixels.astype(np.uint8) + np.uint8(1)).astype(np.uint8)


def _grey_pngs(
    places: list[Path], images: Iterable[str], left_out: Counter[str]
) -> Iterator[tuple[str, Shaped[np.ndarray, "y x"]]]:
    found = ImageFiles(places)
    numbers = ((image, coco_id(image)) for image in images)
    wanted = {found.by_coco_id[number]: image for image, number in numbers if number in found.by_coco_id}
    yield from _pngs(found, wanted, ("L", "P"), left_out)


def _pngs(
    found: ImageFiles, wanted: Mapping[str, str], modes: tuple[str, ...], left_out: Counter[str]
) -> Iterator[tuple[str, Shaped[np.ndarray, "y x ..."]]]:
    """The stored numbers of the PNGs in `wanted`, under the name of the image that each of them belongs to."""
    for name, data in found.contents(wanted.keys()):
        pixels = _decoded(data, modes)
        if pixels is None:
            left_out[UNUSABLE_SEGMENTATION] += 1
        else:
            yield wanted[name], pixels


def _from_panoptic(
    places: list[Path], regions: Regions, images: Iterable[str], left_out: Counter[str]
) -> Iterator[tuple[str, Pixels]]:
    """PNGs whose colour is a segment's number, red + 256 green + 65536 blue; the annotations say its category."""
    found = ImageFiles(places)
    wanted = {regions.panoptic[image][0]: image for image in images if image in regions.panoptic}
    left_out["segmentations without a file"] += len(wanted.keys() - found)
    for image, pixels in _pngs(
        found, {name: wanted[name] for name in wanted if name in found}, ("RGB", "RGBA"), left_out
    ):
        numbers = pixels[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
        yield image, _looked_up(numbers, regions.panoptic[image][1])


def _looked_up(numbers: Int[np.ndarray, "y x"], categories: Mapping[int, int]) -> Pixels:
    """The category of each pixel's segment, 0 where the annotations do not know it."""
    known, places = np.unique(numbers, return_inverse=True)
    return np.array([categories.get(int(number), 0) for number in known], np.uint8)[places].reshape(numbers.shape)


def _decoded(data: bytes, modes: tuple[str, ...]) -> Shaped[np.ndarray, "y x ..."] | None:
    """The stored numbers of a PNG of one of those modes, or None."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in modes or image.width * image.height > MAX_PIXELS:
                return None
            return np.asarray(image)
    except Exception:  # a hostile file raises anything
        return None
