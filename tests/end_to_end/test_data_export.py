"""`tavq data export` and `tavq data import webdataset`, there and back."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tavq.data.folder import FolderDataset

Tavq = Callable[..., Any]


def test_there_and_back(tavq: Tavq, shared_images: Path, tmp_path: Path) -> None:
    figures = tmp_path / "figures.json"
    done = tavq("data", "export", shared_images, tmp_path / "shards", "--to", "webdataset", "--shard-size", 4,
                "--json", figures)  # fmt: skip
    assert done.code == 0, done.err
    assert json.loads(figures.read_text()) == {
        "images": {"train": 10, "val": 3, "test": 3}, "files": 5, "left_out": {},
    }  # fmt: skip
    assert "16 images are in" in done.err
    back = tavq("data", "import", "webdataset", tmp_path / "shards", tmp_path / "back")
    assert back.code == 0, back.err
    assert {record.file_name: record for record in FolderDataset(tmp_path / "back")} == {
        record.file_name: record for record in FolderDataset(shared_images)
    }
    assert tavq("data", "check", tmp_path / "back").code == 0


def test_errors_are_one_line(tavq: Tavq, shared_images: Path, tmp_path: Path) -> None:
    done = tavq("data", "export", shared_images, tmp_path / "shards", "--to", "tfrecord")
    assert (done.code, "Unknown export format 'tfrecord'; known: webdataset" in done.err) == (2, True)
    done = tavq("data", "export", shared_images, tmp_path / "shards", "--to", "webdataset", "--shard-size", 0)
    assert done.code == 2
    done = tavq("data", "import", "webdataset", tmp_path / "gone.tar", tmp_path / "out")
    assert (done.code, "There is no shard" in done.err) == (1, True)
    assert list(tmp_path.iterdir()) == []
