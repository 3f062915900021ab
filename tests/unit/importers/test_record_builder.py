"""Drafts become records of the images that are really there."""

from pathlib import Path

import pytest
from published import jpeg, lay_out

from tavq.core.errors import DataError, UsageError
from tavq.data.folder import FolderDataset, check_dataset
from tavq.data.records import NamedBox, Question, Record
from tavq.importers.archives import ImageFiles
from tavq.importers.record_builder import DatasetBuilder


def test_builders_become_a_data_set(tmp_path: Path) -> None:
    lay_out(tmp_path / "in", {"a.jpg": jpeg(0, 20, 10), "b.jpg": jpeg(0, 20, 10, orientation=6), "c.jpg": b"no image"})
    dataset = DatasetBuilder(ImageFiles([tmp_path / "in"]))
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        builder = dataset.add(name, name, "train", (40, 20))
        assert builder is not None
        builder.objects += [NamedBox((2, 4, 6, 8), "cat", ("the cat",)), NamedBox((35, 0, 9, 9), "dog")]
        builder.questions.append(Question("what", "cat"))
        for caption in ("  A cat. \n", "", " . ", 3, "\0", "\ud800", "x" * 200_000):
            builder.add_caption(caption, dataset.left_out)
    assert dataset.add("a.jpg", "a.jpg", "test") is None
    assert dataset.add(None, "d.jpg", "test") is None
    seen: list[tuple[int, int]] = []
    summary = dataset.write(tmp_path / "out", lambda done, total: seen.append((done, total)), None)
    assert summary.images == {"train": 2}
    assert summary.others == {"objects": 2, "phrases of objects": 1, "questions": 2}
    assert summary.left_out == {
        "captions that are empty or not text": 15,
        "captions of more than 100,000 characters": 3,
        "listed images without a file": 1,
        "images that cannot be read": 1,
        "parts of boxes beyond the edge of their image": 1,
        "boxes of images that EXIF rotates": 2,
    }
    assert next(iter(FolderDataset(tmp_path / "out"))) == Record(
        "images/a.jpg",
        "train",
        ("A cat.",),
        None,
        (NamedBox((1, 2, 3, 4), "cat", ("the cat",)), NamedBox((17.5, 0, 2.5, 4.5), "dog")),
        (Question("what", "cat"),),
    )
    assert check_dataset(tmp_path / "out") == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_is_written_where_nothing_can_be(tmp_path: Path) -> None:
    def write(*names: str) -> None:
        dataset = DatasetBuilder(ImageFiles([tmp_path / "in"]))
        dataset.add(None, "b.jpg", "train")
        for name in names:
            dataset.add(name, name, "train")
        dataset.write(tmp_path / "out", None, None)

    lay_out(tmp_path / "in", {"a.jpg": b"no image"})
    with pytest.raises(DataError, match=r"None of the images that the annotations list is in .*in: 1 listed images"):
        write()
    with pytest.raises(DataError, match="no images to import: 1 listed images without a file, 1 images that cannot"):
        write("a.jpg")
    lay_out(tmp_path / "out", {"thesis.txt": "years of work"})
    with pytest.raises(UsageError, match="already exists and is not empty"):
        write("a.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
