"""Reading and checking a folder data set: what stands, what is named as a fault, and with which words."""

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.core.errors import DataError, UsageError
from tavq.data.folder import FolderDataset, check_dataset, iter_records
from tavq.data.images import save_png
from tavq.data.records import Fault, Faults, NamedBox, Question, Record

Make = Callable[..., Path]


def one(folder: Path, line: str | bytes | dict[str, Any]) -> FolderDataset:
    """A data set of one good line and `line`."""
    data = json.dumps(line).encode() if isinstance(line, dict) else line.encode() if isinstance(line, str) else line
    (folder / "metadata.jsonl").write_bytes(b'{"file_name": "good.png"}\n' + data)
    return FolderDataset(folder)


def test_every_field_is_read(tmp_path: Path) -> None:
    line = {
        "file_name": "a/b.png",
        "split": "val",
        "captions": ["A dog", "A cat ."],
        "long_text": "Long.",
        "objects": [{"box": [1, 2, 3.5, 4], "name": "dog", "phrases": ["the dog"]}],
        "questions": [{"question": "What?", "answer": "dog", "type": "object"}, {"question": "Who?", "answer": "me"}],
        "segmentation": "a/b_classes.png",
        "label": 3,
    }
    dataset = one(tmp_path, line)
    assert dataset.faults == []
    assert dataset[1] == Record(
        "a/b.png",
        "val",
        ("A dog", "A cat ."),
        "Long.",
        (NamedBox((1.0, 2.0, 3.5, 4.0), "dog", ("the dog",)),),
        (Question("What?", "dog", "object"), Question("Who?", "me")),
        "a/b_classes.png",
    )


def test_defaults_null_and_windows_line_ends(tmp_path: Path) -> None:
    (tmp_path / "metadata.jsonl").write_bytes(
        b'\xef\xbb\xbf{"file_name": "a.png"}\r\n\r\n{"file_name": "b.png", "captions": null, "split": null}\r\n'
    )
    dataset = FolderDataset(tmp_path)
    assert list(dataset) == [Record("a.png"), Record("b.png")]
    assert dataset.faults == []


@pytest.mark.parametrize(
    ("captions", "long_text", "text"),
    [
        (("A dog runs .", "A cat sleeps", "Why not?"), None, "A dog runs.\n\nA cat sleeps.\n\nWhy not?"),
        (("A dog",), "A long text", "A long text"),
        ((), None, None),
    ],
)
def test_text_is_the_long_text_or_the_captions_as_sentences(
    captions: tuple[str, ...], long_text: str | None, text: str | None
) -> None:
    assert Record("a.png", captions=captions, long_text=long_text).text == text


@pytest.mark.parametrize(
    ("line", "where", "reason"),
    [
        ("{", "metadata.jsonl line 2", "not valid JSON"),
        ("[]", "metadata.jsonl line 2", "must be a JSON object, got a list"),
        (b'{"file_name": "\xff.png"}', "metadata.jsonl line 2", "not UTF-8"),
        ("[" * 100_000, "metadata.jsonl line 2", "not valid JSON"),
        ({"split": "train"}, "metadata.jsonl line 2", "file_name is missing"),
        ({"file_name": 3}, "metadata.jsonl line 2", "file_name must be a string, got a number"),
        ({"file_name": "../x.png"}, "metadata.jsonl line 2", "file_name '../x.png' leads outside the data set"),
        ({"file_name": "a/../x.png"}, "metadata.jsonl line 2", "file_name 'a/../x.png' leads outside the data set"),
        ({"file_name": "/etc/passwd"}, "metadata.jsonl line 2", "file_name '/etc/passwd' leads outside"),
        ({"file_name": "a\0b.png"}, "metadata.jsonl line 2", "control characters"),
        ({"file_name": "\ud800.png"}, "metadata.jsonl line 2", "invalid Unicode"),
        ({"file_name": "a.png", "split": "dev"}, "a.png", "split 'dev' is unknown; known: train, val, test"),
        ({"file_name": "a.png", "split": ["val"]}, "a.png", "split ['val'] is unknown"),
        ({"file_name": "good.png"}, "good.png", "line 2 repeats the file_name of line 1"),
        ({"file_name": "./good.png"}, "./good.png", "line 2 repeats the file_name of line 1"),
    ],
)
def test_unusable_lines_are_faults(tmp_path: Path, line: Any, where: str, reason: str) -> None:
    dataset = one(tmp_path, line)
    assert [record.file_name for record in dataset] == ["good.png"]
    (fault,) = dataset.faults
    assert fault.where == where
    assert reason in fault.reason


BOX = {"box": [0, 0, 1, 1], "name": "dog"}


@pytest.mark.parametrize(
    ("fields", "kept", "reason"),
    [
        ({"captions": ["", "A dog"]}, {"captions": ("A dog",)}, "captions entry 1 is empty"),
        ({"captions": [" \n"]}, {}, "captions entry 1 is empty"),
        ({"captions": []}, {}, "captions is an empty list"),
        ({"captions": "A dog"}, {}, "captions must be a list, got a string"),
        ({"captions": ["A dog", 3]}, {"captions": ("A dog",)}, "captions entry 2 must be a string, got a number"),
        ({"captions": ["a" * 100_001]}, {}, "has 100,001 characters"),
        ({"captions": ["a\0"]}, {}, "control characters"),
        ({"captions": ["\ud800"]}, {}, "invalid Unicode"),
        ({"long_text": ""}, {}, "long_text is empty"),
        ({"long_text": 3}, {}, "long_text must be a string"),
        ({"segmentation": "../s.png"}, {}, "segmentation '../s.png' leads outside"),
        ({"objects": {"box": []}}, {}, "objects must be a list, got an object"),
        (
            {"objects": [BOX, 3]},
            {"objects": (NamedBox((0.0, 0.0, 1.0, 1.0), "dog"),)},
            "objects entry 2 must be a JSON object",
        ),
        ({"objects": [{**BOX, "box": [0, 0, 1]}]}, {}, "needs a box of four numbers"),
        ({"objects": [{**BOX, "box": [0, 0, 1, float("nan")]}]}, {}, "needs a box of four numbers"),
        ({"objects": [{**BOX, "box": [0, 0, 1, 10**400]}]}, {}, "needs a box of four numbers"),
        ({"objects": [{**BOX, "box": [0, 0, 1, True]}]}, {}, "needs a box of four numbers"),
        ({"objects": [{**BOX, "box": [0, 0, 0, 1]}]}, {}, "box without area"),
        ({"objects": [{**BOX, "name": ""}]}, {}, "name is empty"),
        ({"objects": [{**BOX, "phrases": "dog"}]}, {}, "phrases must be a list"),
        ({"questions": [{"question": "Q"}]}, {}, "answer must be a string, got null"),
    ],
)
def test_unusable_fields_are_left_out(
    tmp_path: Path, fields: dict[str, Any], kept: dict[str, Any], reason: str
) -> None:
    dataset = one(tmp_path, {"file_name": "a.png", **fields})
    assert dataset[1] == Record("a.png", **kept)
    (fault,) = dataset.faults
    assert fault.where == "a.png"
    assert reason in fault.reason


def test_a_link_that_leads_outside_is_refused(tmp_path: Path) -> None:
    (tmp_path / "outside").mkdir()
    (tmp_path / "inside").mkdir()
    (tmp_path / "inside" / "link").symlink_to(tmp_path / "outside")
    dataset = one(tmp_path / "inside", {"file_name": "link/x.png"})
    assert "leads outside" in dataset.faults[0].reason


def test_splits(make: Make) -> None:
    folder = make(4, {1: {"split": "test"}, 3: {"split": "test"}})
    assert [record.file_name for record in FolderDataset(folder, "test")] == ["images/1.png", "images/3.png"]
    assert len(FolderDataset(folder)) == 4
    with pytest.raises(UsageError, match=r"no images in the split 'val'; it has: train \(2\), test \(2\)\."):
        FolderDataset(folder, "val")


def test_images_without_metadata_are_training_images(make: Make) -> None:
    folder = make(2)
    (folder / "metadata.jsonl").unlink()
    (folder / "images" / "notes.txt").write_text("no image")
    (folder / ".thumbnails").mkdir()
    save_png(folder / ".thumbnails" / "0.png", np.zeros((2, 2, 3), np.uint8))
    save_png(folder / "A.PNG", np.zeros((2, 2, 3), np.uint8))
    assert list(FolderDataset(folder)) == [Record("A.PNG"), Record("images/0.png"), Record("images/1.png")]


def test_names_that_no_line_could_hold_are_faults(tmp_path: Path) -> None:
    names = ["a.png", "new\nline.png", "esc\x1b[31m.png", os.fsdecode(b"\xff.png"), "tab\t/b.png"]
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        save_png(tmp_path / name, np.zeros((2, 2, 3), np.uint8))
    dataset, faults = FolderDataset(tmp_path), Faults()
    assert list(dataset) == list(iter_records(tmp_path, faults)) == [Record("a.png")]
    assert sorted(fault.where for fault in dataset.faults) == sorted(ascii(name) for name in names[1:])
    assert {fault.reason for fault in dataset.faults} == {
        "the name contains control characters or invalid Unicode; rename the file"
    }
    assert faults.first == dataset.faults
    (tmp_path / "a.png").unlink()
    with pytest.raises(DataError, match="has no usable image; 4 faults"):
        FolderDataset(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no folder"):
        FolderDataset(tmp_path / "gone")
    for use in (FolderDataset, check_dataset):
        with pytest.raises(UsageError, match="holds no images"):
            use(tmp_path)
    (tmp_path / "metadata.jsonl").write_text('{"file_name": "../x.png"}')
    with pytest.raises(DataError, match=r"no usable line; 1 faults, first: metadata.jsonl line 1"):
        FolderDataset(tmp_path)
    assert len(check_dataset(tmp_path)) == 1


def test_a_line_that_is_too_long_is_a_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.data.metadata.MAX_LINE", 50)
    dataset = one(tmp_path, {"file_name": "a.png", "captions": ["x" * 50]})
    assert [record.file_name for record in dataset] == ["good.png"]
    assert dataset.faults == [Fault("metadata.jsonl line 2", "the line is longer than 50 bytes")]


def test_fingerprint_is_the_hash_of_the_metadata(make: Make) -> None:
    folder = make(2)
    expected = hashlib.sha256((folder / "metadata.jsonl").read_bytes()).hexdigest()
    assert FolderDataset(folder).fingerprint == expected
    (folder / "metadata.jsonl").unlink()
    listed = FolderDataset(folder).fingerprint
    assert listed == hashlib.sha256(b"images/0.png\nimages/1.png").hexdigest()


def test_check_finds_nothing_in_a_good_folder_and_reports_progress(make: Make) -> None:
    seen = []
    assert check_dataset(make(3), lambda done, total: seen.append((done, total))) == []
    assert seen == [(1, 3), (2, 3), (3, 3)]


def test_check_names_every_fault(make: Make) -> None:
    changes = {1: {"captions": [""]}, 2: {"file_name": "../x.png"}, 3: {"file_name": "images/gone.png"}}
    folder = make(5, changes)
    cut = folder / "images/0.png"
    cut.write_bytes(cut.read_bytes()[: cut.stat().st_size // 2])
    found = {fault.where: fault.reason for fault in check_dataset(folder)}
    assert set(found) == {"images/0.png", "images/1.png", "metadata.jsonl line 3", "images/gone.png"}
    assert "captions entry 1 is empty" in found["images/1.png"]
    assert "../x.png" in found["metadata.jsonl line 3"]
    assert found["images/gone.png"] == "no such file or directory"
    assert str(folder) not in found["images/0.png"]


def test_check_compares_boxes_and_segmentations_with_the_image(make: Make) -> None:
    folder = make(
        5,
        {
            0: {"objects": [{"box": [0, 0, 20, 16.4], "name": "all"}], "segmentation": "right.png"},
            1: {"objects": [{"box": [10, 0, 11, 4], "name": "dog"}]},
            2: {"objects": [{"box": [-1, 0, 4, 4], "name": "cat"}]},
            3: {"segmentation": "wrong.png"},
            4: {"segmentation": "gone.png"},
        },
    )
    save_png(folder / "right.png", np.zeros((16, 20), np.uint8))
    save_png(folder / "wrong.png", np.zeros((20, 16), np.uint8))
    assert check_dataset(folder) == [
        Fault("images/1.png", "the box [10.0, 0.0, 11.0, 4.0] of 'dog' extends beyond the image of 20 x 16 pixels"),
        Fault("images/2.png", "the box [-1.0, 0.0, 4.0, 4.0] of 'cat' extends beyond the image of 20 x 16 pixels"),
        Fault("images/3.png", "segmentation: it has 16 x 20 pixels, but the image has 20 x 16"),
        Fault("images/4.png", "segmentation: no such file or directory"),
    ]
