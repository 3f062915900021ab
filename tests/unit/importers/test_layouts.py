"""Names, lists and captions of published data sets."""

from pathlib import Path

import braceexpand
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavq.core.errors import DataError, UsageError
from tavq.data.foreign_names import expand_braces, is_image_path, parse_split, split_captions
from tavq.importers.layouts import read_image_list, read_table, require_folder


@pytest.mark.parametrize("name", ["a.jpg", "a/b.PNG", "001.Black_footed_Albatross/x y.jpeg", "é.webp"])
def test_image_paths(name: str) -> None:
    assert is_image_path(name)


@pytest.mark.parametrize(
    "name",
    [
        "", "a", "a.txt", "/a.jpg", "../a.jpg", "a/../b.jpg", "a//b.jpg", "./a.jpg", ".a.jpg", "a/.b/c.jpg", "a\nb.jpg",
        "a\\b.jpg", "a\x00.jpg", "\ud800.jpg", "a.jpg/b.jpg", "a" * 300 + ".jpg", "a/" * 500 + "b.jpg", None, 3,
        ["a.jpg"],
    ],
)  # fmt: skip
def test_paths_that_are_never_written(name: object) -> None:
    assert not is_image_path(name)


@given(st.text())
def test_an_image_path_stays_inside(name: str) -> None:
    if is_image_path(name):
        place = Path("/base").joinpath(name)
        assert ".." not in place.parts
        assert place.is_relative_to("/base")


def test_splits_by_any_name() -> None:
    assert [parse_split(name) for name in ("Training", "dev", "validation", "test", "restval", None, 1)] == [
        "train", "val", "val", "test", None, None, None,
    ]  # fmt: skip


def test_caption_lines() -> None:
    assert split_captions("A bird\n\n . \n its  bill\ufffd\ufffdis red \r\n") == ("A bird", "its bill is red")


@pytest.mark.parametrize(
    "pattern", ["a.tar", "a-{000..002}.tar", "{9..11}", "{0..10}", "{x,yy}/{01..02}.tar", "{3..1}", "{a,b}{c,d}"]
)
def test_braces_are_those_of_braceexpand(pattern: str) -> None:
    assert expand_braces(pattern) == list(braceexpand.braceexpand(pattern))


def test_braces_have_a_limit() -> None:
    for pattern in ("{0..99999999999}", "{000..999}{000..999}{000..999}"):
        with pytest.raises(UsageError, match=r"expands to more than 1,000,000 files"):
            expand_braces(pattern)


def test_lists(tmp_path: Path) -> None:
    path = tmp_path / "list.txt"
    path.write_text("1 a b\n2\tc\n\n")
    assert read_table(path) == {"1": "a b", "2": "c"}
    path.write_text("1 a\nalone\n")
    with pytest.raises(DataError, match=r"list\.txt line 2 is 'alone'"):
        read_table(path)
    path.write_text("1\n2.jpg\n2\n")
    assert read_image_list(path, ".jpg") == ["1.jpg", "2.jpg"]
    path.write_text("../1.jpg\n")
    with pytest.raises(DataError, match=r"lists '\.\./1\.jpg'"):
        read_image_list(path)


def test_folders_that_are_missing(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        require_folder(tmp_path / "gone", ["a"], "images")
    with pytest.raises(DataError, match=r"no folder of images in .*; expected one of: a, b"):
        require_folder(tmp_path, ["a", "b"], "images")
