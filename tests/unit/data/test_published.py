"""What all readers of published data sets do alike: boxes, sizes, foreign JSON."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from published_layouts import jpeg, write

from tavq.core.errors import DataError, FileError, UsageError
from tavq.data.archives import FoundPictures
from tavq.data.folder import FolderDataset, check
from tavq.data.published import Drafts, fit_box, identity, read_box, read_lists, read_size
from tavq.data.records import NamedBox, Question, Record


def test_boxes_follow_their_picture() -> None:
    assert fit_box((10, 20, 30, 40), (100, 100), (100, 100)) == (10, 20, 30, 40)
    assert fit_box((10, 20, 30, 40), (100, 200), (50, 50)) == (5, 5, 15, 10)
    assert fit_box((-0.5, 0, 101, 10), (100, 100), (100, 100)) == (0, 0, 100, 10)
    assert fit_box((-1.5, 0, 20, 10), (100, 100), (100, 100)) is None
    assert fit_box((90, 0, 12, 10), (100, 100), (100, 100)) is None
    assert fit_box((0, 95, 1, 6.5), (100, 100), (100, 100)) is None
    assert fit_box((100, 0, 0.5, 10), (100, 100), (100, 100)) is None
    assert fit_box((0, 0, 1, 1), (10**6, 10), (10, 10)) is None


sides = st.integers(1, 5000)
places = st.floats(-10, 6000)


@given(st.tuples(places, places, places, places), st.tuples(sides, sides), st.tuples(sides, sides))
def test_a_fitted_box_is_inside(box: tuple[float, ...], size: tuple[int, int], into: tuple[int, int]) -> None:
    fitted = fit_box(box, size, into)  # type: ignore[arg-type]
    if fitted is not None:
        x, y, w, h = fitted
        assert min(x, y) >= 0
        assert min(w, h) > 0
        assert x + w <= into[0] + 0.01
        assert y + h <= into[1] + 0.01


def test_foreign_values() -> None:
    assert read_box([1, 2, 3, 4.5]) == (1, 2, 3, 4.5)
    for value in (None, [1, 2, 3], [1, 2, 0, 4], [1, 2, 3, "4"], [1, 2, float("nan"), 4], [1, 2, 3, 10**400], "1234"):
        assert read_box(value) is None
    assert read_size({"width": 3, "height": 4}) == (3, 4)
    for size in ({}, {"width": 0, "height": 4}, {"width": "3", "height": 4}, {"width": 10**6, "height": 10**6}):
        assert read_size(size) is None
    assert identity({"id": 3}, "id") == 3
    assert identity({"id": [3]}, "id") is identity({"id": True}, "id") is identity({}, "id") is None


@pytest.mark.parametrize("content", [[], {}, {"images": 3}, {"images": {}}, 3])
def test_json_of_another_layout(tmp_path: Path, content: Any) -> None:
    write(tmp_path, {"a.json": content})
    with pytest.raises(DataError, match=r"a\.json has no list 'images'"):
        read_lists(tmp_path / "a.json", ["images"], Counter())


def test_broken_json(tmp_path: Path) -> None:
    write(tmp_path, {"a.json": '{"images": ['})
    with pytest.raises(FileError, match=r"a\.json is not valid JSON"):
        read_lists(tmp_path / "a.json", ["images"], Counter())


def test_drafts_become_a_data_set(tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.jpg": jpeg(20, 10), "b.jpg": jpeg(20, 10, orientation=6), "c.jpg": b"no picture"})
    drafts = Drafts(FoundPictures([tmp_path / "in"]))
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
    assert summary.pictures == {"train": 2}
    assert summary.others == {"objects": 1, "phrases of objects": 1, "questions": 2}
    assert summary.left_out == {
        "captions that are empty or no text": 18,
        "listed pictures without a file": 1,
        "pictures that cannot be read": 1,
        "boxes outside of their picture": 1,
        "boxes of pictures that EXIF turns": 2,
    }
    assert next(iter(FolderDataset(tmp_path / "out"))) == Record(
        "images/a.jpg",
        "train",
        ("A cat.",),
        None,
        (NamedBox((1, 2, 3, 4), "cat", ("the cat",)),),
        (Question("what", "cat"),),
    )
    assert check(tmp_path / "out") == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_nothing_is_written_where_nothing_can_be(tmp_path: Path) -> None:
    write(tmp_path / "in", {"a.jpg": b"no picture"})
    drafts = Drafts(FoundPictures([tmp_path / "in"]))
    drafts.add(None, "b.jpg", "train")
    with pytest.raises(DataError, match="None of the 1 pictures that the annotations list"):
        drafts.write(tmp_path / "out", None, None)
    drafts.add("a.jpg", "a.jpg", "train")
    with pytest.raises(DataError, match="None of the pictures can be read"):
        drafts.write(tmp_path / "out", None, None)
    write(tmp_path / "out", {"thesis.txt": "years of work"})
    with pytest.raises(UsageError, match="already holds something"):
        drafts.write(tmp_path / "out", None, None)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]
