"""Stores that keep the captions of an image apart: made by a flag, told apart from others, and kept as they are."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.api.text import build_text_store, warn_of_changed_text
from tavq.core.caption_keys import caption_key
from tavq.core.errors import UsageError
from tavq.core.files import read_json
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.text.statistics import read_statistics
from tavq.text.store import TextStore

RECORDS = (
    {"captions": ["A red car .", "The dog sees a red car", "A blue bowl"]},
    {"captions": ["...", "A cat."], "long_text": "Soup of the dog."},
    {"captions": []},
    {"captions": ["A red car."]},
)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write(tmp_path / "data", RECORDS)


def write(folder: Path, records: tuple[dict[str, Any], ...]) -> Path:
    for number in range(len(records)):
        save_png(folder / f"{number}.png", np.full((16, 16, 3), number, np.uint8))
    lines = [json.dumps({"file_name": f"{number}.png", **record}) for number, record in enumerate(records)]
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def test_each_caption_has_its_own_units(data: Path, tiny_bert: Path) -> None:
    store = build_text_store(data, encoder=str(tiny_bert), each_caption=True, full_text=True, jobs=1)
    assert store.each_caption
    assert store.keys == ("0.png", "0.png\n1", "0.png\n2", "1.png\n1", "3.png")
    assert store.units("0.png")["sentences"] == ("A red car.",)
    assert store.units(caption_key("0.png", 1))["words"] == ("dog", "red", "car")
    assert len(store.vectors(caption_key("1.png", 1))["full_text"]) == 3  # a, cat and the full stop; no long text
    assert (len(store), store.images) == (5, 3)
    found = read_statistics(store)
    assert (found.images, found.texts) == (3, 5)
    assert dict(store.faults()) == {"1.png": "no word or number in its text", "2.png": "no usable text"}


def test_units_are_those_of_the_joined_text(data: Path, tiny_bert: Path) -> None:
    joined = build_text_store(data, encoder=str(tiny_bert), out=data.parent / "joined", jobs=1)
    apart = build_text_store(data, encoder=str(tiny_bert), out=data.parent / "apart", each_caption=True, jobs=1)
    assert not joined.each_caption
    for name, units in joined.units("0.png").items():
        own = [apart.units(caption_key("0.png", number))[name] for number in range(3)]
        assert tuple(dict.fromkeys(unit for caption in own for unit in caption)) == units
    assert "each_caption" not in read_json(joined.folder / "manifest.json")
    assert TextStore.open(joined.folder, verify=True).manifest == joined.manifest


def test_a_store_keeps_its_kind_until_another_is_asked_for(data: Path, tiny_bert: Path) -> None:
    def build(**settings: Any) -> TextStore:
        return build_text_store(data, encoder=str(tiny_bert), jobs=1, **settings)

    apart = build(each_caption=True)
    assert build().manifest == build(each_caption=True).manifest == apart.manifest
    rebuilt = build(full_text=True)
    assert (rebuilt.each_caption, rebuilt.manifest.full_text) == (True, True)
    assert not build(each_caption=False).each_caption
    assert not build().each_caption


def test_single_captions_are_marked_too(tmp_path: Path, tiny_bert: Path) -> None:
    """The texts are those of a joined store, so only the flag tells the two apart."""
    data = write(tmp_path / "one", ({"captions": ["A red car."]}, {"captions": ["A cat."]}))
    assert not build_text_store(data, encoder=str(tiny_bert), jobs=1).each_caption
    assert build_text_store(data, encoder=str(tiny_bert), each_caption=True, jobs=1).each_caption


def test_shards_hold_all_captions_of_their_images(data: Path, tiny_bert: Path) -> None:
    whole = build_text_store(data, encoder=str(tiny_bert), out=data.parent / "whole", each_caption=True, jobs=1)
    for part in ("1/2", "2/2"):
        build_text_store(data, encoder=str(tiny_bert), each_caption=True, shard=part, jobs=1)
    merged = build_text_store(data, merge=True)
    assert merged.each_caption
    assert sorted(merged.keys) == sorted(whole.keys)
    for key in whole.keys:
        np.testing.assert_array_equal(merged.vectors(key)["sentences"], whole.vectors(key)["sentences"])


def test_shards_of_both_kinds_are_not_joined(data: Path, tiny_bert: Path) -> None:
    for part, apart in (("1/2", True), ("2/2", False)):
        build_text_store(data, encoder=str(tiny_bert), each_caption=apart, shard=part, jobs=1)
    with pytest.raises(UsageError, match="differ in each_caption: True and False"):
        build_text_store(data, merge=True)
    with pytest.raises(UsageError, match="remove --shard, --full-text, --float16 and --each-caption"):
        build_text_store(data, merge=True, each_caption=True)


def test_a_data_set_without_captions_is_refused(tmp_path: Path, tiny_bert: Path) -> None:
    data = write(tmp_path / "long", ({"long_text": "A red car."},))
    with pytest.raises(UsageError, match=r"--each-caption: .* has no captions to keep apart"):
        build_text_store(data, encoder=str(tiny_bert), each_caption=True, jobs=1)
    assert not (data / "text").exists()


def test_a_changed_caption_is_reported_by_its_image(data: Path, tiny_bert: Path, caplog: Any) -> None:
    store = build_text_store(data, encoder=str(tiny_bert), each_caption=True, jobs=1)
    caplog.clear()
    warn_of_changed_text(store, FolderDataset(data))
    assert [record.message for record in caplog.records if record.levelname == "WARNING"] == []
    changed = ({"captions": ["A red car .", "The dog sees a bowl", "Soup"]}, *RECORDS[1:])
    warn_of_changed_text(store, FolderDataset(write(data, changed)))
    [warning] = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert warning.startswith("The text of 1 images (0.png) changed")
