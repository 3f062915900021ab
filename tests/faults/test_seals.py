"""Kept files that no manifest names: with a changed byte or a missing end, none is loaded as if it were whole."""

import errno
import os
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny_bert import write_bert

from tavq.api.tokenizers import decode_tokens
from tavq.core.config import build
from tavq.core.errors import FileError, UsageError
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.core.seals import BLANK, SEAL, is_intact, seal_file, write_sealed_tensors
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.metrics.distances import Gaussian
from tavq.metrics.reference import ReferenceStatistics, SetDescription, read_statistics, write_statistics
from tavq.tasks.base import TokenLayout
from tavq.tasks.understanding import ImageInput
from tavq.text import building
from tavq.text.encoders import load_encoder
from tavq.text.store import TextStore
from tavq.token_file import Tokens
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.task.tokens import FrozenTokenizer, TokenTable, load_or_encode
from tavq.training.task.understanding_data import FEATURES, FeatureCache

KEYS = ("a.png", "b/c.png", "é.png")
NET = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}


def damaged(path: Path, draws: np.random.Generator, tries: int = 60) -> list[bytes]:
    """Contents with one flipped bit each, half of them in the header, and cut contents."""
    whole = path.read_bytes()
    header = 8 + struct.unpack("<Q", whole[:8])[0]
    found = []
    for number in range(tries):
        place = int(draws.integers(header if number % 2 else len(whole)))
        found.append(whole[:place] + bytes([whole[place] ^ 1 << int(draws.integers(8))]) + whole[place + 1 :])
    return found + [whole[:length] for length in (0, 1, 7, 8, header - 1, header, len(whole) // 2, len(whole) - 1)]


def tokenizer() -> Tokenizer:
    torch.manual_seed(0)
    settings = {"net": NET, "codebook": {"name": "learned", "entries": 20, "width": 6, "init": "normal"}, "align": None}
    return Tokenizer(build(TokenizerConfig, settings, "test")).eval()


# --- what is made again -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("condition", [False, True])
def test_kept_tokens_are_encoded_again_after_any_damage(tmp_path: Path, condition: bool) -> None:
    path, tokens = tmp_path / "tokens.safetensors", torch.arange(12, dtype=torch.int32).reshape(3, 1, 4)
    table = TokenTable(tokens, KEYS, (), tokens + 100 if condition else None)
    load_or_encode(path, "stamp", lambda: table)
    whole = path.read_bytes()
    for content in damaged(path, np.random.default_rng(0)):
        path.write_bytes(content)
        found = load_or_encode(path, "stamp", lambda: table)
        assert found.keys == KEYS
        assert torch.equal(found.tokens, tokens)
        assert condition == (found.condition is not None)
    assert torch.equal(load_or_encode(path, "stamp", lambda: pytest.fail("it is whole")).tokens, tokens)
    assert len(path.read_bytes()) == len(whole)


def test_kept_features_are_extracted_again_after_any_damage(tmp_path: Path) -> None:
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 255, (16, 16, 3), np.uint8)
        save_png(tmp_path / "data" / f"{number}.png", pixels)
    frozen = FrozenTokenizer(tokenizer(), {"sha256": "0"}, 16, TokenLayout(height=8, width=8, sizes=(20,)), "t")
    dataset, data = FolderDataset(tmp_path / "data", "train"), DataConfig(size=16)

    def load() -> torch.Tensor:
        cache = FeatureCache(ImageInput(source="features"), frozen, dataset, data, tmp_path, torch.device("cpu"))
        assert cache.keys == ("0.png", "1.png", "2.png")
        return cache.load([0, 1, 2])

    first, whole = load(), (tmp_path / FEATURES).read_bytes()
    assert is_intact(tmp_path / FEATURES)
    for content in damaged(tmp_path / FEATURES, np.random.default_rng(1), tries=16):
        (tmp_path / FEATURES).write_bytes(content)
        assert torch.equal(load(), first)
        assert (tmp_path / FEATURES).read_bytes() == whole


def test_split_texts_are_split_again_after_any_damage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encoder = load_encoder(write_bert(tmp_path / "bert"))
    texts = {f"{number}.png": f"A red house near {number} small trees." for number in range(8)}
    whole = building.build_store(texts, encoder, "pattern", tmp_path / "whole")
    expected = (whole.folder / "store.safetensors").read_bytes()

    def killed(*_: Any) -> None:
        raise KeyboardInterrupt

    def stop() -> None:
        with monkeypatch.context() as patched:
            patched.setattr(building, "resume_writer", killed)
            with pytest.raises(KeyboardInterrupt):
                building.build_store(texts, encoder, "pattern", tmp_path / "text")

    stop()
    [block] = (tmp_path / "text.building").glob("block-*")
    for content in damaged(block, np.random.default_rng(2), tries=24):
        block.write_bytes(content)
        stop()
        assert is_intact(block)
    building.build_store(texts, encoder, "pattern", tmp_path / "text")
    assert (tmp_path / "text" / "store.safetensors").read_bytes() == expected


# --- what is refused --------------------------------------------------------------------------------------------


def write_tokens(path: Path) -> None:
    Tokens(torch.arange(12, dtype=torch.int32).reshape(3, 2, 2), KEYS, 20, "0" * 64).save(path)


def write_reference(path: Path) -> None:
    gaussian = Gaussian(9, torch.zeros(3, dtype=torch.float64), torch.eye(3, dtype=torch.float64))
    description = SetDescription("fid", "0" * 64, (16, 16), "bicubic", "data", "1" * 64)
    write_statistics(path, ReferenceStatistics(gaussian, description))


FILES: dict[str, tuple[Callable[[Path], None], Callable[[Path], Any]]] = {
    "tokens": (write_tokens, Tokens.load),
    "statistics": (write_reference, read_statistics),
}


def attempt(read: Callable[[Path], Any], path: Path) -> Any:
    """What `read` returns or refuses with."""
    try:
        return read(path)
    except FileError as error:
        return error


@pytest.mark.parametrize("name", FILES)
def test_damage_is_refused_by_name_or_changes_nothing(tmp_path: Path, name: str) -> None:
    write, read = FILES[name]
    path, refused = tmp_path / f"{name}.safetensors", 0
    write(path)
    whole, tries = repr(read(path)), damaged(path, np.random.default_rng(3), tries=300)
    for content in tries:
        path.write_bytes(content)
        found = attempt(read, path)
        if isinstance(found, FileError):
            assert str(path) in str(found)
            refused += 1
        else:  # the flipped bit is one of the name of the seal
            assert repr(found) == whole
    assert refused > 0.9 * len(tries)


@pytest.mark.parametrize("name", FILES)
def test_equal_content_gives_equal_bytes(tmp_path: Path, name: str) -> None:
    written = set()
    for number in range(8):
        FILES[name][0](tmp_path / f"{number}")
        written.add((tmp_path / f"{number}").read_bytes())
    assert len(written) == 1


@pytest.mark.parametrize("name", FILES)
def test_files_of_older_versions_are_read(tmp_path: Path, name: str) -> None:
    write, read = FILES[name]
    write(tmp_path / "new.safetensors")
    metadata = {k: v for k, v in MappedTensors(tmp_path / "new.safetensors").metadata.items() if k != SEAL}
    save_file(load_file(tmp_path / "new.safetensors"), tmp_path / "old.safetensors", metadata)
    assert is_intact(tmp_path / "old.safetensors") is None
    assert repr(read(tmp_path / "old.safetensors")) == repr(read(tmp_path / "new.safetensors"))


@pytest.mark.parametrize(("place", "index"), [((40, 0, 0), 20), ((40, 1, 1), -1)])
def test_indices_out_of_range_are_refused_before_the_first_image(
    tmp_path: Path, place: tuple[int, ...], index: int
) -> None:
    tokenizer().save_pretrained(tmp_path / "model")
    tokens = Tokens(torch.zeros(41, 2, 2, dtype=torch.int32), tuple(f"{number}.png" for number in range(41)))
    tokens.indices[place] = index
    tokens.save(tmp_path / "tokens.safetensors")
    with pytest.raises(UsageError, match=rf"tokens\.safetensors cannot be decoded: Indices .*{index}"):
        decode_tokens(tmp_path / "model", tmp_path / "tokens.safetensors", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
    outside = replace(tokens, indices=tokens.indices * 0, keys=(*tokens.keys[:-1], "../x.png"))
    with pytest.raises(FileError, match="leads outside"):
        decode_tokens(tmp_path / "model", outside, out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_store_is_verified_unless_told_otherwise(tmp_path: Path) -> None:
    encoder = load_encoder(write_bert(tmp_path / "bert"))
    store = building.build_store({"0.png": "A red house."}, encoder, "pattern", tmp_path / "text")
    path = store.folder / "store.safetensors"
    data = path.read_bytes()
    path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
    for opened in (lambda: TextStore.open(store.folder), lambda: TextStore.find(tmp_path)):
        with pytest.raises(FileError, match=r"store\.safetensors was altered or truncated"):
            opened()
    assert TextStore.open(store.folder, verify=False).width == store.width


@pytest.mark.parametrize("error", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_rows_that_fail_at_the_end_name_the_file(tmp_path: Path, error: int) -> None:
    """A file that is closed writes its last rows, which a full disk refuses."""

    class Full:
        def close(self) -> None:
            raise OSError(error, os.strerror(error))

    writer = TensorFileWriter(tmp_path / "rows", {"a": ("<f4", [2])}, {})
    writer.close()
    writer._file = Full()  # type: ignore[assignment]
    with pytest.raises(FileError, match=rf"Could not write .*rows: {os.strerror(error)}"):
        writer.close()


# --- the seal itself --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("metadata", [{}, {"a": f'"seal":"{BLANK}"'}, {SEAL: "mine"}, {"z": "é\n\\"}])
def test_a_seal_is_found_among_any_metadata(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "a.safetensors"
    write_sealed_tensors(path, {"seal": torch.arange(3), "x": torch.zeros(0)}, metadata)
    assert is_intact(path)
    assert torch.equal(load_file(path)["seal"], torch.arange(3))
    with safe_open(path, "pt") as opened:
        assert {**opened.metadata(), SEAL: ""} == {**metadata, SEAL: ""}
    sealed = path.read_bytes()
    seal_file(path)
    assert path.read_bytes() == sealed
