"""A search index holds the vectors of its space, finds what brute force finds, and is refused if it is damaged."""

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from tavq.core import files, temporary
from tavq.core.errors import DataError, FileError, TavqError, UsageError
from tavq.core.precision import Precision
from tavq.data.folder import FolderDataset
from tavq.data.records import Record
from tavq.search import building
from tavq.search.building import build_index
from tavq.search.index import MANIFEST, TABLE, SearchIndex

WORDS = {"red": (1, 0, 0), "green": (0, 1, 0), "blue": (0, 0, 1), "yellow": (0.7, 0.7, 0)}


class Colours:
    """A space of three colours: that of the centre of an image, and that of the word in a caption."""

    size, sha256, text_store = 32, "a" * 64, None
    precision: Precision = "fp32"

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "tokenizer").mkdir(parents=True)
        for name in (
            "config.json",
            "model.safetensors",
            "README.md",
            "words.json",
            "notes.txt",
            "tokenizer/config.json",
        ):
            (folder / name).write_text(name)
        self.most = 0

    def read_texts(self, record: Record) -> Sequence[str]:
        return record.captions

    def embed_images(self, images: Tensor) -> Tensor:
        self.most = max(self.most, len(images))
        return torch.nn.functional.normalize(images[:, :, 14:18, 14:18].mean((2, 3)) + 1.001, dim=1)

    def embed_texts(self, texts: Sequence[tuple[str, str]]) -> Tensor:
        assert all(text for _, text in texts)
        rows = [WORDS[next(word for word in text.lower().split() if word in WORDS)] for _, text in texts]
        return torch.nn.functional.normalize(torch.tensor(rows).float(), dim=1)

    def embed_query(self, text: str) -> tuple[Tensor, tuple[str, ...]]:
        return self.embed_texts([("", text)]), ()


@pytest.fixture
def space(tmp_path: Path) -> Colours:
    return Colours(tmp_path / "model")


@pytest.fixture
def index(space: Colours, shared_images: Path, tmp_path: Path) -> Path:
    build_index(space, FolderDataset(shared_images), tmp_path / "index")
    return tmp_path / "index"


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_index_names_its_precision_unless_it_is_exact(
    precision: Precision, space: Colours, index: Path, shared_images: Path, tmp_path: Path
) -> None:
    space.precision = precision
    made, _ = build_index(space, FolderDataset(shared_images), tmp_path / "named")
    assert made.manifest.precision == precision
    written = json.loads((tmp_path / "named" / MANIFEST).read_text())
    assert written.get("precision") == (None if precision == "fp32" else precision)
    assert SearchIndex.open(tmp_path / "named").find_images(np.eye(3, dtype=np.float32)[:1], 1)
    same = (tmp_path / "named" / TABLE).read_bytes() == (index / TABLE).read_bytes()
    assert same == (precision == "fp32")  # the bytes that earlier versions wrote


def rewritten(data: Path, change: Callable[[list[dict[str, Any]]], list[dict[str, Any]]]) -> Path:
    path = data / "metadata.jsonl"
    lines = change([json.loads(line) for line in path.read_text().splitlines()])
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return data


def test_it_holds_the_vectors_of_the_space(index: Path, space: Colours, shared_images: Path) -> None:
    made = SearchIndex.open(index, verify=True)
    manifest = made.manifest
    assert (manifest.images, manifest.texts, manifest.unreadable, manifest.width, manifest.float16) == (
        16,
        16,
        0,
        3,
        False,
    )
    assert (manifest.model, manifest.split, manifest.data, manifest.data_folder) == (
        "a" * 64, None, "images", str(shared_images.resolve()),
    )  # fmt: skip
    names = [made.key(row) for row in range(16)]
    assert names == sorted(f"images/{number}.png" for number in range(16))
    assert made.text(0) == "A red square."
    assert made.text(2) == "A blue stripe."  # of images/10.png, which stands third
    assert space.most <= building.IMAGE_BATCH
    files_there = sorted(str(path.relative_to(index / "model")) for path in (index / "model").rglob("*.*"))
    assert files_there == ["README.md", "config.json", "model.safetensors", "tokenizer/config.json", "words.json"]


def test_the_batch_size_of_texts_changes_nothing(
    index: Path, space: Colours, shared_images: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "TEXT_BATCH", 5)
    first, (second, _) = (
        SearchIndex.open(index),
        build_index(space, FolderDataset(shared_images), tmp_path / "other"),
    )
    for name, table in first._arrays.items():
        np.testing.assert_array_equal(table, second._arrays[name])


def test_a_text_finds_images_of_its_colour(index: Path, space: Colours) -> None:
    [hits] = SearchIndex.open(index).find_images(space.embed_query("red")[0].numpy(), 4)
    numbers = {int(Path(hit.file_name).stem) % 4 for hit in hits}
    assert numbers == {0}
    assert [hit.score for hit in hits] == sorted((hit.score for hit in hits), reverse=True)
    assert all(hit.text is None for hit in hits)


def test_an_image_finds_texts_with_the_image_they_belong_to(index: Path, space: Colours) -> None:
    [hits] = SearchIndex.open(index).find_texts(np.array([[0, 0, 1]], np.float32), 4)
    # four blue things tie at 1; they come in the order of their images' names: 10, 14, 2, 6
    assert [(hit.text, hit.file_name) for hit in hits] == [
        ("A blue stripe.", "images/10.png"),
        ("A blue cross.", "images/14.png"),
        ("A blue square.", "images/2.png"),
        ("A blue disc.", "images/6.png"),
    ]
    assert {hit.score for hit in hits} == {1.0}


@pytest.mark.parametrize("float16", [False, True])
def test_it_finds_what_brute_force_finds(float16: bool, space: Colours, shared_images: Path, tmp_path: Path) -> None:
    made, _ = build_index(space, FolderDataset(shared_images), tmp_path / "index", float16=float16)
    rows = made._arrays["images"]
    assert rows.dtype == (np.float16 if float16 else np.float32)
    queries = np.random.default_rng(0).normal(size=(5, 3)).astype(np.float32)
    scores = (rows.astype(np.float64) @ queries.T.astype(np.float64)).T.astype(np.float32)
    for query, hits in zip(scores, made.find_images(queries, 7), strict=True):
        best = sorted(range(16), key=lambda row, query=query: (-query[row], made.key(row)))[:7]  # type: ignore[misc]
        assert [hit.file_name for hit in hits] == [made.key(row) for row in best]
        assert [hit.score for hit in hits] == [float(query[row]) for row in best]


def test_distinct_texts_are_stored_once_with_the_first_image(
    space: Colours, image_folder: Path, tmp_path: Path
) -> None:
    def change(lines: list[dict[str, Any]]) -> list[dict[str, Any]]:
        for line in lines[:9]:
            line["captions"] = ["A red thing.", "A green thing.", "A red thing."]
        return lines

    made, _ = build_index(space, FolderDataset(rewritten(image_folder, change)), tmp_path / "index")
    assert made.manifest.texts == 2 + 7
    [hits] = made.find_texts(np.array([[1, 0, 0]], np.float32), 2)
    assert (hits[0].text, hits[0].file_name) == ("A red thing.", "images/0.png")
    assert [made.text(row) for row in range(9)].count("A red thing.") == 1


def test_the_order_of_the_lines_changes_nothing(space: Colours, image_folder: Path, tmp_path: Path) -> None:
    first, _ = build_index(space, FolderDataset(image_folder), tmp_path / "first")
    rewritten(image_folder, lambda lines: lines[::-1])
    second, _ = build_index(space, FolderDataset(image_folder), tmp_path / "second")
    assert first._arrays.keys() == second._arrays.keys()
    for name, table in first._arrays.items():
        np.testing.assert_array_equal(table, second._arrays[name])


def test_without_texts(space: Colours, image_folder: Path, tmp_path: Path) -> None:
    (image_folder / "metadata.jsonl").unlink()
    made, _ = build_index(space, FolderDataset(image_folder), tmp_path / "index")
    assert (made.manifest.images, made.manifest.texts) == (16, 0)
    assert made.find_texts(np.ones((1, 3), np.float32), 3) == [[]]


def test_only_a_split(space: Colours, image_folder: Path, tmp_path: Path) -> None:
    made, _ = build_index(space, FolderDataset(image_folder, "val"), tmp_path / "index")
    assert [made.key(row) for row in range(made.manifest.images)] == [
        "images/10.png",
        "images/11.png",
        "images/12.png",
    ]
    assert made.manifest.split == "val"


@pytest.mark.parametrize("broken", [[0], [15], [3, 4, 5], [9]])
def test_images_that_cannot_be_read_are_never_found(
    broken: list[int], space: Colours, image_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(building, "IMAGE_BATCH", 4)
    for number in broken:
        (image_folder / f"images/{number}.png").write_bytes(b"no image")
    made, faults = build_index(space, FolderDataset(image_folder), tmp_path / "index")
    assert made.manifest.unreadable == len(broken) == len(faults)
    [hits] = made.find_images(np.array([[1, 1, 1]], np.float32), 100)
    assert {hit.file_name for hit in hits} == {f"images/{n}.png" for n in range(16) if n not in broken}
    rows = [row for row in range(16) if int(Path(made.key(row)).stem) in broken]
    assert np.flatnonzero(np.isnan(made._arrays["images"]).all(axis=1)).tolist() == rows


def test_no_image_can_be_read(space: Colours, image_folder: Path, tmp_path: Path) -> None:
    for path in (image_folder / "images").iterdir():
        path.write_bytes(b"no image")
    with pytest.raises(DataError, match=r"16 of 16 images .* cannot be read"):
        build_index(space, FolderDataset(image_folder), tmp_path / "index")
    assert not (tmp_path / "index").exists()


# --- building is all or nothing -----------------------------------------------------------------------------------


def test_a_build_that_fails_leaves_the_older_index(
    index: Path, space: Colours, shared_images: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {path.name: path.read_bytes() for path in index.iterdir() if path.is_file()}
    monkeypatch.setattr(Colours, "embed_images", lambda self, images: 1 / 0 if len(images) > 1 else torch.ones(1, 3))
    with pytest.raises(ZeroDivisionError):
        build_index(space, FolderDataset(shared_images), index)
    assert {path.name: path.read_bytes() for path in index.iterdir() if path.is_file()} == before
    assert [path.name for path in index.parent.iterdir() if path.name.startswith(temporary.TEMP_PREFIX)] == []
    SearchIndex.open(index, verify=True)


def test_an_older_index_is_replaced_and_leftovers_are_removed(index: Path, space: Colours, shared_images: Path) -> None:
    (index.parent / f"{temporary.TEMP_PREFIX}999999999-index").mkdir()
    made, _ = build_index(space, FolderDataset(shared_images, "test"), index)
    assert made.manifest.images == 3
    assert [path.name for path in index.parent.iterdir() if path.name.startswith(temporary.TEMP_PREFIX)] == []


def test_something_else_is_never_replaced(space: Colours, image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    for place in (image_folder, tmp_path / "file"):
        with pytest.raises(UsageError, match="already holds something that is not a search index"):
            build_index(space, FolderDataset(image_folder), place)
    (tmp_path / "empty").mkdir()
    build_index(space, FolderDataset(image_folder), tmp_path / "empty")


# --- damaged indexes -----------------------------------------------------------------------------------------------


def test_where_an_index_is_searched(index: Path, tmp_path: Path) -> None:
    assert SearchIndex.open(tmp_path).folder == index  # a run folder holds it as `index`
    with pytest.raises(UsageError, match=r"There is no search index at '.*nowhere'.*tavq search index MODEL"):
        SearchIndex.open(tmp_path / "nowhere")


def test_truncated_at_any_byte(index: Path) -> None:
    whole = (index / TABLE).read_bytes()
    header = 8 + int.from_bytes(whole[:8], "little")
    for length in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(whole) // 2, len(whole) - 1):
        (index / TABLE).write_bytes(whole[:length])
        with pytest.raises(FileError, match=TABLE):
            SearchIndex.open(index)
    (index / TABLE).write_bytes(whole + b"\0")
    with pytest.raises(FileError, match=TABLE):
        SearchIndex.open(index)
    text = (index / MANIFEST).read_text()
    (index / TABLE).write_bytes(whole)
    for length in (0, 1, len(text) // 2, len(text) - 3):
        (index / MANIFEST).write_text(text[:length])
        with pytest.raises(FileError, match=MANIFEST):
            SearchIndex.open(index)


def test_a_flipped_byte_is_detected(index: Path) -> None:
    whole = bytearray((index / TABLE).read_bytes())
    for place in range(0, len(whole), 97):
        whole[place] ^= 1
        (index / TABLE).write_bytes(whole)
        with pytest.raises(TavqError):
            SearchIndex.open(index, verify=True)
        whole[place] ^= 1


def changed(index: Path, **values: Any) -> None:
    """The manifest with other values."""
    manifest = json.loads((index / MANIFEST).read_text()) | values
    (index / MANIFEST).write_text(json.dumps(manifest))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"format": 1}, r"has format 1, from another version of tavq; this version reads format 2"),
        ({"format": "1"}, r"is not the manifest of a search index.*format"),
        ({"format": None}, r"is not the manifest"),
        ({"images": 10**12}, r"images.*less than or equal"),
        ({"images": 0}, r"images"),
        ({"images": 2**31}, r"does not belong to the index"),
        ({"texts": -1}, r"texts"),
        ({"width": 10**9}, r"width"),
        ({"width": 4}, r"does not belong to the index"),
        ({"float16": True}, r"does not belong to the index"),
        ({"float16": "perhaps"}, r"float16"),
        ({"model": "b" * 64}, r"does not belong to the index"),
        ({"bytes": 1}, r"was cut or altered: \d+ bytes, expected 1"),
        ({"sha256": "0" * 64}, r"was altered or truncated: its sha256 is"),
        ({"unknown": 1}, r"Unknown setting 'unknown'"),
        ({"data_folder": 7}, r"data_folder"),
    ],
)
def test_a_wrong_manifest(values: dict[str, Any], message: str, index: Path) -> None:
    changed(index, **values)
    with pytest.raises(FileError, match=message):
        SearchIndex.open(index, verify=True)


def test_an_invalid_manifest(index: Path) -> None:
    for text in ("[]", "3", "{}", '{"format": 1}', "\xff"):
        (index / MANIFEST).write_bytes(text.encode("latin-1"))
        with pytest.raises(FileError, match=MANIFEST):
            SearchIndex.open(index)


def forged(index: Path, change: Callable[[dict[str, Tensor]], None]) -> None:
    """The table with other tensors and a manifest that goes with it, as a stranger could write them."""
    from safetensors.torch import load_file

    tensors = load_file(index / TABLE)
    change(tensors)
    contents = json.loads((index / MANIFEST).read_text())
    for key in ("bytes", "sha256", "unreadable", "data_folder"):
        del contents[key]
    files.write_tensors(index / TABLE, tensors, {"contents": json.dumps(contents)})
    changed(index, bytes=(index / TABLE).stat().st_size, sha256=files.sha256(index / TABLE))


HOSTILE: dict[str, tuple[Callable[[dict[str, Tensor]], Any], str]] = {
    "owner-beyond": (lambda t: t["owners"].__setitem__(3, 16), "owners is not below the number of images, 16"),
    "owner-below": (lambda t: t["owners"].__setitem__(3, -1), "owners is not below the number of images, 16"),
    "offset-beyond": (lambda t: t["keys_offsets"].__setitem__(16, 10**9), "keys_offsets does not divide"),
    "offset-back": (lambda t: t["text_offsets"].__setitem__(4, 10**6), "text_offsets does not divide"),
    "offset-first": (lambda t: t["text_offsets"].__setitem__(0, 1), "text_offsets does not divide"),
    "rows-fewer": (lambda t: t.update(images=t["images"][:15]), r"images holds float32 \(15, 3\)"),
    "rows-wider": (lambda t: t.update(texts=torch.zeros(16, 4)), r"texts holds float32 \(16, 4\)"),
    "rows-other": (lambda t: t.update(images=t["images"].double()), "images holds float64"),
    "gone": (lambda t: t.pop("owners"), "lacks the tensor 'owners'"),
    "keys-gone": (lambda t: t.pop("keys"), "lacks the tensor 'keys'"),
    "keys-square": (lambda t: t.update(keys=t["keys"][:200].reshape(2, -1)), "keys holds uint8"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_table(name: str, index: Path) -> None:
    change, message = HOSTILE[name]
    forged(index, change)
    with pytest.raises(FileError, match=message):
        SearchIndex.open(index, verify=True)


def test_names_that_are_not_text(index: Path) -> None:
    forged(index, lambda tensors: tensors["keys"].fill_(255))
    with pytest.raises(FileError, match="entry 0 of 'keys' is not text"):
        SearchIndex.open(index, verify=True).key(0)


def test_a_table_of_another_index(index: Path, space: Colours, shared_images: Path, tmp_path: Path) -> None:
    build_index(space, FolderDataset(shared_images, "train"), tmp_path / "other")
    shutil.copy(tmp_path / "other" / TABLE, index / TABLE)
    changed(index, bytes=(index / TABLE).stat().st_size, sha256=files.sha256(index / TABLE))
    with pytest.raises(FileError, match="does not belong to the index"):
        SearchIndex.open(index, verify=True)


def test_queries_of_another_model(index: Path) -> None:
    made = SearchIndex.open(index)
    made.check_model("a" * 64)
    with pytest.raises(UsageError, match=r"was made by another model \(weights aaaaaaaaaaaa…, here cccccccccccc…\)"):
        made.check_model("c" * 64)
    for find in (made.find_images, made.find_texts):
        with pytest.raises(UsageError, match="holds vectors of width 3, the query has width 5"):
            find(np.ones((1, 5), np.float32), 2)
