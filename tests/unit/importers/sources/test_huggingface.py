"""Folders and saved data sets that the package `datasets` reads; the package is not part of the test environment."""

import importlib
import io
import json
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from published import imported, jpeg, lay_out

from tavq.core.errors import DataError, UsageError
from tavq.data.images import FORMATS, JPEG_FORMATS, SUFFIXES
from tavq.data.records import NamedBox, Record
from tavq.importers.importing import ImportSummary, sources
from tavq.importers.sources import huggingface


def test_without_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(UsageError, match=r"needs the package datasets.*: pip install 'tavq\[hf\]'"):
        sources["huggingface"]().run(tmp_path, tmp_path / "out")


def test_an_old_package_that_runs_code_of_the_data_set_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = type(sys)("datasets")
    old.__version__ = "3.6.0"  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "datasets", old)
    with pytest.raises(UsageError, match=r"datasets 3\.6\.0 is too old; install 4 or later"):
        sources["huggingface"]().run(tmp_path, tmp_path / "out")


@pytest.mark.parametrize("kind", [*FORMATS, "MPO"])
def test_every_format_that_is_read_has_a_suffix(kind: str) -> None:
    buffer, image = io.BytesIO(), Image.new("RGB", (8, 8))
    image.save(buffer, kind, **({"save_all": True, "append_images": [image]} if kind == "MPO" else {}))
    suffix = huggingface._find_suffix(buffer.getvalue())
    assert suffix in SUFFIXES
    assert (suffix == ".jpg") == (kind in JPEG_FORMATS)


@pytest.fixture
def datasets(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Any:
    pytest.importorskip("datasets")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    package = importlib.import_module("datasets")
    monkeypatch.setattr(package.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    return package


def test_an_image_folder(datasets: Any, tmp_path: Path) -> None:
    box = {"box": [1.0, 2.0, 3.0, 4.0], "name": "dog", "phrases": ["a dog"]}
    lines = [
        {"file_name": "a.jpg", "captions": ["A dog.", "A dog runs."], "objects": [box], "license": 4},
        {"file_name": "b.png", "captions": ["A cat."], "objects": [], "license": 4},
    ]
    source = lay_out(
        tmp_path / "in",
        {
            "train/a.jpg": jpeg(1), "train/b.png": jpeg(2),
            "train/metadata.jsonl": "".join(json.dumps(line) + "\n" for line in lines),
        },
    )  # fmt: skip
    summary, records = imported("huggingface", source, tmp_path / "out")
    assert summary == ImportSummary({"train": 2}, 3, {}, {"objects": 1, "phrases of objects": 1})
    assert records == [
        Record("images/train/00000000.jpg", "train", ("A dog.", "A dog runs."),
               objects=(NamedBox((1, 2, 3, 4), "dog", ("a dog",)),)),
        Record("images/train/00000001.jpg", "train", ("A cat.",)),
    ]  # fmt: skip
    assert (tmp_path / "out/images/train/00000000.jpg").read_bytes() == jpeg(1)


def saved(datasets: Any, captions: str, rows: list[tuple[bytes, Any]]) -> Any:
    features = datasets.Features({"image": datasets.Image(), captions: datasets.Value("string")})
    columns = {"image": [{"bytes": row[0], "path": None} for row in rows], captions: [row[1] for row in rows]}
    return datasets.Dataset.from_dict(columns, features)


def test_a_folder_of_save_to_disk(datasets: Any, tmp_path: Path) -> None:
    rows = [(jpeg(1), "A dog."), (jpeg(2)[:80], "Cut."), (b"x", "None."), (jpeg(3), None), (jpeg(4), "A cow.")]
    splits = {"train": saved(datasets, "text", rows), "validation": saved(datasets, "text", rows[:1])}
    splits["unsupervised"] = saved(datasets, "text", rows[:2])
    datasets.DatasetDict(splits).save_to_disk(str(tmp_path / "in"))
    summary, records = imported("huggingface", tmp_path / "in", tmp_path / "out", limit=2)
    assert summary.images == {"train": 2, "val": 1}
    assert summary.left_out == {
        "images that cannot be read": 2,
        "images beyond the limit": 1,
        "images of the split 'unsupervised' (train, val and test are known)": 2,
    }
    assert [record.captions for record in records] == [("A dog.",), (), ("A dog.",)]
    saved(datasets, "caption", rows[:1]).save_to_disk(str(tmp_path / "single"))
    _, records = imported("huggingface", tmp_path / "single", tmp_path / "one")
    assert records[0].captions == ("A dog.",)


def test_unreadable_sources_are_errors(datasets: Any, tmp_path: Path) -> None:
    datasets.Dataset.from_dict({"text": ["A dog."]}).save_to_disk(str(tmp_path / "text"))
    with pytest.raises(DataError, match=r"has no column of images; it has: text\."):
        sources["huggingface"]().run(tmp_path / "text", tmp_path / "out")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"datasets cannot read .*empty"):
        sources["huggingface"]().run(tmp_path / "empty", tmp_path / "out")
    with pytest.raises(DataError, match=r"datasets cannot read nobody/nothing, neither as a folder nor as a name"):
        sources["huggingface"]().run(Path("nobody/nothing"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
