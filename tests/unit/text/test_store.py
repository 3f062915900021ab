"""The store's round trip: every image gets the vectors of its own units, each distinct unit is stored once."""

import contextlib
import itertools
import json
import multiprocessing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.core.errors import DataError, FileError, TavqError, UsageError
from tavq.core.files import read_json, read_tensors, sha256, write_json, write_tensors
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.temporary import TEMP_PREFIX
from tavq.interfaces import GRANULARITIES
from tavq.text import building, encoding, splitting
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder
from tavq.text.granularity import split
from tavq.text.store import TextStore

TEXTS = {
    "b/2.png": "A red car. The dog sees a red car.",
    "a/1.png": "A red car and a blue dog.",
    "ü 3.png": "It rains.",
    "empty.png": "  \n",
    "emoji.png": "😀 !",
}


@pytest.fixture(scope="module")
def built(tiny: TextEncoder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("stores") / "text"
    build_store(TEXTS, tiny, "pattern", out)
    return out


@pytest.fixture
def store(built: Path) -> TextStore:
    return TextStore.open(built, verify=True)


def encoded(encoder: TextEncoder, text: str) -> dict[str, np.ndarray]:
    units = split(text)
    return {
        "words": encoder.encode_words(units.words).numpy(),
        "phrases": encoder.encode_units(units.phrases).numpy(),
        "sentences": encoder.encode_units(units.sentences).numpy(),
    }


def test_each_image_has_its_own_units_in_order(store: TextStore, tiny: TextEncoder) -> None:
    for key in ("a/1.png", "b/2.png", "ü 3.png"):
        units = split(TEXTS[key])
        assert store.units(key) == {name: units[name] for name in GRANULARITIES}
        vectors = store.vectors(key)
        assert [*vectors] == [*GRANULARITIES]
        for name, expected in encoded(tiny, TEXTS[key]).items():
            assert vectors[name].dtype == np.float32
            np.testing.assert_allclose(vectors[name], expected, atol=1e-6)


def test_an_image_without_words_has_empty_arrays(store: TextStore) -> None:
    assert {name: array.shape for name, array in store.vectors("ü 3.png").items()} == {
        "words": (0, 8),
        "phrases": (0, 8),
        "sentences": (1, 8),
    }


USABLE = ["A red car {n}.", "Two blue dogs and bird {n}. It rains."]
UNUSABLE = ["", " \n", "!", "…"]


@pytest.mark.parametrize(
    ("count", "jobs"), [*((count, 1) for count in (1, 2, 15, 16, 17, 65)), pytest.param(17, 2, marks=pytest.mark.slow)]
)
def test_images_in_the_store_and_faults_are_the_texts_read(
    tiny: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, count: int, jobs: int
) -> None:
    """Blocks of two texts, so that there are fewer blocks than processes are started for, as many, and more."""
    monkeypatch.setattr(splitting, "BLOCK_TEXTS", 2)
    kinds = [*USABLE, *UNUSABLE, "x" * 100_001 + " A dog."]
    texts = {f"{n}.png": kinds[n % len(kinds)].format(n=n) for n in range(count)}
    store = build_store(texts, tiny, "pattern", tmp_path / "text", jobs=jobs)
    missing = {key for key, reason in store.faults() if reason != building.CUT}
    assert {*store.keys} | missing == {*texts}
    assert len(store) + len(missing) == count
    assert sum(store.manifest.faults.values()) == len(store.faults())


def test_a_store_that_would_lack_texts_is_not_written(
    tiny: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a splitter that stops early would do: once after a block, once in the middle of one."""
    monkeypatch.setattr(splitting, "BLOCK_TEXTS", 2)
    whole = building.split_blocks
    monkeypatch.setattr(building, "split_blocks", lambda *args: itertools.islice(whole(*args), 1))
    with pytest.raises(TavqError, match=r"Of 16 texts 2 were kept and 0 left out, and '16\.png' was not read"):
        build_store({f"{n}.png": "A dog." for n in range(20)}, tiny, "pattern", tmp_path / "text")
    monkeypatch.setattr(building, "split_blocks", lambda name, blocks, jobs: whole(name, (b[:1] for b in blocks), jobs))
    with pytest.raises(TavqError, match="Of 5 texts 3 were kept and 0 left out; the store would lack texts"):
        build_store({f"{n}.png": "A dog." for n in range(5)}, tiny, "pattern", tmp_path / "other")
    assert not (tmp_path / "text").exists()
    assert not (tmp_path / "other").exists()


def test_each_distinct_unit_is_stored_once(store: TextStore) -> None:
    words, vectors = store.vocabulary("words")
    assert sorted(words) == ["blue", "car", "dog", "red"]
    assert vectors.shape == (4, 8)
    assert dict(zip(words, store.counts("words").tolist(), strict=True)) == {"red": 2, "car": 2, "dog": 2, "blue": 1}
    phrases, _ = store.vocabulary("phrases")
    assert sorted(phrases) == ["blue dog", "red car"]
    row = words.index("car")
    np.testing.assert_array_equal(store.vectors("b/2.png")["words"][1], vectors[row])


def test_dropped_images_are_counted_and_named(store: TextStore) -> None:
    assert len(store) == store.manifest.images == 3
    assert store.manifest.units == {"words": 4, "phrases": 2, "sentences": 4}
    assert store.manifest.faults == {
        "only white space or invisible characters in its text": 1,
        "no word or number in its text": 1,
    }
    assert store.faults() == [
        ("empty.png", "only white space or invisible characters in its text"),
        ("emoji.png", "no word or number in its text"),
    ]


def test_keys(store: TextStore) -> None:
    assert store.keys == ("b/2.png", "a/1.png", "ü 3.png")
    assert "A/1.png" not in store
    assert 7 not in store
    assert "a/1.png" in store
    assert "empty.png" not in store
    with pytest.raises(DataError, match=r"has no text for 'empty\.png'; it holds 3 images"):
        store.vectors("empty.png")


def test_the_manifest_names_encoder_and_splitter(store: TextStore, tiny: TextEncoder) -> None:
    assert store.width == 8
    assert store.manifest.encoder.model_dump() == {
        "name": "tiny-bert",
        "sha256": tiny.sha256,
        "width": 8,
        "precision": "float32",
    }
    assert store.manifest.splitter.name == "pattern"


def test_vectors_are_memory_mapped(store: TextStore) -> None:
    array = store.vocabulary("sentences")[1]
    assert not array.flags.writeable
    base = array
    while not isinstance(base, np.memmap):
        assert base.base is not None
        base = base.base
    store.vectors("a/1.png")["words"][:] = 0  # a copy: the store stays as it is
    assert store.vectors("a/1.png")["words"].any()


def test_the_same_texts_give_the_same_bytes(built: Path, tiny: TextEncoder, tmp_path: Path) -> None:
    build_store(iter(TEXTS.items()), tiny, "pattern", tmp_path / "text")
    assert {path.name for path in built.iterdir()} == {"store.safetensors", "manifest.json", "faults.jsonl"}
    for path in built.iterdir():
        assert (tmp_path / "text" / path.name).read_bytes() == path.read_bytes()


def test_the_block_size_changes_nothing(store: TextStore, tiny: TextEncoder, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.setattr(splitting, "BLOCK_TEXTS", 1)
    in_blocks = build_store(TEXTS, tiny, "pattern", tmp_path / "text")
    for path in (store.folder, in_blocks.folder):
        assert (
            MappedTensors(path / "store.safetensors").keys() == MappedTensors(store.folder / "store.safetensors").keys()
        )
    for name, array in MappedTensors(store.folder / "store.safetensors").items():
        np.testing.assert_array_equal(MappedTensors(in_blocks.folder / "store.safetensors")[name], array, name)


def test_float16_halves_the_vectors(store: TextStore, tiny: TextEncoder, tmp_path: Path) -> None:
    build_store(TEXTS, tiny, "pattern", tmp_path / "half", float16=True)
    assert MappedTensors(tmp_path / "half" / "store.safetensors")["words/vectors"].dtype == np.float16
    half = TextStore.open(tmp_path / "half", verify=True).vectors("a/1.png")
    for name, array in store.vectors("a/1.png").items():
        assert half[name].dtype == np.float32
        np.testing.assert_allclose(half[name], array, atol=2e-3)


def test_full_texts_keep_every_token(tiny: TextEncoder, tmp_path: Path) -> None:
    build_store(TEXTS, tiny, "pattern", tmp_path / "whole", full_text=True)
    whole = TextStore.open(tmp_path / "whole", verify=True)
    tokens, rows = whole.vocabulary("tokens")
    assert len(set(tokens)) == len(tokens) == len(rows)
    pieces = {
        "a/1.png": "a red car [UNK] a blue dog .",
        "b/2.png": "a red car . the dog [UNK] a red car .",
        "ü 3.png": "[UNK] [UNK] .",
    }
    for key in whole.keys:
        ids = tiny.tokenize([TEXTS[key]])
        expected, found = tiny.encode_tokens(ids)[0], whole.vectors(key)
        np.testing.assert_allclose(found["full_text"], expected.numpy(), atol=1e-6)
        np.testing.assert_allclose(found["pooled"], tiny.encode_units([TEXTS[key]])[0].numpy(), atol=1e-6)
        np.testing.assert_allclose(rows[found["full_text/ids"]], tiny.token_vectors(ids[0]).numpy(), atol=1e-7)
        assert " ".join(tokens[row] for row in found["full_text/ids"]) == pieces[key]
    assert [*whole.units("a/1.png")] == [*GRANULARITIES]


def test_a_store_without_full_texts_says_how_to_get_them(store: TextStore) -> None:
    with pytest.raises(UsageError, match=r"holds no token-level text; rebuild it with: tavq text DIR --full-text"):
        store.vocabulary("tokens")


def test_progress_ends_at_the_number_of_units(
    tiny: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding, "UNITS_CHUNK", 3)
    seen: list[Any] = []

    @contextlib.contextmanager
    def bars(title: str, total: int | None) -> Iterator[Any]:
        seen.append((title, total))
        yield seen.append

    build_store(TEXTS, tiny, "pattern", tmp_path / "text", full_text=True, bars=bars)
    tokens = len(TextStore.open(tmp_path / "text").vocabulary("tokens")[0])
    ends = [3, 4, 6, 9, 10, *range(13, 10 + tokens, 3), 10 + tokens, 13 + tokens]
    assert seen == [("Splitting text", None), 5, ("Encoding text", 13 + tokens), *ends]


def _width(store: TextStore) -> tuple[int, ...]:
    return store.vectors("a/1.png")["words"].shape


def test_a_store_can_be_sent_to_another_process(store: TextStore) -> None:
    remade, arguments = store.__reduce__()
    assert remade(*arguments).manifest == store.manifest
    with multiprocessing.get_context("fork").Pool(1) as pool:
        assert pool.apply(_width, (store,)) == (4, 8)


def test_a_long_text_is_cut_and_named(tiny: TextEncoder, tmp_path: Path) -> None:
    store = build_store({"a": "red car. " * 20_000, "b": "dog"}, tiny, "pattern", tmp_path / "text")
    assert ("a", "its text is longer than 100,000 characters; the rest was left out") in store.faults()
    assert store.manifest.units["words"] == 3


LONG = ["red dog car " * 5, "a red dog , " * 9, "dog " * 15, "dog " * 13 + "and a red car"]


@pytest.mark.parametrize("full_text", [False, True])
def test_texts_with_units_beyond_the_encoder_differ_and_are_listed(
    tiny: TextEncoder, tmp_path: Path, full_text: bool
) -> None:
    """Pairs that agree in all the tokens that one window holds, and a text that fits."""
    texts = {f"{n}{end}.png": f"{text.strip()} {end}" for n, text in enumerate(LONG) for end in ("cat", "car")}
    store = build_store({**texts, "short.png": "A red car. A dog."}, tiny, "pattern", tmp_path / "text", full_text)
    reason = building.LONG_UNIT.format(14)
    assert {key for key, why in store.faults() if why == reason} == {*texts}
    assert store.manifest.faults == {reason: len(texts)}
    assert len(store) == len(texts) + 1
    for number in range(len(LONG)):
        first, second = (store.vectors(f"{number}{end}.png")["sentences"] for end in ("cat", "car"))
        assert not np.array_equal(first, second)
    if full_text:
        assert not np.array_equal(store.vectors("2cat.png")["pooled"], store.vectors("2car.png")["pooled"])


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        ([("a", "x"), ("a", "y")], "The key 'a' occurs twice"),
        ([("\ud800", "x")], "is not valid text"),
        ([("", "x")], "is not valid text"),
        ({}, "None of 0 images has a text that can be split into units (there are none)"),
        (
            {"a": "", "b": "😀", "c": ""},
            "None of 3 images has a text that can be split into units (2: no usable text; 1: no word",
        ),
    ],
)
def test_texts_that_cannot_be_stored(texts: object, message: str, tiny: TextEncoder, tmp_path: Path) -> None:
    with pytest.raises(DataError) as caught:
        build_store(texts, tiny, "pattern", tmp_path / "text")  # type: ignore[arg-type]
    assert message in str(caught.value)
    assert not [*tmp_path.iterdir()]


def test_a_folder_of_something_else_is_never_replaced(tiny: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "1.png").touch()
    for out in (tmp_path / "images", tmp_path / "images" / "1.png"):
        with pytest.raises(UsageError, match="exists and is not a text store"):
            build_store(TEXTS, tiny, "pattern", out)
    assert (tmp_path / "images" / "1.png").exists()


def test_a_store_replaces_an_older_one_and_what_a_killed_build_left(tiny: TextEncoder, tmp_path: Path) -> None:
    (tmp_path / f"{TEMP_PREFIX}999999999-text").mkdir()  # no process has this number
    build_store(TEXTS, tiny, "pattern", tmp_path / "text")
    build_store({"new.png": "A soup."}, tiny, "pattern", tmp_path / "text")
    assert TextStore.open(tmp_path / "text").keys == ("new.png",)
    assert [path.name for path in tmp_path.iterdir()] == ["text"]


def test_an_encoder_with_broken_weights_is_stopped(
    tiny: TextEncoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(tiny), "encode_words", lambda self, words: self.encode_units(words) * float("nan"))
    with pytest.raises(DataError, match="'tiny-bert' gave a vector that is not finite"):
        build_store(TEXTS, tiny, "pattern", tmp_path / "text")


def test_a_manifest_of_another_encoder_is_refused(tiny: TextEncoder, tmp_path: Path) -> None:
    build_store(TEXTS, tiny, "pattern", tmp_path / "text")
    path = tmp_path / "text" / "manifest.json"
    manifest = read_json(path)
    for encoder in ({"name": "minilm"}, {"width": 16}, {"sha256": "0" * 64}):
        write_json(path, manifest | {"encoder": manifest["encoder"] | encoder})
        with pytest.raises(FileError, match="does not belong to the manifest"):
            TextStore.open(tmp_path / "text")
    write_json(path, manifest | {"format": 1})
    with pytest.raises(FileError, match=r"manifest\.json has format 1.*Rebuild the store with: tavq text DIR"):
        TextStore.open(tmp_path / "text")
    write_json(path, manifest | {"format": "new"})
    with pytest.raises(FileError, match=r"manifest\.json is not the manifest of a text store.*format"):
        TextStore.open(tmp_path / "text")


# --- which texts it holds ---------------------------------------------------------------------------------------


def test_it_recognizes_the_texts_it_was_built_from(store: TextStore, tiny: TextEncoder) -> None:
    def holds(texts: dict[str, str], whole: bool = False) -> bool:
        return store.matches(texts.items(), tiny, "pattern", whole)

    assert holds(TEXTS)
    assert holds(dict(reversed(TEXTS.items())))
    assert holds(TEXTS | {"without.png": "?"})
    assert not holds(TEXTS, whole=True)
    assert not holds(TEXTS | {"new.png": "A cat."})
    assert not holds(TEXTS | {"empty.png": "A cat."})
    assert not holds(TEXTS | {"a/1.png": "A red car and a blue cat."})
    assert not holds({key: text for key, text in TEXTS.items() if key != "a/1.png"})
    assert not store.matches(TEXTS.items(), tiny, "corpora", False)


def test_changed_texts_are_found(store: TextStore) -> None:
    assert store.find_changed(TEXTS.items()) == []
    edited = TEXTS | {"a/1.png": "A red car and a blue cat.", "stranger.png": "A cat."}
    assert store.find_changed(edited.items()) == ["a/1.png"]


def test_keys_with_equal_hashes_are_distinguished(tiny: TextEncoder, tmp_path: Path, monkeypatch: Any) -> None:
    for module in ("tavq.text.store", "tavq.text.store_writer"):
        monkeypatch.setattr(f"{module}.hash_text", lambda text: 7)
    store = build_store(TEXTS, tiny, "pattern", tmp_path / "text")
    for key in store.keys:
        assert store.units(key)["sentences"] == split(TEXTS[key]).sentences
    assert "stranger.png" not in store
    with pytest.raises(DataError, match="The key 'a' occurs twice"):
        build_store([("a", "A cat."), ("b", "A dog."), ("a", "A cow.")], tiny, "pattern", tmp_path / "twice")


def test_a_store_of_the_version_before_opens(tiny: TextEncoder, tmp_path: Path) -> None:
    new = build_store(TEXTS, tiny, "pattern", tmp_path / "new", full_text=True, float16=True)
    old = tmp_path / "old"
    old.mkdir()
    names = {"images": "pictures", "full_text": "whole", "float16": "half"}
    manifest = {names.get(name, name): value for name, value in new.manifest.model_dump().items()}
    contents = {name: value for name, value in manifest.items() if name not in ("bytes", "sha256")}
    tensors = read_tensors(new.folder / "store.safetensors")
    write_tensors(old / "store.safetensors", tensors, {"contents": json.dumps(contents)})
    size, digest = (old / "store.safetensors").stat().st_size, sha256(old / "store.safetensors")
    write_json(old / "manifest.json", manifest | {"bytes": size, "sha256": digest})
    opened = TextStore.open(old, verify=True)
    assert (opened.manifest.full_text, opened.manifest.float16, len(opened)) == (True, True, len(new))
    for key in new.keys:
        for name, vectors in new.vectors(key).items():
            np.testing.assert_array_equal(opened.vectors(key)[name], vectors)
