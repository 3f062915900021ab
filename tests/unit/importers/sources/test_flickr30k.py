"""The Flickr30k importer on tiny copies of the layouts in which it is passed on."""

import json
from pathlib import Path

import pytest
from published import imported, jpeg, lay_out

from tavq.core.errors import DataError
from tavq.data.records import Record
from tavq.importers.importing import ImportSummary, sources

TOKENS = "1.jpg#1\tTwo dogs .\n1.jpg#0\tA dog .\n2.jpg#0\tA cat .\n3.jpg#0\tA cow .\n4.jpg#0\t .\n9.jpg#0\tGone .\n"
TABLE = "image_name| comment_number| comment\n1.jpg| 0| A dog .\n1.jpg| 4   A dog runs .\n2.jpg| 0| One | two .\n"


@pytest.fixture
def source(tmp_path: Path) -> Path:
    images = {f"flickr30k-images/{number}.jpg": jpeg(number) for number in (1, 2, 3, 4)}
    return lay_out(tmp_path / "published", {"results_20130124.token": TOKENS, **images})


def test_without_a_split_all_are_for_training(source: Path, tmp_path: Path) -> None:
    summary, records = imported("flickr30k", source, tmp_path / "out")
    assert summary == ImportSummary(
        {"train": 3},
        4,
        {
            "images without annotations": 1,
            "listed images without a file": 1,
            "captions that are empty or not text": 1,
        },
    )
    assert records[0] == Record("images/1.jpg", "train", ("A dog .", "Two dogs ."))


def test_the_split_of_karpathy(source: Path, tmp_path: Path) -> None:
    rows = [{"filename": f"{number}.jpg", "split": split} for number, split in enumerate(("val", "restval", "test"), 1)]
    lay_out(source, {"dataset_flickr30k.json": json.dumps({"images": rows}), "train.txt": "1\n"})
    _, records = imported("flickr30k", source, tmp_path / "out")
    assert [record.split for record in records] == ["val", "train", "test"]


def test_the_split_of_the_entities(source: Path, tmp_path: Path) -> None:
    lay_out(source, {"train.txt": "2\n", "val.txt": "3\n", "test.txt": "8\n"})
    summary = sources["flickr30k"]().run(source, tmp_path / "out")
    assert summary.images == {"train": 1, "val": 1}
    assert summary.left_out["images that belong to no split"] == 1


def test_the_table_with_its_broken_line(source: Path, tmp_path: Path) -> None:
    (source / "results_20130124.token").unlink()
    (source / "flickr30k-images").rename(source / "images")
    (source / "flickr30k_images").mkdir()
    (source / "images").rename(source / "flickr30k_images/flickr30k_images")
    (source / "flickr30k_images/results.csv").write_text(TABLE)
    _, records = imported("flickr30k", source, tmp_path / "out")
    assert [record.captions for record in records] == [("A dog .", "A dog runs ."), ("One | two .",)]


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ({"results_20130124.token": "1.jpg A dog"}, r"results_20130124\.token line 1 is '1\.jpg A dog'"),
        ({"dataset_flickr30k.json": "[]"}, "is not Karpathy's list"),
        ({"dataset_flickr30k.json": '{"images": [{"filename": "1.jpg", "split": "x"}]}'}, "is not Karpathy's list"),
        ({"dataset_flickr30k.json": '{"images": [{"filename": [], "split": "val"}]}'}, "is not Karpathy's list"),
        ({"dataset_flickr30k.json": '{"images": []}'}, "None of the images that the annotations list is in"),
    ],
)
def test_a_wrong_layout_is_an_error(source: Path, tmp_path: Path, files: dict[str, str], message: str) -> None:
    lay_out(source, files)
    with pytest.raises(DataError, match=message):
        sources["flickr30k"]().run(source, tmp_path / "out")


def test_missing_files_are_named(source: Path, tmp_path: Path) -> None:
    (source / "flickr30k-images").rename(tmp_path / "away")
    with pytest.raises(DataError, match=r"no images in .*flickr30k-images.*flickr30k\*, or archives"):
        sources["flickr30k"]().run(source, tmp_path / "out")
    (source / "results_20130124.token").unlink()
    with pytest.raises(DataError, match=r"no file results_20130124\.token in"):
        sources["flickr30k"]().run(source, tmp_path / "out")
    (source / "results.csv").write_text("image_name| comment_number| comment\n1.jpg, 0, A dog\n")
    with pytest.raises(DataError, match=r"results\.csv line 2 is '1\.jpg, 0, A dog'; expected NAME"):
        sources["flickr30k"]().run(source, tmp_path / "out")
