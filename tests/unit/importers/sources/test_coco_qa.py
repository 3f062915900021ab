"""The COCO-QA reader on tiny copies of the published layout, and on real questions where they are there."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from published import imported, jpeg, lay_out, pack

from tavq.core.errors import DataError
from tavq.data.records import Question, Record
from tavq.importers.importing import sources


def read_table(*rows: tuple[str, str, str, str]) -> dict[str, str]:
    names = ("questions", "answers", "img_ids", "types")
    return {f"{name}.txt": "".join(f"{row[place]}\n" for row in rows) for place, name in enumerate(names)}


TRAIN = read_table(
    ("what is on the sofa", "cat", "1", "0"),
    ("how many dogs run", "two", "2", "1"),
    ("what is the color of the cat", "black", "1", "2"),
)
TEST = read_table(("where is the boat", "lake", "3", "3"))


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images of train2014 in a folder, one of val2014 in a zip file."""
    folder = lay_out(tmp_path / "qa", {f"train/{name}": text for name, text in TRAIN.items()})
    lay_out(folder, {f"test/{name}": text for name, text in TEST.items()})
    lay_out(folder, {f"train2014/COCO_train2014_{n:012d}.jpg": jpeg() for n in (1, 2)})
    pack(folder / "val2014.zip", {f"val2014/COCO_val2014_{3:012d}.jpg": jpeg()})
    return folder


def run(source: Path, **settings: Any) -> tuple[Any, list[Record]]:
    return imported("coco-qa", source, source.parent / "out", **settings)


def test_questions(source: Path) -> None:
    summary, records = run(source)
    assert summary.images == {"train": 2, "test": 1}
    assert summary.others == {"questions": 4}
    assert summary.left_out == {}
    cat = Question("what is on the sofa", "cat", "object"), Question("what is the color of the cat", "black", "color")
    assert records == [
        Record("images/COCO_train2014_000000000001.jpg", "train", questions=cat),
        Record(
            "images/COCO_train2014_000000000002.jpg",
            "train",
            questions=(Question("how many dogs run", "two", "number"),),
        ),
        Record(
            "images/COCO_val2014_000000000003.jpg",
            "test",
            questions=(Question("where is the boat", "lake", "location"),),
        ),
    ]


def test_a_missing_folder_is_counted(source: Path) -> None:
    (source / "train").rename(source / "elsewhere")
    summary, _ = run(source)
    assert summary.images == {"test": 1}
    assert summary.left_out["missing folders (train)"] == 1


def test_json_lines_and_images_of_2017(tmp_path: Path) -> None:
    lines = '{"index": 2, "image_id": 3, "question": "where is it", "answer": "lake", "type": "location"}\n'
    lay_out(tmp_path / "qa", {"cocoqa_test_partial.jsonl": lines + "3\n", "val2017/000000000003.jpg": jpeg()})
    summary, records = run(tmp_path / "qa")
    assert records == [
        Record("images/000000000003.jpg", "test", questions=(Question("where is it", "lake", "location"),))
    ]
    assert summary.left_out == {"entries that are not JSON objects": 1}


def test_unusable_entries_are_counted(source: Path) -> None:
    rows = [("q", "a", "1", "0"), ("", "a", "1", "0"), ("q", " ", "1", "0"), ("q", "a", "x", "0"), ("q", "a", "1", "4")]
    rows += [("q", "a", "77", "0"), ("q", "a", "3", "0"), ("q", "a", "²", "0"), ("q", "a", "9" * 5000, "0")]
    lay_out(source, {f"train/{name}": text for name, text in read_table(*rows).items()})
    summary, records = run(source)
    assert [len(record.questions) for record in records] == [1, 1]
    assert summary.left_out == {
        "questions that are empty or have no answer": 2,
        "questions whose image is not a number": 3,
        "questions of an unknown type": 1,
        "questions whose images have no file": 1,
        "questions whose images belong to another split than train": 1,
        "listed images without a file": 1,
        "images without annotations": 1,
    }


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda s: [(s / split).rename(s / f"{split}_") for split in ("train", "test")],
            r"no questions in .*train/quest",
        ),
        (lambda s: (s / "train/types.txt").unlink(), r"no file types\.txt in .*train, which has questions\.txt"),
        (lambda s: lay_out(s, {"train/answers.txt": "cat\n"}), r"equally many lines.*questions\.txt 3, answers\.txt 1"),
        (lambda s: [(s / "train2014").rename(s / "x"), (s / "val2014.zip").unlink()], "no images in"),
    ],
)
def test_a_wrong_layout_is_an_error(source: Path, change: Callable[[Path], Any], message: str) -> None:
    change(source)
    with pytest.raises(DataError, match=message):
        sources["coco-qa"]().run(source, source.parent / "out")
    assert not (source.parent / "out").exists()


def test_several_tables_of_a_split(tmp_path: Path) -> None:
    lay_out(tmp_path, {"cocoqa_test_a.jsonl": "", "cocoqa_test_b.jsonl": "", "images/000000000003.jpg": jpeg()})
    with pytest.raises(DataError, match=r"several files for one split: cocoqa_test_a\.jsonl, cocoqa_test_b\.jsonl"):
        sources["coco-qa"]().run(tmp_path, tmp_path / "out")


@pytest.mark.real_data
def test_the_real_questions(real_data: Path, tmp_path: Path) -> None:
    folder = tmp_path / "qa"
    folder.mkdir()
    (folder / "cocoqa_test_partial.jsonl").symlink_to(real_data / "coco_qa/cocoqa_test_partial.jsonl")
    (folder / "images320.tar").symlink_to(real_data / "coco_subset/images320.tar")
    summary, records = run(folder)
    assert summary.images == {"test": 277}
    assert summary.others == {"questions": 444}
    assert summary.left_out["questions whose images have no file"] == 26957 - 444
    assert Question("what is the color of the pole", "black", "color") in records[0].questions
