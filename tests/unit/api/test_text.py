"""What training says about a text store that does not fit its data set."""

import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_bert import write_bert

from tavq import recipes
from tavq.api import text
from tavq.api.text import build_text_store, warn_of_changed_text
from tavq.core.errors import DataError, UsageError
from tavq.core.files import write_json_lines
from tavq.data.folder import FolderDataset
from tavq.text.store import TextStore
from tavq.training.provenance import _as_extended

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


# --- a store that lacks a part -----------------------------------------------------------------------------------


@pytest.fixture
def by_name(bert: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Lets the encoder's short name lead to its folder, as `minilm` does."""
    load = text.load_encoder

    def load_by_name(name: str | Path, *arguments: Any) -> Any:
        return load(bert if str(name) == bert.name else name, *arguments)

    monkeypatch.setattr(text, "load_encoder", load_by_name)
    monkeypatch.setattr(text, "MIN_COUNT", 0)  # the data set has four images
    return bert


@pytest.mark.parametrize("float16", [False, True])
@pytest.mark.parametrize("each_caption", [False, True])
@pytest.mark.parametrize(
    ("recipe", "full_text", "graph"),
    [("ta-vqgan-tiny", False, False), ("lg-vqgan-tiny", True, False), ("vqct-tiny", False, True)],
)
def test_a_store_gets_what_a_recipe_reads_and_keeps_what_it_has(
    data: Path, by_name: Path, recipe: str, full_text: bool, graph: bool, float16: bool, each_caption: bool
) -> None:
    before = build_text_store(data, encoder=by_name.name, float16=float16, each_caption=each_caption, jobs=1)
    manifest = before.manifest
    vectors = {name: before.vocabulary(name)[1].copy() for name in ("words", "phrases", "sentences")}
    model = recipes.load(recipe).model
    text.ensure_store(FolderDataset(data), [model])
    after = TextStore.open(data / "text", verify=True)
    assert (after.manifest.full_text, after.has_word_graph) == (full_text, graph)
    assert (after.manifest == manifest) == (not full_text)
    assert (after.each_caption, after.manifest.float16) == (each_caption, float16)
    for name, expected in vectors.items():
        assert np.array_equal(after.vocabulary(name)[1], expected)
    built = sorted(data.rglob("*"), key=str)
    text.ensure_store(FolderDataset(data), [model])
    assert sorted(data.rglob("*"), key=str) == built


def test_units_are_copied_and_not_encoded_again(data: Path, by_name: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    build_text_store(data, encoder=by_name.name, jobs=1)
    monkeypatch.setattr("tavq.text.encoders.TextEncoder.encode_units", None)
    monkeypatch.setattr("tavq.text.encoders.TextEncoder.encode_words", None)
    text.ensure_store(FolderDataset(data), [recipes.load("lg-vqgan-tiny").model])
    assert TextStore.open(data / "text").manifest.full_text


@pytest.mark.parametrize("recipe", ["lg-vqgan-tiny", "vqct-tiny"])
def test_an_encoder_that_is_not_found_by_its_name_is_not_replaced(
    data: Path, bert: Path, recipe: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    build_text_store(data, encoder=str(bert), jobs=1)
    before = TextStore.open(data / "text").manifest
    load, other = text.load_encoder, write_bert(tmp_path / "tiny-bert", seed=1)

    def missing(name: str | Path, *arguments: Any) -> Any:
        raise UsageError(f"There is no text encoder {name}.")

    def other_of_that_name(name: str | Path, *arguments: Any) -> Any:
        return load(other, *arguments)

    for replaced, message in ((missing, "is not found by that name"), (other_of_that_name, "another encoder")):
        monkeypatch.setattr(text, "load_encoder", replaced)
        with pytest.raises(UsageError, match=f"{message}.*tavq text .* --encoder tiny-bert --"):
            text.ensure_store(FolderDataset(data), [recipes.load(recipe).model])
    assert TextStore.open(data / "text", verify=True).manifest == before


def test_a_run_on_the_store_as_it_was_can_be_resumed(data: Path, by_name: Path) -> None:
    before = build_text_store(data, encoder=by_name.name, jobs=1).manifest.model_dump(mode="json")
    text.ensure_store(FolderDataset(data), [recipes.load("lg-vqgan-tiny").model])
    after = TextStore.open(data / "text").manifest.model_dump(mode="json")
    assert _as_extended(before, after) == after
    assert _as_extended(after, before) == after  # what is missing now is missed
    for name, value in (("texts", "0" * 64), ("images", 9), ("float16", True)):
        assert _as_extended(before, {**after, name: value}) != {**after, name: value}


def test_only_faults_of_what_is_read_are_named(data: Path, bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    broken = {"objects": [{"box": [1, 1, 0, 5], "name": "x"}] * 1200, "questions": [7], "segmentation": "../s.png"}
    lines = [{**LINES[0], **broken}, {**LINES[3], "captions": ["A dog.", ""], "long_text": 7}]
    write_json_lines(data / "metadata.jsonl", lines)
    for each_caption in (False, True):
        caplog.clear()
        build_text_store(data, encoder=str(bert), jobs=1, out=data / f"t{each_caption}", each_caption=each_caption)
        messages = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
        of_long_text = [] if each_caption else ["Left out a part of 3.png: long_text must be a string, got a number"]
        assert messages == ["Left out a part of 3.png: captions entry 2 is empty", *of_long_text]


def test_faults_are_named_where_no_image_has_a_text(data: Path, bert: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A long_text.jsonl whose names fit no image is why there is none."""
    (data / "metadata.jsonl").unlink()
    write_json_lines(data / "long_text.jsonl", [{"file_name": "images/0.png", "text": "A red car."}])
    with pytest.raises(
        DataError, match=r"^None of \d images has a text that can be split .* \(\d: no usable text\)\.$"
    ):
        build_text_store(data, encoder=str(bert), jobs=1)
    assert "name no image of the data set, such as 'images/0.png'" in caplog.text or "names no image" in caplog.text
