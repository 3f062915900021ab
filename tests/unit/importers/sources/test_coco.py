"""The COCO reader on tiny copies of the published layouts, and on real images where they are there."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import imported, jpeg, lay_out, pack, png

from tavq.core.errors import DataError, FileError
from tavq.data.images import load_segmentation
from tavq.data.records import NamedBox
from tavq.importers.coco_labels import NAMES
from tavq.importers.importing import sources

SIZE = {"width": 8, "height": 6}
THINGS = [{"id": 1, "name": "person"}, {"id": 18, "name": "dog"}]


def image(number: int, split: str = "train") -> dict[str, Any]:
    return {"id": number, "file_name": f"{number:012d}.jpg", **SIZE}


def captions(*images: int) -> dict[str, Any]:
    notes = [{"id": n, "image_id": n, "caption": f"Image {n}. "} for n in images]
    notes += [{"id": 90 + n, "image_id": n, "caption": "Another"} for n in images]
    return {"images": [image(n) for n in images], "annotations": notes}


def thing(number: int, category: int, box: Any, **more: Any) -> dict[str, Any]:
    return {"id": 1, "image_id": number, "category_id": category, "bbox": box, "iscrowd": 0, **more}


def square(x: int, y: int, w: int, h: int) -> list[list[int]]:
    return [[x, y, x + w, y, x + w, y + h, x, y + h]]


LEFT_HALF = {"size": [6, 8], "counts": [0, 24, 24]}
INSTANCES = {
    "images": [image(1), image(2)],
    "categories": THINGS,
    "annotations": [
        thing(1, 18, [1, 1, 2, 2], segmentation=square(1, 1, 2, 2)),
        thing(1, 1, [0, 0, 5, 5], segmentation=square(0, 0, 5, 5)),
        thing(1, 1, [0, 0, 8, 6], segmentation={"size": [6, 8], "counts": [47, 1]}, iscrowd=1),
    ],
}
STUFF = {
    "images": [image(1)],
    "categories": [{"id": 157, "name": "sky-other"}, {"id": 183, "name": "other"}],
    "annotations": [
        {"image_id": 1, "category_id": 157, "segmentation": LEFT_HALF},
        {"image_id": 1, "category_id": 183, "segmentation": {"size": [6, 8], "counts": [24, 24]}},
    ],
}
DRAWN = np.full((6, 8), 183)
DRAWN[:, :4] = 157
DRAWN[5, 7] = 1  # the crowd's one pixel, its box the largest
DRAWN[:5, :5] = 1
DRAWN[1:3, 1:3] = 18  # the smallest on top


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images of train2017 in a folder, one of val2017 in a zip file; captions and instances."""
    files = {"annotations/captions_train2017.json": captions(1, 2), "annotations/captions_val2017.json": captions(3)}
    files |= {"annotations/instances_train2017.json": INSTANCES}
    lay_out(tmp_path / "coco", files | {f"train2017/{n:012d}.jpg": jpeg(0, 8, 6) for n in (1, 2)})
    pack(tmp_path / "coco/val2017.zip", {"val2017/000000000003.jpg": jpeg(0, 8, 6)})
    return tmp_path / "coco"


def run(source: Path, **settings: Any) -> tuple[Any, list[Any]]:
    return imported("coco", source, source.parent / "out", **settings)


def segmentation(source: Path, record: Any) -> np.ndarray:
    return load_segmentation(source.parent / "out" / record.segmentation)


def test_captions_and_boxes(source: Path) -> None:
    summary, (first, second, third) = run(source)
    assert summary.images == {"train": 2, "val": 1}
    assert summary.captions == 6
    assert summary.others == {"objects": 2}
    assert summary.left_out == {
        "boxes around crowds": 1,
        "missing files (instances_val2017.json, a segmentation)": 2,
    }
    assert (first.file_name, first.split) == ("images/000000000001.jpg", "train")
    assert first.captions == ("Image 1.", "Another")
    assert first.objects == (NamedBox((1, 1, 2, 2), "dog"), NamedBox((0, 0, 5, 5), "person"))
    assert (second.objects, second.segmentation) == ((), None)
    assert (third.file_name, third.split) == ("images/000000000003.jpg", "val")


def test_2014_and_images_in_images(tmp_path: Path) -> None:
    name = "COCO_val2014_000000000007.jpg"
    listed = {"id": 7, "file_name": name, **SIZE}
    notes = {"images": [listed], "annotations": [{"image_id": 7, "caption": "Seven"}]}
    lay_out(tmp_path / "coco", {"captions_val2014.json": notes, f"images/val2014/{name}": jpeg(0, 8, 6)})
    summary, (record,) = run(tmp_path / "coco")
    assert (record.split, record.captions) == ("val", ("Seven",))
    assert "anything of train2014" in next(iter(summary.left_out))


def test_limit_counts_for_each_split(source: Path) -> None:
    summary, _ = run(source, limit=1)
    assert summary.images == {"train": 1, "val": 1}
    assert summary.left_out["images beyond the limit"] == 1


def test_stuff_in_json_with_the_things_over_it(source: Path) -> None:
    lay_out(source, {"annotations/stuff_train2017.json": STUFF})
    summary, (first, second, _) = run(source)
    assert summary.others["segmentations"] == 1
    assert (segmentation(source, first) == DRAWN).all()
    assert second.segmentation is None
    names = json.loads((source.parent / "out/segmentation_classes.json").read_text())
    assert (names["0"], names["18"], names["157"], names["183"]) == ("unlabeled", "dog", "sky-other", "other")


@pytest.mark.parametrize("at", ["", "annotations/"])
def test_stuff_as_pngs_with_the_things_over_it(source: Path, at: str) -> None:
    stuff = np.where(np.arange(8) < 4, 157, 183) * np.ones((6, 1), int)
    lay_out(source, {f"{at}stuff_train2017_pixelmaps/000000000001.png": png(stuff)})
    lay_out(source, {"annotations/stuff_train2017.json": "never read, since the PNGs say the same"})
    summary, (first, *_) = run(source)
    assert (segmentation(source, first) == DRAWN).all()
    assert summary.left_out["segmentations in other forms than pixelmaps (stuff)"] == 1


@pytest.mark.parametrize("zipped", [True, False])
def test_things_and_stuff_as_pngs(source: Path, zipped: bool) -> None:
    """The published numbers are one less than the categories, and 255 where nothing is said."""
    stored = np.arange(48).reshape(6, 8) + 134
    stored[0, 0] = 255
    if zipped:
        pack(source / "stuffthingmaps_trainval2017.zip", {"train2017/000000000001.png": png(stored)})
    else:
        lay_out(source, {"annotations/train2017/000000000001.png": png(stored)})
    _, (first, *_) = run(source)
    expected = np.arange(48).reshape(6, 8) + 135
    expected[0, 0] = 0
    assert (segmentation(source, first) == expected).all()


def test_panoptic(source: Path) -> None:
    numbers = np.array([[7, 70000], [70000, 3]]).repeat(3, 0).repeat(4, 1)
    colours = np.stack([numbers % 256, numbers // 256 % 256, numbers // 65536], -1)
    segments = [{"id": 7, "category_id": 1}, {"id": 70000, "category_id": 187}, {"id": 9, "category_id": 5000}]
    panoptic = {
        "images": [image(1)],
        "categories": [*THINGS, {"id": 187, "name": "sky-other-merged"}],
        "annotations": [{"image_id": 1, "file_name": "000000000001.png", "segments_info": [*segments, 3]}],
    }
    lay_out(source, {"annotations/panoptic_train2017.json": panoptic})
    pack(source / "annotations/panoptic_train2017.zip", {"panoptic_train2017/000000000001.png": png(colours)})
    summary, (first, *_) = run(source)
    assert (segmentation(source, first) == np.array([[1, 187], [187, 0]]).repeat(3, 0).repeat(4, 1)).all()
    assert summary.left_out["annotations of an unknown category"] == 2
    assert "sky-other-merged" in (source.parent / "out/segmentation_classes.json").read_text()


def test_smaller_images_than_the_annotations_say(source: Path) -> None:
    lay_out(source, {"train2017/000000000001.jpg": jpeg(0, 4, 3), "annotations/stuff_train2017.json": STUFF})
    _, (first, *_) = run(source)
    assert first.objects[0].box == (0.5, 0.5, 1, 1)
    assert segmentation(source, first).shape == (3, 4)
    at_centres = {(0, 0), (0, 1), (1, 0), (1, 1), (0, 3), (2, 2)}  # of each 2 x 2 the pixel right below the centre
    assert {(y, x): segmentation(source, first)[y, x] for y, x in at_centres} == {
        (y, x): DRAWN[2 * y + 1, 2 * x + 1] for y, x in at_centres
    }


def test_unusable_entries_are_counted(source: Path) -> None:
    annotations = [
        thing(99, 1, [0, 0, 2, 2]), thing(1, 77, [0, 0, 2, 2]), thing(1, 1, [5, 0, 9, 2]), thing(1, 1, [0, 0, 2]),
        thing(1, 1, None), {"image_id": [1]}, "text", thing(1, 1, [0, 0, 2, 2], segmentation=[[1, 2]]),
    ]  # fmt: skip
    images = [image(1), image(5), {"id": 6}, {"file_name": "../escape.jpg", "id": 8}, {"file_name": "x.jpg", "id": {}}]
    broken = {"images": images, "categories": [*THINGS, {"id": 300, "name": "far"}, {}], "annotations": annotations}
    lay_out(source, {"annotations/instances_train2017.json": broken, "annotations/stuff_train2017.json": STUFF})
    lay_out(source, {"train2017/000000000002.jpg": b"no image", "train2017/000000000077.jpg": jpeg()})
    summary, records = run(source)
    assert [record.file_name for record in records] == ["images/000000000001.jpg", "images/000000000003.jpg"]
    assert summary.left_out == {
        "entries that are not JSON objects": 1,
        "listed images without a name or id": 2,
        "listed images without a file": 2,
        "annotations of images that are not listed": 2,
        "annotations of an unknown category": 1,
        "parts of boxes beyond the edge of their image": 1,
        "boxes without four numbers and an area": 2,
        "regions that cannot be decoded": 1,
        "images that cannot be read": 1,
        "images without annotations": 1,
        "missing files (instances_val2017.json)": 1,
    }


def test_broken_segmentations(source: Path) -> None:
    files = {"000000000001.png": png(np.zeros((6, 8)))[:40], "000000000002.png": jpeg(0, 8, 6)}
    pack(source / "stuffthingmaps_trainval2017.zip", files)
    summary, records = run(source)
    assert summary.left_out["segmentations that cannot be used"] == 2
    assert all(record.segmentation is None for record in records)


def remove(source: Path, *patterns: str) -> None:
    for pattern in patterns:
        for path in source.glob(pattern):
            path.unlink()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda s: remove(s, "annotations/*"),
            DataError,
            r"in .*coco or .*annotations; expected captions_ and",
        ),
        (
            lambda s: remove(s, "val2017.zip", "train2017/*"),
            DataError,
            "None of the images that .*, 3 listed images",
        ),
        (
            lambda s: lay_out(s, {"val2017.zip": "text"}),
            DataError,
            r"val2017\.zip is .* not a zip file",
        ),
        (lambda s: lay_out(s, {"annotations/captions_val2017.json": "{"}), FileError, "not valid JSON"),
        (lambda s: lay_out(s, {"annotations/captions_val2017.json": []}), DataError, "with a list 'images'"),
        (
            lambda s: lay_out(s, {"annotations/captions_val2017.json": {"images": []}}),
            DataError,
            "with a list 'annotations'",
        ),
    ],
)
def test_a_wrong_layout_is_an_error(source: Path, change: Callable[[Path], Any], error: Any, message: str) -> None:
    change(source)
    with pytest.raises(error, match=message):
        sources["coco"]().run(source, source.parent / "out")
    assert [path.name for path in source.parent.iterdir()] == ["coco"]


def test_no_images(source: Path) -> None:
    (source / "val2017.zip").unlink()
    (source / "train2017").rename(source / "photos")
    with pytest.raises(DataError, match=r"no images in .*; expected the folders train2017, val2017, .*, or archives"):
        sources["coco"]().run(source, source.parent / "out")


def test_the_names_of_the_categories() -> None:
    assert len(NAMES) == 183
    assert [NAMES[number] for number in (1, 77, 90, 92, 103, 164, 182, 183)] == [
        "person", "cell phone", "toothbrush", "banner", "ceiling-tile", "structural-other", "wood", "other",
    ]  # fmt: skip


@pytest.fixture
def real(real_data: Path, tmp_path: Path) -> Path:
    """Real images of at most 320 pixels and real annotations of the originals, laid out as published."""
    subset = real_data / "coco_subset"
    index = json.loads((subset / "index.json").read_text())
    stuff = json.loads((subset / "stuff_200.json").read_text())
    categories = json.loads((subset / "categories.json").read_text())
    numbers = {category["name"]: category["id"] for category in categories}
    val = [entry for entry in index if entry["split"] == "val2017"]
    images = [
        {"id": e["id"], "file_name": e["file"], "width": e["orig_width"], "height": e["orig_height"]} for e in val
    ]
    things = [
        {"image_id": entry["id"], "category_id": numbers[thing["category"]], **thing}
        for entry in val
        for thing in entry["objects"]
    ]
    regions = [{**region, "image_id": int(number)} for number, those in stuff["stuff"].items() for region in those]
    known = {entry["id"] for entry in val}
    regions = [region for region in regions if region["image_id"] in known]
    folder = tmp_path / "coco"
    annotations = {"images": images, "annotations": things, "categories": categories}
    lay_out(folder, {"annotations/instances_val2017.json": annotations})
    stuffed = {"images": images, "annotations": regions, "categories": stuff["categories"]}
    lay_out(folder, {"annotations/stuff_val2017.json": stuffed})
    (folder / "annotations/captions_val2017.json").symlink_to(subset / "captions_val2017.json")
    (folder / "val2017.tar").symlink_to(subset / "images320.tar")
    return folder


@pytest.mark.real_data
def test_the_real_one(real: Path, real_data: Path) -> None:
    summary, records = run(real)
    assert summary.images == {"val": 530}
    assert summary.captions == 2651
    assert summary.left_out["listed images without a file"] == 4470
    assert not any("boxes" in reason and "crowds" not in reason for reason in summary.left_out)
    assert "regions that cannot be decoded" not in summary.left_out
    assert "annotations of an unknown category" not in summary.left_out
    by_name = {record.file_name: record for record in records}
    plant = by_name["images/000000000139.jpg"].objects[0]  # in the original of 640 pixels [236.98, 142.51, 24.7, 69.5]
    assert plant == NamedBox((118.49, 71.25, 12.35, 34.75), "potted plant")
    segmented = [record for record in records if record.segmentation is not None]
    assert summary.others["segmentations"] == len(segmented) > 50


@pytest.mark.real_data
def test_real_stuff_and_things_fit_each_other(real: Path) -> None:
    """COCO's stuff calls every thing "other"; its things, drawn from their polygons, cover almost all of that."""
    _, records = run(real)
    maps = [segmentation(real, record) for record in records if record.segmentation is not None]
    pixels = np.bincount(np.concatenate([pixels.ravel() for pixels in maps]), minlength=256)
    assert pixels[1:91].sum() > 0.3 * pixels.sum()
    assert pixels[183] < 0.001 * pixels[1:91].sum()
    assert pixels[0] < 0.03 * pixels.sum()
