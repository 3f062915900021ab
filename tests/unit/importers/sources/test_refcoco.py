"""The RefCOCO reader on tiny copies of the published layout, and on real expressions where they are there."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import imported, jpeg, lay_out, pack

from tavq.core.errors import DataError, FileError
from tavq.data.records import NamedBox
from tavq.importers.importing import sources


def name_of(number: int) -> str:
    return f"COCO_train2014_{number:012d}.jpg"


INSTANCES = {
    "images": [{"id": n, "file_name": name_of(n), "width": 16, "height": 12} for n in (1, 2, 3, 4)],
    "annotations": [
        {"id": 10 * n + k, "image_id": n, "category_id": 1 + k, "bbox": [k, 1, 4, 5]}
        for n in (1, 2, 3, 4)
        for k in (0, 1)
    ],
    "categories": [{"id": 1, "name": "person"}, {"id": 2, "name": "dog"}],
}


def reference(annotation: int, split: str, *phrases: Any) -> dict[str, Any]:
    sentences = [{"sent": text, "raw": f"RAW {text}", "tokens": [], "sent_id": 0} for text in phrases]
    image = annotation // 10
    file_name = f"COCO_train2014_{image:012d}_{annotation}.jpg"
    numbers = {"ann_id": annotation, "ref_id": 5, "image_id": image, "category_id": 1, "sent_ids": [0]}
    return {**numbers, "file_name": file_name, "split": split, "sentences": sentences}


REFERENCES = [
    reference(10, "train", "left man", "man on left"),
    reference(11, "train", "the dog"),
    reference(10, "train", "man on left", "the tall one"),
    reference(20, "val", "woman"),
    reference(30, "testA", "boy"),
    reference(41, "testB", "brown dog"),
]


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """The folder refcoco as `refer` lays it out, beside images/mscoco/images/train2014."""
    images = {f"images/mscoco/images/train2014/{name_of(n)}": jpeg() for n in (1, 2, 3, 4)}
    lay_out(tmp_path / "data", {"refcoco/instances.json": INSTANCES, **images})
    lay_out(tmp_path / "data/refcoco", {"refs(unc).p": pickle.dumps(REFERENCES, 0)})
    return tmp_path / "data/refcoco"


def run(source: Path, **settings: Any) -> tuple[Any, dict[str, Any]]:
    summary, records = imported("refcoco", source, source.parent.parent / "out", **settings)
    return summary, {Path(record.file_name).stem[-1]: record for record in records}


@pytest.mark.parametrize("protocol", [0, 2, 4])
def test_references(source: Path, protocol: int) -> None:
    lay_out(source, {"refs(unc).p": pickle.dumps(REFERENCES, protocol)})
    summary, records = run(source)
    assert summary.images == {"train": 1, "val": 1, "test": 2}
    assert summary.others == {"objects": 5, "phrases of objects": 7}
    assert summary.left_out == {}
    assert records["1"].objects == (
        NamedBox((0, 1, 4, 5), "person", ("left man", "man on left", "the tall one")),
        NamedBox((1, 1, 4, 5), "dog", ("the dog",)),
    )
    assert {number: record.split for number, record in records.items()} == {
        "1": "train",
        "2": "val",
        "3": "test",
        "4": "test",
    }
    assert records["4"].objects[0].name == "dog"


def test_googles_partition_tests_on_no_training_image(source: Path) -> None:
    (source / "refs(unc).p").unlink()
    split = [reference(10, "train", "left man"), reference(11, "val", "the dog"), reference(20, "train", "woman")]
    lay_out(source, {"refs(google).p": pickle.dumps(split, 2)})
    summary, records = run(source)
    assert records["1"].split == "val"
    assert [thing.phrases for thing in records["1"].objects] == [("the dog",)]
    assert summary.left_out == {"references to an image of another split": 1, "images without annotations": 2}


def test_the_partition_without_shared_images_comes_first(source: Path) -> None:
    lay_out(source, {"refs(google).p": b"never read"})
    summary, _ = run(source)
    assert summary.left_out == {"partitions other than refs(unc).p (refs(google).p)": 1}


def test_images_of_2017_in_an_archive_and_smaller(source: Path) -> None:
    """An image of 2014 is the one of the same number of 2017."""
    (source.parent / "images").rename(source.parent / "photos")
    pack(source / "train2017.zip", {f"train2017/{1:012d}.jpg": jpeg(0, 8, 6)})
    summary, records = run(source)
    assert summary.left_out == {"listed images without a file": 3}
    assert records["1"].file_name == "images/000000000001.jpg"
    assert records["1"].objects[0].box == (0, 0.5, 2, 2.5)


def test_unusable_entries_are_counted(source: Path) -> None:
    wrong = [
        reference(10, "train", "left man", "", 3),
        reference(10, "trial", "x"),
        reference(990, "train", "x"),
        reference(12, "train", "x"),
        {**reference(20, "train", "x"), "image_id": 1},
        {**reference(20, "train", "x"), "sentences": 3},
        {"split": "train"},
        3,
    ]
    lay_out(source, {"refs(unc).p": pickle.dumps(wrong, 2)})
    summary, records = run(source)
    assert [thing.phrases for thing in records["1"].objects] == [("left man",)]
    assert summary.left_out == {
        "phrases that are empty or not text": 2,
        "references of an unknown split": 1,
        "references to an unknown image, box or category": 5,
        "entries that are not JSON objects": 1,
        "images without annotations": 3,
    }


class Harm:
    """Runs code when it is unpickled."""

    def __reduce__(self) -> Any:
        return print, ("harm",)


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda s: (s / "refs(unc).p").unlink(),
            DataError,
            r"no references in .*expected refs\(unc\)\.p, .*refcocos_test\.json\.",
        ),
        (
            lambda s: (s / "instances.json").unlink(),
            DataError,
            r"no file instances\.json in .*refs\(unc\)\.p needs",
        ),
        (lambda s: lay_out(s, {"refs(unc).p": pickle.dumps({}, 2)}), DataError, r"refs\(unc\)\.p must hold a list"),
        (lambda s: lay_out(s, {"refs(unc).p": pickle.dumps([Harm()], 2)}), FileError, "more than plain values"),
        (lambda s: lay_out(s, {"refs(unc).p": b"text"}), FileError, "not a valid pickle"),
        (lambda s: lay_out(s, {"instances.json": {"images": []}}), DataError, "with a list 'annotations'"),
        (lambda s: (s.parent / "images").rename(s.parent / "photos"), DataError, "no images in"),
    ],
)
def test_a_wrong_layout_is_an_error(source: Path, change: Callable[[Path], Any], error: Any, message: str) -> None:
    change(source)
    with pytest.raises(error, match=message):
        sources["refcoco"]().run(source, source.parent.parent / "out")
    assert [path.name for path in source.parent.parent.iterdir()] == ["data"]


def test_expressions_with_corners(tmp_path: Path) -> None:
    def entry(text: Any, corners: Any, **more: Any) -> dict[str, Any]:
        return {
            "file_name": "000000000001.jpg",
            "normal_caption": text,
            "solution": corners,
            "width": 16,
            "height": 12,
            **more,
        }

    entries = [
        entry("left man", [1, 2, 5, 8]), entry("man on left", [1, 2, 5, 8]), entry("nobody", None),
        entry("", [1, 2, 5, 8]), entry("wrong", [5, 2, 1, 8]), entry("wrong", [1, 2, 5, "8"]),
        entry("far", [1, 2, 50, 8]), entry("off", [17, 2, 50, 8]),
        entry("gone", [1, 2, 5, 8], file_name="000000000002.jpg"), 3,
    ]  # fmt: skip
    lay_out(tmp_path / "a/b", {"refcocos_test.json": entries, "images/000000000001.jpg": jpeg(0, 8, 6)})
    summary, records = run(tmp_path / "a/b")
    assert records["1"].split == "test"
    assert records["1"].objects == (
        NamedBox((0.5, 1, 2, 3), "object", ("left man", "man on left")),
        NamedBox((0.5, 1, 7.5, 3), "object", ("far",)),
    )
    assert summary.left_out == {
        "expressions that match nothing in their image": 1,
        "expressions without a file name, a text or a box": 3,
        "boxes outside their image": 1,
        "parts of boxes beyond the edge of their image": 1,
        "listed images without a file": 1,
        "entries that are not JSON objects": 1,
    }


@pytest.mark.real_data
def test_the_real_expressions(real_data: Path, tmp_path: Path) -> None:
    """506 expressions, 25 of them of nothing; 74 others are on images that are here, at half of their size."""
    folder = tmp_path / "a/refs"
    folder.mkdir(parents=True)
    (folder / "refcocos_test.json").symlink_to(real_data / "refexp/refcocos_test.json")
    (folder / "images320.tar").symlink_to(real_data / "coco_subset/images320.tar")
    summary, records = imported("refcoco", folder, tmp_path / "out")
    assert summary.images == {"test": 66}
    assert summary.others == {"objects": 72, "phrases of objects": 74}
    assert summary.left_out["expressions that match nothing in their image"] == 25
    first = next(record for record in records if record.file_name == "images/000000009590.jpg")
    x, y, w, h = first.objects[0].box  # of the original of 640 x 427 pixels [255, 179, 330, 254]
    assert (x, w) == (127.5, 37.5)
    assert y == pytest.approx(179 / 2, rel=0.01)
    assert h == pytest.approx(75 / 2, rel=0.01)
    assert first.objects[0].phrases == ("person not holding anything",)
