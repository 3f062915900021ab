"""Values from the annotations of others: what can be used comes out, anything else is None or counted."""

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from published import lay_out

from tavq.core.errors import DataError, FileError
from tavq.data.foreign_fields import find_captions
from tavq.importers.annotations import read_box, read_id, read_lists, read_size, select_objects


def test_untrusted_values() -> None:
    assert read_box([1, 2, 3, 4.5]) == (1, 2, 3, 4.5)
    for value in (None, [1, 2, 3], [1, 2, 0, 4], [1, 2, 3, "4"], [1, 2, float("nan"), 4], [1, 2, 3, 10**400], "1234"):
        assert read_box(value) is None
    assert read_size({"width": 3, "height": 4}) == (3, 4)
    for size in ({}, {"width": 0, "height": 4}, {"width": "3", "height": 4}, {"width": 10**6, "height": 10**6}):
        assert read_size(size) is None
    assert read_id({"id": 3}, "id") == 3
    assert read_id({"id": [3]}, "id") is read_id({"id": True}, "id") is read_id({}, "id") is None


@pytest.mark.parametrize("content", [[], {}, {"images": 3}, {"images": {}}, 3])
def test_json_without_the_list_is_an_error(tmp_path: Path, content: Any) -> None:
    lay_out(tmp_path, {"a.json": content})
    with pytest.raises(DataError, match=r"a\.json must be a JSON object with a list 'images'"):
        read_lists(tmp_path / "a.json", ["images"], Counter())


def test_broken_json(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a.json": '{"images": ['})
    with pytest.raises(FileError, match=r"a\.json is not valid JSON"):
        read_lists(tmp_path / "a.json", ["images"], Counter())


def test_entries_that_are_not_objects_are_counted() -> None:
    left_out: Counter[str] = Counter()
    assert select_objects([{"a": 1}, 3, None, {}], left_out) == [{"a": 1}, {}]
    assert left_out == {"entries that are not JSON objects": 2}


def test_captions_under_other_names() -> None:
    assert find_captions({"caption": "A dog"}) == ["A dog"]
    assert find_captions({"captions": [], "text": ["A", "B"]}) == ["A", "B"]
    assert find_captions({"sentences": [{"raw": "A dog ."}, {"tokens": []}]}) == ["A dog .", None]
    assert find_captions({"caption": " ", "text": 3}) == []
