"""The reader of Karpathy's JSON on tiny copies of published layouts, and on UCM-Captions where it is there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import imported, jpeg, lay_out, pack

from tavq.core.errors import DataError, FileError
from tavq.data.records import Record
from tavq.importers.importing import sources


def entry(name: Any, split: Any, *captions: str, **more: Any) -> dict[str, Any]:
    sentences = [{"raw": text, "tokens": text.lower().split(), "imgid": 0, "sentid": 0} for text in captions]
    return {"filename": name, "split": split, "sentences": sentences, "imgid": 0, "sentids": [], **more}


def coco(number: int, of: str) -> str:
    return f"COCO_{of}2014_{number:012d}.jpg"


COCO = [
    entry(coco(1, "val"), "test", "A dog .", "Dog runs", filepath="val2014", cocoid=1),
    entry(coco(2, "train"), "train", "A cat.", filepath="train2014", cocoid=2),
    entry(coco(3, "val"), "restval", "A bird.", filepath="val2014", cocoid=3),
    entry(coco(4, "val"), "val", "A fish.", filepath="val2014", cocoid=4),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """dataset_coco.json, train2014 as a folder and val2014 as a zip file."""
    folder = lay_out(tmp_path / "coco", {"dataset_coco.json": {"images": COCO, "dataset": "coco"}})
    lay_out(folder, {f"train2014/{coco(2, 'train')}": jpeg()})
    pack(folder / "val2014.zip", {f"val2014/{coco(n, 'val')}": jpeg() for n in (1, 3, 4)})
    return folder


def run(source: Path, **settings: Any) -> tuple[Any, list[Record]]:
    return imported("karpathy", source, source.parent / "out", **settings)


def test_captions_and_splits(source: Path) -> None:
    summary, records = run(source)
    assert summary.images == {"train": 2, "val": 1, "test": 1}
    assert summary.captions == 5
    assert summary.left_out == summary.others == {}
    assert records == [
        Record(f"images/{coco(2, 'train')}", "train", ("A cat.",)),
        Record(f"images/{coco(3, 'val')}", "train", ("A bird.",)),
        Record(f"images/{coco(4, 'val')}", "val", ("A fish.",)),
        Record(f"images/{coco(1, 'val')}", "test", ("A dog .", "Dog runs")),
    ]


@pytest.mark.parametrize("place", ["flickr30k-images", "images", "Flicker8k_Dataset", "imgs"])
def test_folders_of_images(tmp_path: Path, place: str) -> None:
    lay_out(
        tmp_path / "f30k",
        {"dataset_flickr30k.json": {"images": [entry("9.jpg", "val", "One")]}, f"{place}/9.jpg": jpeg()},
    )
    _, records = run(tmp_path / "f30k")
    assert records == [Record("images/9.jpg", "val", ("One",))]


def test_another_suffix_is_accepted_and_counted(tmp_path: Path) -> None:
    lay_out(tmp_path / "ucm", {"dataset.json": {"images": [entry("1.tif", "train", "A farm")]}})
    pack(tmp_path / "ucm/images_128.tar", {"1.jpg": jpeg(), "11.jpg": jpeg()})
    summary, records = run(tmp_path / "ucm")
    assert records == [Record("images/1.jpg", "train", ("A farm",))]
    assert summary.others == {"images with another suffix than listed": 1}
    assert summary.left_out == {"images without annotations": 1}


def test_unusable_entries_are_counted(source: Path) -> None:
    only_tokens = {**entry(coco(1, "val"), "test"), "sentences": [{"tokens": ["a", "dog"]}, {"raw": 3}, {}, "text"]}
    images = [only_tokens, entry(coco(1, "val"), "test", "again"), entry(3, "test"), entry("a.jpg", "trial"), 3]
    images += [entry("../gone.jpg", "val", "x"), {**entry(coco(3, "val"), ["val"])}, entry(coco(4, "val"), "val")]
    lay_out(source, {"dataset_coco.json": {"images": [*images, {**entry(coco(2, "train"), "train"), "sentences": 3}]}})
    summary, records = run(source)
    assert [record.captions for record in records] == [(), (), ("a dog",)]
    assert summary.left_out == {
        "images without a file name, or with a repeated one": 2,
        "images of an unknown split": 2,
        "entries that are not JSON objects": 2,
        "captions that are empty or not text": 2,
        "listed images without a file": 1,
        "images without annotations": 1,
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda s: (s / "dataset_coco.json").unlink(),
            DataError,
            r"exactly one dataset\.json or .*; it holds none",
        ),
        (lambda s: lay_out(s, {"dataset.json": {}}), DataError, r"it holds dataset\.json, dataset_coco\.json"),
        (lambda s: lay_out(s, {"dataset_coco.json": {"images": 3}}), DataError, "with a list 'images'"),
        (lambda s: lay_out(s, {"dataset_coco.json": "no"}), FileError, "not valid JSON"),
        (lambda s: [(s / "val2014.zip").unlink(), (s / "train2014").rename(s / "x")], DataError, "no images in"),
    ],
)
def test_a_wrong_layout_is_an_error(source: Path, change: Callable[[Path], Any], error: Any, message: str) -> None:
    change(source)
    with pytest.raises(error, match=message):
        sources["karpathy"]().run(source, source.parent / "out")
    assert not (source.parent / "out").exists()


@pytest.mark.real_data
def test_the_real_one(real_data: Path, tmp_path: Path) -> None:
    summary, records = imported("karpathy", real_data / "ucm_captions", tmp_path / "out", limit=100)
    assert summary.images == {"train": 100, "val": 100, "test": 100}
    assert summary.captions == 1500
    assert summary.others == {"images with another suffix than listed": 2100}
    assert summary.left_out == {"images beyond the limit": 1800}
    assert records[0].captions[:2] == (
        "There is a piece of farmland .",
        "There is a piece of cropland .",
    )
