"""Annotations that contradict their image, and numbers beyond what some part can hold."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import imported, jpeg, lay_out, png

from tavq.data.images import load_segmentation
from tavq.data.records import NamedBox, Record
from tavq.importers.importing import sources
from tavq.importers.reasons import WRONG_SIZE
from tavq.importers.writer import create_dataset

INSIDE, WIDE, TALL = (2.0, 2.0, 8.0, 8.0), (2.0, 2.0, 28.0, 4.0), (2.0, 2.0, 4.0, 28.0)


@pytest.mark.parametrize(
    ("listed", "boxes", "kept"),
    [
        ((32, 16), [INSIDE, WIDE], [INSIDE, WIDE]),
        ((64, 32), [INSIDE], [(1.0, 1.0, 4.0, 4.0)]),
        ((16, 8), [INSIDE], [(4.0, 4.0, 16.0, 12.0)]),  # cut at the edge
        ((65, 33), [INSIDE], [(0.98, 0.97, 3.94, 3.88)]),  # rounded by a pixel
        ((16, 32), [INSIDE], []),  # sides exchanged: which way the boxes are cannot be known
        ((16, 32), [INSIDE, WIDE], [INSIDE, WIDE]),  # they are of the image as it is
        ((16, 32), [TALL], []),
        ((16, 32), [TALL, WIDE], []),
        ((32, 32), [INSIDE, WIDE], []),  # a square that was cropped, or squeezed
        ((20, 20), [INSIDE, WIDE], [INSIDE, WIDE]),
    ],
)
def test_a_listed_size_that_cannot_be_is_not_believed(
    tmp_path: Path, listed: tuple[int, int], boxes: list[Any], kept: list[Any]
) -> None:
    with create_dataset(tmp_path / "out") as writer:
        record = Record("images/a.jpg", objects=tuple(NamedBox(box, "dog") for box in boxes))
        assert writer.add(record, jpeg(1, 32, 16), listed)
        summary = writer.finish()
    lost = len(boxes) - len(kept)
    assert summary.left_out.get(WRONG_SIZE, 0) == lost
    assert summary.others.get("objects", 0) == len(kept)
    written = (tmp_path / "out" / "metadata.jsonl").read_text()
    assert [f"[{', '.join(map(str, box))}]" in written for box in kept] == [True] * len(kept)


def test_a_segmentation_is_never_squeezed(tmp_path: Path) -> None:
    with create_dataset(tmp_path / "out") as writer:
        for name, shape in (("a", (16, 32)), ("b", (32, 16)), ("c", (8, 16))):
            assert writer.write_segmentation(f"segmentation/{name}.png", png(np.ones(shape)))
            writer.add(Record(f"images/{name}.jpg", segmentation=f"segmentation/{name}.png"), jpeg(1, 32, 16), (16, 32))
        summary = writer.finish()
    assert summary.others["segmentations"] == 2
    assert summary.left_out == {"segmentations that cannot be used": 1}
    assert load_segmentation(tmp_path / "out/segmentation/c.png").shape == (16, 32)


CATEGORIES = [
    {"id": 0, "name": "dog"},
    {"id": 1, "name": "cat"},
    {"id": 300, "name": "finch"},
    {"id": "x", "name": "fox"},
]


def coco(folder: Path, name: str = "1.jpg", **more: Any) -> Path:
    image = {"id": 1, "file_name": name, "width": 16, "height": 12}
    notes = [{"image_id": 1, "category_id": each["id"], "bbox": [1, 1, 4, 4], **more} for each in CATEGORIES]
    content = {"images": [image], "annotations": notes, "categories": CATEGORIES}
    return lay_out(folder, {"instances_train2017.json": content, "train2017/1.jpg": jpeg()})


def test_boxes_of_every_category_are_kept(tmp_path: Path) -> None:
    summary, [record] = imported("coco", coco(tmp_path / "in"), tmp_path / "out")
    assert [thing.name for thing in record.objects] == ["dog", "cat", "finch", "fox"]
    assert not any("categor" in reason for reason in summary.left_out)


def test_regions_of_categories_beyond_a_label_map_are_counted_as_such(tmp_path: Path) -> None:
    square = {"segmentation": [[0, 0, 8, 0, 8, 8, 0, 8]]}
    folder = coco(tmp_path / "in", **square)
    stuff = [{"image_id": 1, "category_id": each["id"], **square} for each in CATEGORIES]
    images = [{"id": 1, "file_name": "1.jpg", "width": 16, "height": 12}]
    content = {"images": images, "annotations": stuff, "categories": CATEGORIES}
    summary, [record] = imported("coco", lay_out(folder, {"stuff_train2017.json": content}), tmp_path / "out")
    assert len(record.objects) == 4
    assert summary.left_out["regions of categories outside 1 to 255, which label maps cannot hold"] == 6
    assert set(np.unique(load_segmentation(tmp_path / "out" / str(record.segmentation)))) == {0, 1}


@pytest.mark.parametrize("name", ["1.jpg", "train2017/1.jpg", "./train2017/1.jpg", "coco/train2017/1.jpg", "../1.jpg"])
def test_names_with_folders_as_lvis_writes_them(tmp_path: Path, name: str) -> None:
    _, [record] = imported("coco", coco(tmp_path / "in", name), tmp_path / "out")
    assert record.file_name == "images/1.jpg"


def test_lvis_with_addresses_for_names(tmp_path: Path) -> None:
    image = {"id": 1, "coco_url": "http://images.cocodataset.org/train2017/1.jpg", "width": 16, "height": 12}
    notes = [{"image_id": 1, "category_id": 1203, "bbox": [1, 1, 4, 4]}]
    content = {"images": [image], "annotations": notes, "categories": [{"id": 1203, "name": "zucchini"}]}
    lay_out(tmp_path / "in", {"lvis_v1_train.json": content, "train2017/1.jpg": jpeg()})
    _, [record] = imported("coco", tmp_path / "in", tmp_path / "out")
    assert [thing.name for thing in record.objects] == ["zucchini"]


@pytest.mark.parametrize("listed", [(32, 16), (16, 32), (0, 0), (None, 3)])
def test_expressions_of_a_wrong_size_are_left_out(tmp_path: Path, listed: tuple[Any, Any]) -> None:
    entry = {"file_name": "1.jpg", "normal_caption": "the dog", "solution": [2, 2, 10, 10]}
    entry |= {"width": listed[0], "height": listed[1]}
    lay_out(tmp_path / "in", {"refcocos_test.json": [entry], "images/1.jpg": jpeg(1, 32, 16)})
    summary = sources["refcoco"]().run(tmp_path / "in", tmp_path / "out")
    wrong = listed == (16, 32)
    assert summary.left_out.get(WRONG_SIZE, 0) == wrong
    assert summary.others.get("objects", 0) == 1 - wrong
