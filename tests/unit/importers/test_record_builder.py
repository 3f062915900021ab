"""Drafts become records of the images that are really there."""

from pathlib import Path

import pytest
from published import jpeg, lay_out

from tavq.core.errors import DataError, UsageError
from tavq.data.folder import FolderDataset, check
from tavq.data.records import NamedBox, Question, Record
from tavq.importers.archives import FoundImages
from tavq.importers.record_builder import RecordBuilders


def test_drafts_become_a_data_set(tmp_path: Path) -> None:
    lay_out(tmp_path / "in", {"a.jpg": jpeg(0, 20, 10), "b.jpg": jpeg(0, 20, 10, orientation=6), "c.jpg": b"no image"})
    drafts = RecordBuilders(FoundImages([tmp_path / "in"]))
    for name in ("a.jpg", "b.jpg", "c.jpg"):
        draft = drafts.add(name, name, "train", (40, 20))
        assert draft is not None
        draft.objects += [NamedBox((2, 4, 6, 8), "cat", ("the cat",)), NamedBox((35, 0, 9, 9), "dog")]
        draft.questions.append(Question("what", "cat"))
        for caption in ("  A cat. \n", "", " . ", 3, "\0", "\ud800", "x" * 200_000):
            draft.caption(caption, drafts.left_out)
    assert drafts.add("a.jpg", "a.jpg", "test") is None
    assert drafts.add(None, "d.jpg", "test") is None
    seen: list[tuple[int, int]] = []
    summary = drafts.write(tmp_path / "out", lambda done, total: seen.append((done, total)), None)
    assert summary.images == {"train": 2}
    assert summary.others == {"objects": 2, "phrases of objects": 1, "questions": 2}
    assert summary.left_out == {
        "captions that are empty or no text": 18,
        "listed images without a file": 1,
        "images that cannot be read": 1,
        "parts of boxes beyond the edge of their image": 1,
        "boxes of images that EXIF turns": 2,
    }
    assert next(iter(FolderDataset(tmp_path / "out"))) == Record(
        "images/a.jpg",
        "train",
        ("A cat.",),
        None,
        (NamedBox((1, 2, 3, 4), "cat", ("the cat",)), NamedBox((17.5, 0, 2.5, 4.5), "dog")),
        (Question("what", "cat"),),
    )
    assert check(tmp_path / "out") == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_is_written_where_nothing_can_be(tmp_path: Path) -> None:
    def write(*names: str) -> None:
        drafts = RecordBuilders(FoundImages([tmp_path / "in"]))
        drafts.add(None, "b.jpg", "train")
        for name in names:
            drafts.add(name, name, "train")
        drafts.write(tmp_path / "out", None, None)

    lay_out(tmp_path / "in", {"a.jpg": b"no image"})
    with pytest.raises(DataError, match=r"None of the images that the annotations list is in .*in: 1 listed images"):
        write()
    with pytest.raises(DataError, match="no image to import: 1 listed images without a file, 1 images that cannot"):
        write("a.jpg")
    lay_out(tmp_path / "out", {"thesis.txt": "years of work"})
    with pytest.raises(UsageError, match="already holds something"):
        write("a.jpg")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
