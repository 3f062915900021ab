"""Descriptions: found by image, the last text wins, nothing that is broken hides what is whole."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tavq.core.errors import DataError
from tavq.data import descriptions
from tavq.data.descriptions import Descriptions
from tavq.data.folder import FolderDataset, check_dataset, iter_records, iter_texts
from tavq.data.images import save_png
from tavq.data.records import Description, Fault, Faults

ONE = {"file_name": "a.png", "model": "m", "prompt": "p", "text": "First."}


def write(folder: Path, *lines: Any, name: str = "long_text.jsonl") -> None:
    data = b"".join(line if isinstance(line, bytes) else json.dumps(line).encode() + b"\n" for line in lines)
    (folder / name).write_bytes(data)


def test_nothing_is_found_where_there_is_nothing(tmp_path: Path) -> None:
    with Descriptions(tmp_path) as found:
        assert not found
        assert found.find("a.png") is None


def test_the_last_text_of_a_image_wins(tmp_path: Path) -> None:
    other = ONE | {"file_name": "b.png", "text": "B."}
    write(tmp_path, ONE, other, ONE | {"model": "n", "text": "Second."})
    with Descriptions(tmp_path) as found:
        assert len(found) == 3
        assert found.text("a.png") == "Second."
        assert found.text("./a.png") == "Second."
        assert found.find("b.png") == Description("b.png", "m", "p", "B.")
        assert found.text("c.png") is None


def test_the_last_of_many_texts_wins(tmp_path: Path) -> None:
    write(tmp_path, *(ONE | {"file_name": f"{n % 3}.png", "text": f"Text {n}."} for n in range(300)))
    with Descriptions(tmp_path) as found:
        assert [found.text(f"{n}.png") for n in range(3)] == ["Text 297.", "Text 298.", "Text 299."]


def test_files_are_read_together_in_the_order_of_their_names(tmp_path: Path) -> None:
    write(tmp_path, ONE | {"text": "Of a shard."}, name="long_text-2-of-2.jsonl")
    write(tmp_path, ONE | {"text": "Of the whole."}, ONE | {"file_name": "b.png"})
    write(tmp_path, ONE | {"file_name": "c.png"}, name="long_text-1-of-2.jsonl")
    with Descriptions(tmp_path) as found:
        assert found.text("a.png") == "Of the whole."  # "-" sorts before "."
        assert found.text("b.png") == found.text("c.png") == "First."


def test_the_newest_text_wins_wherever_it_stands(tmp_path: Path) -> None:
    new, old = ONE | {"text": "New.", "time": 2000}, ONE | {"text": "Old.", "time": 1000}
    write(tmp_path, new, old, ONE | {"file_name": "b.png", "time": 5, "text": "Five."}, name="long_text-1-of-2.jsonl")
    write(tmp_path, ONE, old, ONE | {"file_name": "b.png", "time": 5, "text": "Later line."})
    with Descriptions(tmp_path) as found:
        assert found.text("a.png") == "New."
        assert found.text("b.png") == "Later line."


def test_a_fault_never_hides_a_text(tmp_path: Path) -> None:
    fault = {"file_name": "a.png", "model": "m", "prompt": "p", "fault": "refused"}
    write(tmp_path, ONE, fault, fault | {"file_name": "b.png"}, fault | {"file_name": "b.png", "fault": "empty"})
    with Descriptions(tmp_path) as found:
        assert found.text("a.png") == "First."
        assert found.text("b.png") is None
        assert found.find("b.png") == Description("b.png", "m", "p", fault="empty")


def test_lines_of_one_model_and_prompt_only(tmp_path: Path) -> None:
    write(tmp_path, ONE, ONE | {"model": "n", "text": "N."}, ONE | {"prompt": "q", "text": "Q."})
    with Descriptions(tmp_path, "m", "p") as found:
        assert len(found) == 1
        assert found.text("a.png") == "First."


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        (b"{\n", "not valid JSON"),
        (b"[]\n", "must be a JSON object"),
        (b'{"file_name": "\xff"}\n', "not UTF-8"),
        ({"text": "A."}, "file_name is missing"),
        ({"file_name": 3, "text": "A."}, "file_name must be a string"),
        ({"file_name": "a\0", "text": "A."}, "control characters"),
        ({"file_name": "\ud800", "text": "A."}, "invalid Unicode"),
        (ONE | {"model": 3}, "model must be a string"),
        (ONE | {"text": ""}, "text is empty"),
        (ONE | {"time": "now"}, "time must be a whole number of seconds since 1970, got 'now'"),
        (ONE | {"time": -1}, "time must be a whole number"),
        (ONE | {"time": 10**30}, "time must be a whole number"),
        (ONE | {"time": True}, "time must be a whole number"),
        (ONE | {"text": None}, "text must be a string, got null"),
        (ONE | {"text": "a\x07"}, "control characters"),
        (ONE | {"text": "a" * 100_001}, "has 100,001 characters"),
        (b'{"file_name": "' + b"a" * 2_000_000 + b'"}\n', "longer than 2,000,000 bytes"),
    ],
)
def test_a_broken_line_is_counted_and_passed_over(tmp_path: Path, line: Any, reason: str) -> None:
    write(tmp_path, ONE, line, ONE | {"file_name": "b.png"})
    with Descriptions(tmp_path) as found:
        assert found.text("a.png") == found.text("b.png") == "First."
        assert found.faults.count == 1
        assert found.faults.first[0].where == "long_text.jsonl line 2"
        assert reason in found.faults.first[0].reason


def test_a_file_cut_anywhere_gives_its_whole_lines(tmp_path: Path) -> None:
    write(tmp_path, *(ONE | {"file_name": f"{number}.png", "text": f"Text {number} é."} for number in range(3)))
    data = (tmp_path / "long_text.jsonl").read_bytes()
    for end in range(len(data) + 1):
        (tmp_path / "long_text.jsonl").write_bytes(data[:end])
        with Descriptions(tmp_path) as found:
            whole = data[:end].count(b"\n")
            assert [found.text(f"{n}.png") for n in range(3)] == [f"Text {n} é." for n in range(whole)] + [None] * (
                3 - whole
            )
            # a whole line that lacks its newline only is named
            assert found.faults.count == int(data[end : end + 1] == b"\n")


def test_lines_that_name_no_image_are_named_once(tmp_path: Path) -> None:
    write(tmp_path, *(ONE | {"file_name": f"images/{number}.png"} for number in range(3)), ONE)
    with Descriptions(tmp_path) as found:
        found.mark("a.png")
        [fault] = found.find_unmatched()
        assert fault.where == "long_text.jsonl"
        assert fault.reason.startswith("3 lines name no image of the data set, such as 'images/")
        for number in range(3):
            found.mark(f"images/{number}.png")
        assert found.find_unmatched() == []


def test_names_of_the_same_hash_are_told_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(descriptions, "hash_name", lambda name: 7)
    write(tmp_path, *(ONE | {"file_name": f"{number}.png", "text": f"Text {number}."} for number in range(4)))
    with Descriptions(tmp_path) as found:
        assert [found.text(f"{n}.png") for n in range(5)] == [*(f"Text {n}." for n in range(4)), None]


def test_too_many_and_too_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path, ONE)
    os.truncate(tmp_path / "long_text.jsonl", 2**40)  # sparse
    with pytest.raises(DataError, match="of a terabyte each"):
        Descriptions(tmp_path)
    os.truncate(tmp_path / "long_text.jsonl", 0)
    monkeypatch.setattr(descriptions, "MAX_FILES", 0)
    with pytest.raises(DataError, match="at most 0 files"):
        Descriptions(tmp_path)


def test_an_index_is_small(tmp_path: Path) -> None:
    write(tmp_path, *(ONE | {"file_name": f"{number}.png"} for number in range(100)))
    with Descriptions(tmp_path) as found:
        held = sum(value.nbytes for value in vars(found).values() if hasattr(value, "nbytes"))
        assert held == 17 * 100


# --- what a data set makes of them ------------------------------------------------------------------------------


def dataset(folder: Path, *lines: dict[str, Any]) -> None:
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_record_without_a_long_text_takes_the_described_one(tmp_path: Path) -> None:
    dataset(
        tmp_path,
        {"file_name": "a.png", "captions": ["A"]},
        {"file_name": "b.png", "long_text": "Its own."},
        {"file_name": "c.png", "captions": ["A dog"]},
        {"file_name": "d.png"},
    )
    before = FolderDataset(tmp_path).fingerprint
    write(tmp_path, ONE, ONE | {"file_name": "b.png"}, ONE | {"file_name": "elsewhere.png"})
    found = FolderDataset(tmp_path)
    assert [record.text for record in found] == ["First.", "Its own.", "A dog.", None]
    assert found[0].captions == ("A",)
    assert [fault.reason for fault in found.faults] == [
        "a line names no image of the data set, such as 'elsewhere.png'"
    ]
    assert found.fingerprint == before
    expected = [("a.png", "First."), ("b.png", "Its own."), ("c.png", "A dog."), ("d.png", "")]
    assert list(iter_texts(tmp_path)) == expected


def test_broken_lines_are_faults_of_the_data_set(tmp_path: Path) -> None:
    dataset(tmp_path, {"file_name": "a.png"})
    write(tmp_path, b"{\n", ONE)
    assert [fault.where for fault in FolderDataset(tmp_path).faults] == ["long_text.jsonl line 1"]
    assert "long_text.jsonl line 1" in [fault.where for fault in check_dataset(tmp_path)]
    faults = Faults()
    assert list(iter_texts(tmp_path, faults)) == [("a.png", "First.")]
    assert faults.count == 1


def test_texts_without_metadata_come_in_the_order_of_the_names(tmp_path: Path) -> None:
    import numpy as np

    for name in ("b/c.png", "b.png", "b-1/x.png", "a/z/y.png", "a.png", ".hidden/x.png", "b/.x.png", "ä.png"):
        save_png(tmp_path / name, np.zeros((4, 4), np.uint8))
    write(tmp_path, ONE | {"file_name": "b/c.png"})
    names = [record.file_name for record in FolderDataset(tmp_path)]
    assert names == sorted(["b/c.png", "b.png", "b-1/x.png", "a/z/y.png", "a.png", "ä.png"])
    assert list(iter_texts(tmp_path)) == [(name, "First." if name == "b/c.png" else "") for name in names]


def test_one_split_of_the_texts(tmp_path: Path) -> None:
    dataset(tmp_path, {"file_name": "a.png", "split": "val"}, {"file_name": "b.png"})
    assert list(iter_texts(tmp_path, split="val")) == [("a.png", "")]


def test_a_metadata_file_of_any_size_is_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.data.metadata.MAX_JSON", 10)
    monkeypatch.setattr("tavq.data.metadata.MAX_LINE", 50)
    dataset(tmp_path, {"file_name": "a.png"}, {"file_name": "b.png", "captions": ["x" * 50]}, {"file_name": "c.png"})
    with pytest.raises(DataError, match="at most 10 are read"):
        FolderDataset(tmp_path)
    faults = Faults()
    assert [name for name, _ in iter_texts(tmp_path, faults)] == ["a.png", "c.png"]
    assert faults.first == [Fault("metadata.jsonl line 2", "the line is longer than 50 bytes")]


def test_byte_order_marks_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_bytes(b'\xef\xbb\xbf{"file_name": "a.png"}\r\n\r\n{"file_name": "b.png"}')
    (tmp_path / "long_text.jsonl").write_bytes(b'{"file_name": "b.png", "text": "B."}\r\n')
    assert list(iter_texts(tmp_path)) == [("a.png", ""), ("b.png", "B.")]


def test_repeated_names_far_apart_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.data.metadata.HashedNames.batch", 3)
    names = [f"{number}.png" for number in range(40)]
    names[33] = "2.png"
    names[39] = "./38.png"
    dataset(tmp_path, *({"file_name": name} for name in names))
    faults = Faults(keep=1)
    found = [record.file_name for record in iter_records(tmp_path, faults)]
    assert found == [name for place, name in enumerate(names) if place not in (33, 39)]
    assert (faults.count, len(faults.first)) == (2, 1)
    assert faults.first[0] == Fault("2.png", "line 34 repeats the file_name of an earlier line")


def test_what_cannot_be_printed_is_what_unicode_calls_so() -> None:
    import sys
    import unicodedata

    from tavq.data import characters

    for letter in map(chr, range(sys.maxunicode + 1)):
        assert bool(characters.UNPRINTABLE.match(letter)) == (unicodedata.category(letter) in ("Cc", "Cs"))
