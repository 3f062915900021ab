"""Texts and names of folder data sets as editors on other systems write them."""

import json
import unicodedata
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from tavq.core.config import read_yaml
from tavq.core.files import read_json, read_json_lines, read_lines, read_text
from tavq.data.folder import FolderDataset, check_dataset

MARK = "\ufeff"


def lay_out(folder: Path, line: dict[str, Any], stored: str) -> Path:
    folder.mkdir(exist_ok=True)
    Image.new("RGB", (8, 8)).save(folder / stored)
    (folder / "metadata.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n")
    return folder


def test_every_reader_of_text_passes_over_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "f"
    path.write_text(f"{MARK}[1]\n")
    assert read_text(path) == "[1]\n"
    assert list(read_lines(path)) == ["[1]\n"]
    assert read_json(path) == [1]
    assert read_json_lines(path) == [[1]]
    path.write_text(f"{MARK}extends: vqgan-tiny\n")
    assert read_yaml(read_text(path), "f") == {"extends": "vqgan-tiny"}


@pytest.mark.parametrize("lines", [[1], [2], [1, 2]])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_mark_in_metadata_and_descriptions(tmp_path: Path, lines: list[int], end: str) -> None:
    """In the first line as an editor writes it, and in a later one where files were joined."""
    names = ["1.png", "2.png"]
    metadata = [f'{MARK * (n in lines)}{{"file_name": "{name}"}}' for n, name in enumerate(names, 1)]
    texts = [f'{MARK * (n in lines)}{{"file_name": "{name}", "text": "A dog."}}' for n, name in enumerate(names, 1)]
    for name in names:
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    (tmp_path / "metadata.jsonl").write_bytes("".join(line + end for line in metadata).encode())
    (tmp_path / "long_text.jsonl").write_bytes("".join(line + end for line in texts).encode())
    dataset = FolderDataset(tmp_path)
    assert dataset.faults == []
    assert [record.text for record in dataset] == ["A dog."] * 2


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("It\x92s a caf\x96bar", "It\u2019s a caf\u2013bar"),
        ("\x93A dog\x94", "\u201cA dog\u201d"),
        ("A\x85dog", "A dog"),
        ("A\x81dog", "A dog"),
        ("A\u2028dog", "A\u2028dog"),
    ],
)
@pytest.mark.parametrize("field", ["captions", "long_text", "question", "phrase"])
def test_c1_characters_are_the_windows_ones_that_they_were(
    tmp_path: Path, field: str, text: str, expected: str
) -> None:
    question = {"question": text, "answer": text, "type": text}
    thing = {"box": [0, 0, 1, 1], "name": text, "phrases": [text]}
    fields = {"captions": {"captions": [text]}, "long_text": {"long_text": text}, "question": {"questions": [question]}}
    fields["phrase"] = {"objects": [thing]}
    [record] = dataset = FolderDataset(lay_out(tmp_path, {"file_name": "a.png", **fields[field]}, "a.png"))
    assert dataset.faults == []
    found = [*record.captions, record.long_text]
    found += [part for each in record.questions for part in (each.question, each.answer, each.type)]
    found += [part for each in record.objects for part in (each.name, *each.phrases)]
    assert {part for part in found if part} == {expected}


@pytest.mark.parametrize("listed", ["NFC", "NFD"])
@pytest.mark.parametrize("stored", ["NFC", "NFD"])
@pytest.mark.parametrize("described", ["NFC", "NFD"])
def test_names_meet_in_every_unicode_form(tmp_path: Path, listed: Any, stored: Any, described: Any) -> None:
    normalize, name = unicodedata.normalize, "Zoë é.png"
    lay_out(tmp_path, {"file_name": normalize(listed, name)}, normalize(stored, name))
    line = {"file_name": normalize(described, name), "text": "A dog."}
    (tmp_path / "long_text.jsonl").write_text(json.dumps(line, ensure_ascii=False) + "\n")
    [record] = FolderDataset(tmp_path)
    assert record.text == "A dog."
    assert (tmp_path / record.file_name).is_file()
    assert check_dataset(tmp_path) == []


def test_a_missing_file_keeps_its_name(tmp_path: Path) -> None:
    lay_out(tmp_path, {"file_name": "é.png"}, "other.png")
    [fault] = check_dataset(tmp_path)
    assert fault.where == "é.png"
