"""Shards that others read: what they hold, in the words of the package webdataset, and the way back."""

import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from published import jpeg, lay_out, png
from webdataset.autodecode import Decoder, basichandlers, imagehandler
from webdataset.tariterators import group_by_keys, tar_file_iterator

from tavq.core.errors import DataError, UsageError
from tavq.data.folder import FolderDataset
from tavq.data.records import NamedBox, Question, Record, to_line
from tavq.importers.exporting import ExportSummary, formats
from tavq.importers.importing import sources

CAPTIONS = ("A dog.", "Zwei\nHunde, schön.")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """Every field, in every split; one image that is broken."""
    box = (NamedBox((1.0, 2.0, 3.0, 4.5), "a dog", ("the dog on the left",)),)
    records = [
        Record(
            "images/001.A/x.y.jpg", "train", ("A dog.", "Zwei\nHunde, schön."), "Long.", box, segmentation="s/1.png"
        ),
        Record("images/b.jpg", "val", long_text="A whole text.", questions=(Question("How many?", "two", "number"),)),
        Record("b.JPEG", "train"),
        Record("images/d.jpg", "test", ("A cat.",)),
        Record("images/broken.jpg", "train"),
        Record("images/e.jpg", "train", ("A cow.",)),
    ]
    files = {record.file_name: jpeg(number) for number, record in enumerate(records)}
    files |= {"images/broken.jpg": b"x", "s/1.png": png(np.arange(192).reshape(12, 16))}
    files |= {"segmentation_classes.json": b'{\n  "0": "sky",\n  "7": "sea"\n}\n'}
    return lay_out(tmp_path / "data", files | {"metadata.jsonl": b"".join(map(to_line, records))})


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def samples_of(path: Path) -> list[dict[str, Any]]:
    """Below the package's pipeline, which leaves its files open."""
    with open(path, "rb") as file:
        groups = group_by_keys({**member, "__url__": path.name} for member in tar_file_iterator(file))
        return [Decoder([imagehandler("rgb8"), basichandlers])(group) for group in groups]


def test_content_of_shards(data: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    seen: list[tuple[int, int]] = []
    summary = formats["webdataset"]().run(data, out, 2, lambda *at: seen.append(at))
    assert summary == ExportSummary({"train": 3, "val": 1, "test": 1}, 4, {"images that cannot be read": 1})
    shards = ["test-000000.tar", "train-000000.tar", "train-000001.tar", "val-000000.tar"]
    assert sorted(content(out)) == ["segmentation_classes.json", *shards]
    assert seen == [(number, 6) for number in range(1, 7)]
    with tarfile.open(out / "train-000000.tar") as archive:
        key = "000000000"
        assert archive.getnames() == [f"{key}.jpg", f"{key}.json", f"{key}.txt", f"{key}.seg.png",
                                      "000000002.jpeg", "000000002.json"]  # fmt: skip
        assert {(member.mtime, member.uid, member.uname, member.mode) for member in archive} == {(0, 0, "", 0o644)}


def test_the_package_webdataset_reads_them(data: Path, tmp_path: Path) -> None:
    """The oracle: its own grouping by keys and its own decoders."""
    formats["webdataset"]().run(data, tmp_path / "out", 1000)
    samples = [sample for name in ("train", "val") for sample in samples_of(tmp_path / f"out/{name}-000000.tar")]
    assert [sample["__key__"] for sample in samples] == ["000000000", "000000002", "000000005", "000000001"]
    first, second, third, fourth = samples
    assert first["jpg"].shape == (12, 16, 3)
    assert first["txt"] == "A dog.\nZwei Hunde, schön."
    assert first["json"]["captions"] == list(CAPTIONS)
    assert first["json"]["objects"][0]["box"] == [1.0, 2.0, 3.0, 4.5]
    np.testing.assert_array_equal(first["seg.png"][:, :, 0], np.arange(192).reshape(12, 16))
    assert "txt" not in second
    assert (third["txt"], fourth["txt"]) == ("A cow.", "A whole text.")


def test_importing_an_export_gives_the_same_records_and_bytes(data: Path, tmp_path: Path) -> None:
    formats["webdataset"]().run(data, tmp_path / "out", 2)
    summary = sources["webdataset"]().run(tmp_path / "out", tmp_path / "back")
    assert summary.left_out == {}
    before = {record.file_name: record for record in FolderDataset(data) if "broken" not in record.file_name}
    assert {record.file_name: record for record in FolderDataset(tmp_path / "back")} == before
    old, new = content(data), content(tmp_path / "back")
    assert new.keys() == old.keys() - {"images/broken.jpg"}
    assert all(new[name] == old[name] for name in new if name != "metadata.jsonl")
    formats["webdataset"]().run(tmp_path / "back", tmp_path / "again", 1000)
    again = sources["webdataset"]().run(tmp_path / "again", tmp_path / "third")
    assert again.images == summary.images


def test_the_same_bytes_each_time(data: Path, tmp_path: Path) -> None:
    for name in ("one", "two"):
        formats["webdataset"]().run(data, tmp_path / name, 2)
    assert content(tmp_path / "one") == content(tmp_path / "two")


def test_a_segmentation_that_is_broken_is_left_out(data: Path, tmp_path: Path) -> None:
    (data / "s/1.png").write_bytes(b"x")
    summary = formats["webdataset"]().run(data, tmp_path / "out", 100)
    assert summary.left_out["segmentations that cannot be used"] == 1
    assert sources["webdataset"]().run(tmp_path / "out", tmp_path / "back").left_out == {}


def test_errors(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"Unknown export format 'webdatset'.*Did you mean 'webdataset'"):
        formats["webdatset"]
    with pytest.raises(UsageError, match="already exists and is not empty"):
        formats["webdataset"]().run(data, data, 100)
    for path in data.rglob("*.jp*g"):
        path.write_bytes(b"x")
    (data / "b.JPEG").write_bytes(b"x")
    with pytest.raises(DataError, match=r"None of 6 images can be read; list their faults: tavq data check"):
        formats["webdataset"]().run(data, tmp_path / "out", 100)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data"]


def test_metadata_lines_are_json(data: Path, tmp_path: Path) -> None:
    formats["webdataset"]().run(data, tmp_path / "out", 100)
    with tarfile.open(tmp_path / "out/val-000000.tar") as archive:
        file = archive.extractfile("000000001.json")
        assert file is not None
        assert json.loads(file.read())["questions"] == [{"question": "How many?", "answer": "two", "type": "number"}]
