"""The TextCaps reader on tiny copies of the published layout."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import imported, jpeg, lay_out, pack

from tavq.core.errors import DataError, FileError
from tavq.data.records import Record
from tavq.importers.importing import sources


def entry(number: str, split: str = "train", caption: str | None = None, **more: Any) -> dict[str, Any]:
    fields = {"image_id": number, "image_path": f"{split}/{number}.jpg", "set_name": split, "image_width": 16, **more}
    return fields if caption is None else {**fields, "caption_id": 0, "caption_str": caption}


def published(*entries: Any) -> dict[str, Any]:
    return {"dataset_type": "train", "dataset_name": "textcaps", "dataset_version": 0.1, "data": [*entries]}


FILES = {
    "TextCaps_0.1_train.json": published(
        entry("0a", caption="A sign says stop."),
        entry("0b", caption="A bottle of milk"),
        entry("0a", caption="Stop is written on it", reference_strs=["not read, for each caption has an entry"]),
    ),
    "TextCaps_0.1_val.json": published(*[entry("0c", reference_strs=["One", "Two", ""])] * 2),
    "TextCaps_0.1_test.json": published(entry("0d", "test")),
}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Three images in train_images and one in test_images."""
    images = {f"train_images/{number}.jpg": jpeg() for number in ("0a", "0b", "0c")}
    return lay_out(tmp_path / "textcaps", {**FILES, **images, "test_images/0d.jpg": jpeg()})


def run(source: Path, **settings: Any) -> tuple[Any, list[Record]]:
    return imported("textcaps", source, source.parent / "out", **settings)


def test_captions(source: Path) -> None:
    summary, records = run(source)
    assert summary.images == {"train": 2, "val": 1, "test": 1}
    assert summary.captions == 5
    assert summary.left_out == {"captions that are empty or not text": 1}
    assert records == [
        Record("images/0a.jpg", "train", ("A sign says stop.", "Stop is written on it")),
        Record("images/0b.jpg", "train", ("A bottle of milk",)),
        Record("images/0c.jpg", "val", ("One", "Two")),
        Record("images/0d.jpg", "test"),
    ]


def test_the_published_archive_and_one_split(tmp_path: Path) -> None:
    lay_out(tmp_path / "textcaps", {"TextCaps_0.1_val.json": FILES["TextCaps_0.1_val.json"]})
    pack(tmp_path / "textcaps/train_val_images.zip", {"train_images/0c.jpg": jpeg(), "train_images/0a.jpg": jpeg()})
    summary, records = run(tmp_path / "textcaps")
    assert [record.file_name for record in records] == ["images/0c.jpg"]
    assert summary.left_out == {
        "captions that are empty or not text": 1,
        "missing files (TextCaps_0.1_train.json, TextCaps_0.1_test.json)": 2,
        "images without annotations": 1,
    }


def test_unusable_entries_are_counted(source: Path) -> None:
    wrong = [entry("0a", caption=""), entry("0b", caption="Milk"), entry("9z", caption="x"), {"image_id": 3}, 3]
    lay_out(
        source,
        {"TextCaps_0.1_train.json": published(*wrong), "TextCaps_0.1_val.json": published(entry("0b", caption="x"))},
    )
    summary, records = run(source)
    assert [record.captions for record in records] == [(), ("Milk",), ()]
    assert summary.left_out == {
        "captions that are empty or not text": 1,
        "captions that name no image": 1,
        "entries that are not JSON objects": 1,
        "captions of an image of another split": 1,
        "listed images without a file": 1,
        "images without annotations": 1,
    }


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda s: [path.unlink() for path in s.glob("*.json")],
            DataError,
            r"no captions in .*TextCaps_0\.1_train\.json, ",
        ),
        (lambda s: lay_out(s, {"TextCaps_0.1_val.json": "["}), FileError, "not valid JSON"),
        (lambda s: lay_out(s, {"TextCaps_0.1_val.json": {}}), DataError, "with a list 'data'"),
        (
            lambda s: [(s / f"{part}_images").rename(s / part) for part in ("train", "test")],
            DataError,
            r"no images in .*train_val_images, train_images",
        ),
    ],
)
def test_a_wrong_layout_is_an_error(source: Path, change: Callable[[Path], Any], error: Any, message: str) -> None:
    change(source)
    with pytest.raises(error, match=message):
        sources["textcaps"]().run(source, source.parent / "out")
    assert not (source.parent / "out").exists()
