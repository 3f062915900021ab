"""CLIP's projection in a text store: what is stored, what is kept, and what is refused."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from tiny_clip import write_clip

import tavq
from tavq.core.errors import FileError, UsageError
from tavq.core.files import read_json, write_json, write_json_lines
from tavq.interfaces import FULL_TEXT, GRANULARITIES, POOLED
from tavq.tasks.prompts import PromptEncoder
from tavq.text.encoders import load_encoder
from tavq.text.store import TextStore

TEXTS = {"1.png": "A bad cab had a bag. A dead bee.", "2.png": "A bad bed. A deaf cab."}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_clip(tmp_path_factory.mktemp("models") / "tiny-clip")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in TEXTS:
        Image.new("RGB", (16, 16)).save(folder / name)
    write_json_lines(folder / "metadata.jsonl", [{"file_name": key, "long_text": text} for key, text in TEXTS.items()])
    return folder


def build(images: Path, clip: Path, **how: Any) -> TextStore:
    return tavq.build_text_store(images, encoder=str(clip), full_text=True, jobs=1, **how)


def test_the_manifest_says_which_vectors_a_store_has(images: Path, clip: Path) -> None:
    plain, projected = (build(images, clip, out=images.parent / str(how), projection=how) for how in (False, True))
    assert "projected" not in read_json(plain.folder / "manifest.json")["encoder"]
    assert read_json(projected.folder / "manifest.json")["encoder"]["projected"] is True
    assert build(images, clip).manifest.encoder == projected.manifest.encoder  # the default, as in the public code
    matrix = load_encoder(clip).projection
    assert matrix is not None
    for key in TEXTS:
        before, after = plain.vectors(key), projected.vectors(key)
        for name in before:
            if name in ("phrases", "sentences", POOLED):
                np.testing.assert_allclose(after[name], before[name] @ matrix.numpy().T, atol=1e-5)
            else:  # words are rows of the embedding, full texts the hidden states of their tokens
                np.testing.assert_array_equal(after[name], before[name])
        assert {*GRANULARITIES, FULL_TEXT, POOLED} <= {*before}


def test_the_word_graph_has_the_vectors_of_its_store(images: Path, clip: Path) -> None:
    how = {"word_graph": True, "min_count": 0}
    plain = build(images, clip, out=images.parent / "plain", projection=False, **how).word_graph()
    graph = build(images, clip, **how).word_graph()
    matrix = load_encoder(clip).projection
    assert matrix is not None
    assert graph.adjectives == plain.adjectives
    np.testing.assert_allclose(graph.vectors, plain.vectors @ matrix.numpy().T, atol=1e-5)


def test_a_store_keeps_its_form_until_another_is_asked_for(images: Path, clip: Path) -> None:
    """Also a store from before the projection: its manifest does not know the setting."""
    graph = {"word_graph": True, "min_count": 0}
    before = build(images, clip, projection=False, **graph).manifest
    assert build(images, clip, **graph).manifest == before
    write_json_lines(
        images / "metadata.jsonl", [{"file_name": key, "long_text": f"{text} A cage."} for key, text in TEXTS.items()]
    )
    changed = build(images, clip, **graph).manifest
    assert changed.sha256 != before.sha256
    assert changed.encoder == before.encoder
    assert build(images, clip, projection=True, **graph).manifest.encoder.projected
    assert build(images, clip, **graph).manifest.encoder.projected


def test_a_model_reads_the_form_it_was_trained_with(images: Path, clip: Path) -> None:
    plain, projected = (build(images, clip, out=images.parent / str(how), projection=how) for how in (False, True))
    for own, other, flag in ((plain, projected, "--no-projection"), (projected, plain, "--projection")):
        metadata = {"text": own.manifest.model_dump(mode="json")}
        own.check_encoder(metadata["text"])
        with pytest.raises(UsageError, match=rf"projection, the model was trained with .* --encoder tiny-clip {flag}$"):
            other.check_encoder(metadata["text"])
        prompted = PromptEncoder(metadata, clip)(["A deaf cab."]).features.sentences.vectors[0]
        stored = load_encoder(clip, projection=own is projected).encode_units(["A deaf cab."])
        np.testing.assert_allclose(prompted, stored, atol=1e-6)


def test_a_graph_of_another_form_is_not_added(images: Path, clip: Path) -> None:
    store = build(images, clip, out=images.parent / "text-1-of-1", projection=False)
    with pytest.raises(UsageError, match=r"its word graph needs the same: .* --dtype float32 --no-projection$"):
        build_graph_by_merging(images, clip, store)


def build_graph_by_merging(images: Path, clip: Path, store: TextStore) -> TextStore:
    return tavq.build_text_store(
        images, encoder=str(clip), out=store.folder.with_name("text"), merge=True, word_graph=True, projection=True
    )


def test_an_unknown_form_in_a_manifest(images: Path, clip: Path) -> None:
    store = build(images, clip)
    path = store.folder / "manifest.json"
    manifest = read_json(path)
    del manifest["encoder"]["projected"]  # as if the store had been made before
    write_json(path, manifest)
    with pytest.raises(FileError, match="does not belong to the manifest"):
        TextStore.open(store.folder)
