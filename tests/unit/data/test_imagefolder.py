"""Folders as Hugging Face's imagefolder has them, links, and files that look like data and are not read."""

import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from PIL import Image, features

from tavq.core.errors import DataError, TavqError, UsageError
from tavq.data.folder import FolderDataset, check_dataset, iter_records
from tavq.data.foreign_files import PUBLISHED
from tavq.data.images import SUFFIXES, UNREAD_SUFFIXES, load_image
from tavq.data.records import Record
from tavq.importers.importing import sources


def lay_out(folder: Path, files: Mapping[str, Any]) -> Path:
    """Write images by their names, and texts and lists of JSON lines."""
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            Image.new("RGB", (8, 8)).save(path, "PNG")
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            lines = content if isinstance(content, str) else "".join(json.dumps(line) + "\n" for line in content)
            path.write_text(lines, "utf-8")
    return folder


def read(folder: Path) -> dict[str, tuple[str, str | None]]:
    """The split and the text of each record; reading one by one gives the same."""
    dataset = FolderDataset(folder)
    assert list(iter_records(folder)) == dataset.records
    return {record.file_name: (record.split, record.text) for record in dataset}


LINES = [{"file_name": "1.png", "text": "A dog."}, {"file_name": "2.png", "text": "A cat."}]
IMAGES = {"1.png": None, "2.png": None}
TABLE = "file_name,text\n1.png,A dog.\n2.png,A cat.\n"


@pytest.mark.parametrize(
    ("fields", "captions"),
    [
        ({"text": "A dog."}, ("A dog.",)),
        ({"caption": "A dog."}, ("A dog.",)),
        ({"text": ["A dog.", "It runs."]}, ("A dog.", "It runs.")),
        ({"captions": ["A cat."], "text": "A dog."}, ("A cat.",)),
        ({"text": "A dog.", "caption": "A cat."}, ("A dog.",)),
        ({"text": 3, "caption": "A cat."}, ("A cat.",)),
        ({"text": {"a": 1}}, ()),
        ({"text": None}, ()),
    ],
)
def test_captions_under_the_names_of_hugging_face(
    tmp_path: Path, fields: dict[str, Any], captions: tuple[str, ...]
) -> None:
    dataset = FolderDataset(lay_out(tmp_path, {"1.png": None, "metadata.jsonl": [{"file_name": "1.png", **fields}]}))
    assert dataset[0].captions == captions
    assert dataset.faults == []


@pytest.mark.parametrize(
    "table",
    [
        TABLE.encode(),
        TABLE.replace("\n", "\r\n").encode(),
        b"\xef\xbb\xbf" + TABLE.encode(),
        TABLE.replace(",", ";").encode(),
        TABLE.replace(",", "\t").encode(),
        b'"text","file_name"\n"A dog.","1.png"\n"A cat.","2.png"\n',
        b"file_name,caption,label\n1.png,A dog.,3\n2.png,A cat.,\n",
        b'file_name,captions\n1.png,"[""A dog.""]"\n2.png,A cat.\n',
    ],
)
@pytest.mark.parametrize("parent", ["", "photos/", "a/b/"])
def test_tables_of_every_kind(tmp_path: Path, table: bytes, parent: str) -> None:
    files = {f"{parent}{name}": content for name, content in {**IMAGES, "metadata.csv": table}.items()}
    assert read(lay_out(tmp_path, files)) == {
        f"{parent}1.png": ("train", "A dog."),
        f"{parent}2.png": ("train", "A cat."),
    }
    assert check_dataset(tmp_path) == []


def test_a_table_from_a_spreadsheet(tmp_path: Path) -> None:
    """Windows-1252, a quoted line break, and fields of metadata.jsonl."""
    row = '1.png,val,"Caf\xe9\nbar","[{""question"": ""What"", ""answer"": ""Dog""}]"\n'
    table = f"file_name,split,long_text,questions\n{row}".encode("cp1252")
    [record] = FolderDataset(lay_out(tmp_path, {"1.png": None, "metadata.csv": table}))
    assert (record.split, record.long_text, record.questions[0].answer) == ("val", "Café\nbar", "Dog")


@pytest.mark.parametrize(
    ("table", "reason"),
    [
        (b"name,text\n1.png,A dog.\n", "no column file_name; its columns: 'name', 'text'"),
        (b"file_name,text\n../x.png,A\n", "leads outside the data set"),
        (b"file_name,split\n1.png,other\n", "split 'other' is unknown"),
        (b'file_name,text\n1.png,"' + b"x" * 2_000_001 + b'"\n', "field larger than"),
        (b"", "no column file_name"),
    ],
)
def test_a_table_that_cannot_be_used_is_named(tmp_path: Path, table: bytes, reason: str) -> None:
    lay_out(tmp_path, {"1.png": None, "metadata.csv": table})
    with pytest.raises(TavqError, match=reason):
        FolderDataset(tmp_path)


FOLDERS = {"train": "train", "Training": "train", "val": "val", "validation": "val", "valid": "val", "dev": "val"}
FOLDERS |= {"test": "test", "testing": "test", "eval": "test"}


@pytest.mark.parametrize("name", FOLDERS)
@pytest.mark.parametrize("metadata", ["metadata.jsonl", "metadata.csv", None])
def test_folders_are_splits(tmp_path: Path, name: str, metadata: str | None) -> None:
    train = "train" if FOLDERS[name] != "train" else name
    files: dict[str, Any] = {}
    for parent in {train, name}:
        files |= {f"{parent}/{image}": None for image in IMAGES}
        files |= {f"{parent}/{metadata}": LINES if metadata == "metadata.jsonl" else TABLE} if metadata else {}
    found = read(lay_out(tmp_path, files))
    texts = ("A dog.", "A cat.") if metadata else (None, None)
    assert found[f"{name}/1.png"] == (FOLDERS[name], texts[0])
    assert found[f"{train}/2.png"] == ("train", texts[1])
    assert check_dataset(tmp_path) == []


def test_a_folder_without_training_images_is_no_split(tmp_path: Path) -> None:
    """Folders that were trained on before are still."""
    assert read(lay_out(tmp_path, {"test/1.png": None, "dogs/2.png": None})) == {
        "dogs/2.png": ("train", None),
        "test/1.png": ("train", None),
    }


def test_metadata_at_the_top_stand_for_all(tmp_path: Path) -> None:
    lines = [{"file_name": "train/1.png", "text": "Top."}]
    files = {"train/1.png": None, "train/2.png": None, "metadata.jsonl": lines, "train/metadata.jsonl": LINES}
    assert read(lay_out(tmp_path, files)) == {"train/1.png": ("train", "Top.")}


def test_faults_in_folders_say_which_file(tmp_path: Path) -> None:
    lines = [*LINES, {"file_name": "../2.png"}, {"file_name": "1.png"}]
    lay_out(tmp_path, {"a/1.png": None, "a/2.png": None, "a/metadata.jsonl": lines})
    assert [str(fault) for fault in FolderDataset(tmp_path).faults] == [
        "a/metadata.jsonl line 3: file_name 'a/../2.png' leads outside the data set; use a relative path inside it",
        "a/1.png: line 4 repeats the file_name of line 1",
    ]


def test_metadata_that_change_are_another_data_set(tmp_path: Path) -> None:
    lay_out(tmp_path, {"a/1.png": None, "a/2.png": None, "a/metadata.jsonl": LINES})
    before = FolderDataset(tmp_path).fingerprint
    assert FolderDataset(tmp_path).fingerprint == before
    lay_out(tmp_path, {"a/metadata.jsonl": [LINES[0], {**LINES[1], "text": "A fox."}]})
    assert FolderDataset(tmp_path).fingerprint != before


@pytest.mark.parametrize("name", ["metadata.parquet", "metadata.json", "metadata.tsv"])
def test_metadata_that_are_not_read_are_named(tmp_path: Path, name: str) -> None:
    lay_out(tmp_path, {"1.png": None, "a/2.png": None, f"a/{name}": b"x"})
    [fault] = check_dataset(tmp_path)
    assert fault.where == f"a/{name}"
    assert not fault.costs_image


@pytest.mark.parametrize("suffix", sorted(SUFFIXES))
def test_every_ending_that_is_listed_can_be_read(tmp_path: Path, suffix: str) -> None:
    formats = {".jfif": "JPEG", ".jpe": "JPEG", ".mpo": "MPO", ".apng": "PNG", ".pnm": "PPM"}
    try:
        Image.new("RGB", (8, 8), "red").save(tmp_path / f"a{suffix}", formats.get(suffix))
    except (OSError, ValueError, KeyError):
        pytest.skip(f"Pillow does not write {suffix}")
    assert list(read(tmp_path)) == [f"a{suffix}"]
    assert load_image(tmp_path / f"a{suffix}").shape == (8, 8, 3)


def test_endings_are_read_where_the_library_is_there() -> None:
    assert (".avif" in SUFFIXES) == bool(features.check("avif"))
    assert (".jp2" in SUFFIXES) == bool(features.check("jpg_2000"))
    assert not SUFFIXES & UNREAD_SUFFIXES


def test_images_that_are_not_read_are_counted(tmp_path: Path) -> None:
    lay_out(tmp_path, {"1.png": None, "a.heic": b"x", "b/c.HEIC": b"x", "d.svg": "x", "notes.txt": "x", "e.dng": b""})
    assert [str(fault) for fault in check_dataset(tmp_path)] == [
        f"*{suffix}: {count} images of this kind are not read; convert them to JPEG or PNG"
        for suffix, count in ((".dng", 1), (".heic", 2), (".svg", 1))
    ]
    assert not any(fault.costs_image for fault in FolderDataset(tmp_path).faults)


def test_a_link_to_a_folder_inside_is_followed_once(tmp_path: Path) -> None:
    lay_out(tmp_path, {".store/1.png": None, "shown/2.png": None})
    os.symlink(".store", tmp_path / "images")
    os.symlink("shown", tmp_path / "again")
    os.symlink(".", tmp_path / "shown" / "loop")
    assert [*read(tmp_path)] == ["images/1.png", "shown/2.png"]
    assert FolderDataset(tmp_path).faults == []


@pytest.mark.parametrize("target", ["../real", "/nowhere", "loop"])
def test_a_link_to_a_folder_outside_is_named(tmp_path: Path, target: str) -> None:
    lay_out(tmp_path, {"real/1.png": None, "data/2.png": None})
    os.symlink(target, tmp_path / "data" / "loop")
    assert [*read(tmp_path / "data")] == ["2.png"]
    faults = [str(fault) for fault in check_dataset(tmp_path / "data")]
    assert [("outside" in fault, "loop" in fault) for fault in faults] == [(True, True)] * (target == "../real")
    (tmp_path / "data" / "2.png").unlink()
    with pytest.raises(TavqError, match="loop: this link leads to a folder outside" if faults else "holds no images"):
        FolderDataset(tmp_path / "data")


def test_nothing_that_was_read_before_is_read_in_another_way(tmp_path: Path) -> None:
    lay_out(tmp_path, {"b.png": None, "b/c.png": None, "b-1/x.png": None})
    assert list(FolderDataset(tmp_path)) == [Record("b-1/x.png"), Record("b.png"), Record("b/c.png")]
    with pytest.raises(UsageError, match="no images in the split 'val'; it has: train"):
        FolderDataset(tmp_path, "val")


FOREIGN = {
    "ade20k": "objectInfo150.txt",
    "celeba-hq": "CelebAMask-HQ/CelebA-HQ-to-CelebA-mapping.txt",
    "coco": "annotations/captions_train2017.json",
    "coco-qa": "cocoqa_test_2014.jsonl",
    "cub200": "CUB_200_2011/image_class_labels.txt",
    "flickr30k": "results_20130124.token",
    "flickr8k": "Flickr8k.token.txt",
    "huggingface": "train/dataset_info.json",
    "karpathy": "dataset_coco.json",
    "refcoco": "refcoco+/refs(unc).p",
    "textcaps": "TextCaps_0.1_train.json",
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_published_data_set_names_its_importer(tmp_path: Path, kind: str) -> None:
    lay_out(tmp_path, {FOREIGN[kind]: "{}"})
    assert len(check_dataset(tmp_path)) == 1
    with pytest.raises(DataError, match=f"has no usable image; .* tavq data import {kind}"):
        FolderDataset(tmp_path)
    assert [*read(lay_out(tmp_path, {"images/1.png": None}))] == ["images/1.png"]
    [fault] = check_dataset(tmp_path)
    assert (fault.where, fault.costs_image) == (FOREIGN[kind], False)
    assert f"imported with: tavq data import {kind}" in fault.reason


def test_every_importer_but_that_of_shards_is_known_by_its_files() -> None:
    assert {*PUBLISHED, "webdataset", "camvid"} == {*sources}  # CamVid has images and maps alone
    assert {*PUBLISHED} == {*FOREIGN}


@pytest.mark.parametrize("name", ["deep/er/000.TAR.XZ", "a.tar.gz", "b.tgz"])
def test_compressed_shards_name_their_importer(tmp_path: Path, name: str) -> None:
    with pytest.raises(UsageError, match=rf"shards with: tavq data import webdataset {re.escape(str(tmp_path))} OUT"):
        check_dataset(lay_out(tmp_path, {name: b""}))
    assert check_dataset(lay_out(tmp_path, IMAGES)) == []  # what images were unpacked from may stay


def test_a_folder_of_other_files_is_not_called_a_data_set_of_others(tmp_path: Path) -> None:
    lay_out(tmp_path, {"notes.txt": "", "state.json": "{}", "a/" * 9 + "train.tar": b""})
    with pytest.raises(UsageError, match=r"\.webp files into it\.$"):
        check_dataset(tmp_path)


@pytest.mark.parametrize(
    "text", ["../real", "./../real/deeper", "no/such/folder", "../real\n", "", "a note", "x" * 2000]
)
def test_a_link_that_git_wrote_as_a_text_is_named(tmp_path: Path, text: str) -> None:
    lay_out(tmp_path, {"real/deeper/1.png": None, "data/images": text, "data/more/2.png": None})
    faults = check_dataset(tmp_path / "data")
    if text.startswith((".", "./")) and not text.endswith("\n"):
        [fault] = faults
        assert (fault.where, fault.costs_image) == ("images", False)
        assert f"it is a text that names the folder {text!r}, as Git writes a link" in fault.reason
    else:
        assert faults == []
