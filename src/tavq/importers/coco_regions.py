"""Label maps of COCO's images (the class of each pixel), from any of the published forms.

Every form becomes the same class indices: COCO's categories, 1 to 91 things, 92 to 182 stuff, 183 the rest ("other"),
184 to 200 stuff that the panoptic form merged, and 0 for pixels without a label.
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
from tavq.importers.archives import ImageFiles, find_locations, read_coco_id
from tavq.importers.masks import decode_region
from tavq.importers.reasons import UNUSABLE_SEGMENTATION
from tavq.importers.rescaling import Size

THINGS_AND_STUFF = ("stuffthingmaps_trainval2017", "stuffthingmaps", "annotations/stuffthingmaps_trainval2017",
                    "annotations/stuffthingmaps", "annotations/train2017", "annotations/val2017")  # fmt: skip
PARENTS, SPLITS = ("", "annotations/"), ("train", "val")
STUFF = tuple(f"{parent}stuff_{split}2017_pixelmaps" for parent in PARENTS for split in SPLITS)
PANOPTIC = tuple(f"{parent}panoptic_{split}2017" for parent in PARENTS for split in SPLITS)

Pixels = UInt8[np.ndarray, "y x"]


@dataclass
class Regions:
    """The annotated regions of each image, not yet decoded: (category, segmentation)."""

    things: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    stuff: dict[str, list[tuple[int, Any]]] = field(default_factory=dict)
    panoptic: dict[str, tuple[str, dict[int, int]]] = field(default_factory=dict)
    """The name of each image's PNG and the category of each of its segments."""


def iter_label_maps(
    form: str, source: Path, regions: Regions, sizes: Mapping[str, Size | None], left_out: Counter[str]
) -> Iterator[tuple[str, Pixels]]:
    """Iterate over the label maps of the images that have one, in any order.

    Args:
        form: one of FORMS.
        source: the folder of the data set.
        regions: the annotated regions of the images.
        sizes: the images that are wanted, and their sizes where known.
        left_out: counts what cannot be decoded.
    """
    if form == "stuffthingmaps":
        yield from _read_stuffthingmaps(find_locations(source, THINGS_AND_STUFF), sizes, left_out)
    elif form == "panoptic":
        yield from _read_panoptic(find_locations(source, PANOPTIC), regions, sizes, left_out)
    elif form == "pixelmaps":
        for image, pixels in _read_grey_pngs(find_locations(source, STUFF), sizes, left_out):
            yield image, _paint(pixels.astype(np.uint8), regions.things.get(image, ()), left_out)
    else:
        for image, size in sizes.items():
            if image in regions.stuff and size is not None:
                stuff, things = regions.stuff[image], regions.things.get(image, [])
                yield image, _paint(np.zeros(size[::-1], np.uint8), [*stuff, *things], left_out)


FORMS = ("stuffthingmaps", "panoptic", "pixelmaps", "stuff")
"""From most to least detailed. The last two label stuff only; the things of `instances` are painted over it."""


def find_forms(source: Path, has_panoptic: bool, has_stuff: bool) -> list[str]:
    """Which of FORMS exist in `source`."""
    exists = {
        "stuffthingmaps": bool(find_locations(source, THINGS_AND_STUFF)),
        "panoptic": has_panoptic and bool(find_locations(source, PANOPTIC)),
        "pixelmaps": bool(find_locations(source, STUFF)),
        "stuff": has_stuff,
    }
    return [form for form in FORMS if exists[form]]


def _paint(pixels: Pixels, regions: Iterable[tuple[int, Any]], left_out: Counter[str]) -> Pixels:
    """Paint the regions over the pixels, one after the other."""
    pixels = pixels.copy()
    for category, segmentation in regions:
        try:
            pixels[decode_region(segmentation, *pixels.shape)] = category
        except DataError:
            left_out["regions that cannot be decoded"] += 1
    return pixels


def _read_stuffthingmaps(
    locations: list[Path], images: Iterable[str], left_out: Counter[str]
) -> Iterator[tuple[str, Pixels]]:
    """COCO-Stuff's maps of things and stuff, which store the category minus 1, and 255 for pixels without a label."""
    for image, pixels in _read_grey_pngs(locations, images, left_out):
        yield image, (pixels.astype(np.uint8) + np.uint8(1)).astype(np.uint8)


def _read_grey_pngs(
    locations: list[Path], images: Iterable[str], left_out: Counter[str]
) -> Iterator[tuple[str, Shaped[np.ndarray, "y x"]]]:
    found = ImageFiles(locations)
    ids = ((image, read_coco_id(image)) for image in images)
    names = found.by_coco_id
    wanted = {names[image_id]: image for image, image_id in ids if image_id in names}
    yield from _read_pngs(found, wanted, ("L", "P"), left_out)


def _read_pngs(
    found: ImageFiles, wanted: Mapping[str, str], modes: tuple[str, ...], left_out: Counter[str]
) -> Iterator[tuple[str, Shaped[np.ndarray, "y x ..."]]]:
    """The stored values of the PNGs in `wanted`, which maps the name of a PNG to that of its image."""
    for name, data in found.read(wanted.keys()):
        pixels = _decode_png(data, modes)
        if pixels is None:
            left_out[UNUSABLE_SEGMENTATION] += 1
        else:
            yield wanted[name], pixels


def _read_panoptic(
    locations: list[Path], regions: Regions, images: Iterable[str], left_out: Counter[str]
) -> Iterator[tuple[str, Pixels]]:
    """PNGs whose colours are segment ids (red + 256 green + 65536 blue); the annotations have their categories."""
    found = ImageFiles(locations)
    wanted = {regions.panoptic[image][0]: image for image in images if image in regions.panoptic}
    left_out["segmentations without a file"] += len(wanted.keys() - found)
    present = {name: wanted[name] for name in wanted if name in found}
    for image, pixels in _read_pngs(found, present, ("RGB", "RGBA"), left_out):
        segments = pixels[..., :3].astype(np.int64) @ np.array([1, 256, 65536])
        yield image, _map_segments(segments, regions.panoptic[image][1])


def _map_segments(segments: Int[np.ndarray, "y x"], categories: Mapping[int, int]) -> Pixels:
    """The category of each pixel's segment, 0 for a segment without an annotation."""
    present, inverse = np.unique(segments, return_inverse=True)
    table = np.array([categories.get(int(segment), 0) for segment in present], np.uint8)
    return table[inverse].reshape(segments.shape)


def _decode_png(data: bytes, modes: tuple[str, ...]) -> Shaped[np.ndarray, "y x ..."] | None:
    """The stored values of a PNG of one of these modes, or None."""
    try:
        with Image.open(io.BytesIO(data), formats=("PNG",)) as image:
            if image.mode not in modes or image.width * image.height > MAX_PIXELS:
                return None
            return np.asarray(image)
    except Exception:  # a hostile file may raise anything
        return None
