"""What training says about a text store that does not fit its data set."""

import logging
from pathlib import Path

import pytest
from PIL import Image
from tiny_bert import write_bert

from tavq.api.text import build_text_store, warn_of_changed_text
from tavq.core.files import write_json_lines
from tavq.data.folder import FolderDataset

LINES = [
    {"file_name": "0.png", "captions": ["A red car."]},
    {"file_name": "1.png", "captions": ["…"]},
    {"file_name": "2.png"},
    {"file_name": "3.png", "captions": ["Two blue dogs."]},
]


@pytest.fixture(scope="module")
def bert(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_bert(tmp_path_factory.mktemp("models") / "tiny-bert")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir()
    for line in LINES:
        Image.new("RGB", (8, 8)).save(folder / str(line["file_name"]))
    write_json_lines(folder / "metadata.jsonl", LINES)
    return folder


def test_images_without_text_are_counted_and_lost_texts_are_named(
    data: Path, bert: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store = build_text_store(data, encoder=str(bert), jobs=1)
    caplog.set_level(logging.INFO, "tavq")
    caplog.clear()
    warn_of_changed_text(store, FolderDataset(data))
    [line] = caplog.records
    assert line.levelname == "INFO"
    assert "2 of 4 images have no text in" in line.getMessage()

    caplog.clear()
    Image.new("RGB", (8, 8)).save(data / "4.png")
    write_json_lines(data / "metadata.jsonl", [*LINES, {"file_name": "4.png", "captions": ["A cat."]}])
    warn_of_changed_text(store, FolderDataset(data))
    counted, lost = caplog.records
    assert "3 of 5 images have no text" in counted.getMessage()
    assert lost.levelname == "WARNING"
    assert "lacks the text of 1 images (4.png first)" in lost.getMessage()
