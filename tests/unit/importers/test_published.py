"""Images of a known list are taken in the order of the list, wherever and however they lie."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import jpeg, lay_out, pack, png

from tavq.core.errors import DataError
from tavq.data.folder import FolderDataset, check_dataset
from tavq.data.images import load_segmentation
from tavq.data.records import NamedBox, Record
from tavq.importers.archives import ImageFiles
from tavq.importers.importing import ImportSummary
from tavq.importers.published import PublishedDataset

NAMES = ("c.jpg", "a.jpg", "d.jpg", "b.jpg")


def record(name: str, split: str = "train", **more: Any) -> Record:
    return Record(f"images/{name}", split, segmentation=f"segmentation/{name[0]}.png", **more)


def written(out: Path, published: PublishedDataset, limit: int | None = None) -> tuple[ImportSummary, list[Record]]:
    summary = published.write(out, limit=limit)
    assert check_dataset(out) == []
    return summary, list(FolderDataset(out))


@pytest.mark.parametrize("name", ["in.zip", "in.tar", "in.tgz"])
def test_the_order_is_that_of_the_records(tmp_path: Path, name: str) -> None:
    """Also of archives, which are read from their start to their end."""
    pack(tmp_path / name, {name: jpeg(number) for number, name in enumerate(sorted(NAMES))} | {"c.jpg": b"broken"})
    records = {name: Record(f"images/{name}", captions=(name,)) for name in NAMES}
    summary, found = written(tmp_path / "out", PublishedDataset(ImageFiles([tmp_path / name]), records))
    assert [record.captions for record in found] == [("a.jpg",), ("d.jpg",), ("b.jpg",)]
    assert summary.left_out == {"images that cannot be read": 1}
    assert (tmp_path / "out/images/d.jpg").read_bytes() == jpeg(3)


def test_the_first_of_each_split_are_taken(tmp_path: Path) -> None:
    lay_out(tmp_path / "in", {name: jpeg() for name in NAMES})
    splits = zip(NAMES, ("train", "val", "train", "train"), strict=True)
    records = {name: Record(f"images/{name}", split) for name, split in splits}
    summary, found = written(tmp_path / "out", PublishedDataset(ImageFiles([tmp_path / "in"]), records), 1)
    assert [record.file_name for record in found] == ["images/c.jpg", "images/a.jpg"]
    assert summary.left_out == {"images beyond the limit": 2}


def test_segmentations_come_in_any_order_and_only_where_they_belong(tmp_path: Path) -> None:
    lay_out(
        tmp_path / "in", {name: jpeg() for name in NAMES} | {"d.jpg": b"broken", "a.png": png([[[1, 2, 3]] * 4] * 3)}
    )
    classes = np.arange(192).reshape(12, 16)
    asked: list[str] = []

    def maps(chosen: Sequence[str]) -> list[tuple[str, bytes]]:
        asked.extend(chosen)
        return [(name, png(classes)) for name in ("d.jpg", "a.jpg", "c.jpg", "a.png")]

    published = PublishedDataset(
        ImageFiles([tmp_path / "in"]),
        {name: record(name) for name in (*NAMES, "a.png")},
        segmentations=maps,
        classes={0: "sky", 7: "sea"},
    )
    summary, found = written(tmp_path / "out", published)
    assert asked == [*NAMES, "a.png"]
    assert [each.segmentation for each in found] == ["segmentation/c.png", "segmentation/a.png", None, None]
    assert (load_segmentation(tmp_path / "out/segmentation/a.png") == classes).all()
    assert sorted(path.name for path in (tmp_path / "out/segmentation").iterdir()) == ["a.png", "c.png"]
    assert summary.others == {"segmentations": 2}
    assert json.loads((tmp_path / "out/segmentation_classes.json").read_text()) == {"0": "sky", "7": "sea"}


def test_annotations_follow_the_size_of_the_image(tmp_path: Path) -> None:
    """Of an image that is there at half of the size, and of one that EXIF rotates."""
    lay_out(tmp_path / "in", {"a.jpg": jpeg(0, 8, 6), "b.jpg": jpeg(0, 6, 8, orientation=6)})
    boxes = {"objects": (NamedBox((2, 4, 6, 8), "dog"),)}
    classes = np.arange(192).reshape(12, 16)
    published = PublishedDataset(
        ImageFiles([tmp_path / "in"]),
        {name: record(name, **boxes) for name in ("a.jpg", "b.jpg")},
        {"a.jpg": (16, 12), "b.jpg": (12, 16)},
        segmentations=lambda chosen: [("a.jpg", png(classes)), ("b.jpg", png(classes.T))],
    )
    summary, (first, second) = written(tmp_path / "out", published)
    assert first.objects == (NamedBox((1, 2, 3, 4), "dog"),)
    assert (load_segmentation(tmp_path / "out/segmentation/a.png") == classes[1::2, 1::2]).all()
    assert (second.objects, second.segmentation) == ((), None)
    assert summary.left_out == {"boxes of images that EXIF rotates": 1, "segmentations of images that EXIF rotates": 1}


def test_no_record(tmp_path: Path) -> None:
    lay_out(tmp_path / "in", {"a.jpg": jpeg()})
    with pytest.raises(DataError, match=r"None of the images that the annotations list is in .*in\.$"):
        PublishedDataset(ImageFiles([tmp_path / "in"]), {}).write(tmp_path / "out")
    assert not (tmp_path / "out").exists()
