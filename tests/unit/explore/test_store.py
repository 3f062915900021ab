"""The store: built once, resumed, sealed, and refused where it does not fit."""

import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tavq
from tavq.core.errors import DataError, FileError, UsageError
from tavq.explore.encoding import Encoder
from tavq.explore.explorer import Explorer
from tavq.explore.store import GRIDS, MANIFEST, PROGRESS, TABLES, default_folder

from .conftest import IMAGES, SIZE, make_tokenizer, save_model


def store_of(explorer: Explorer) -> Path:
    return explorer.models[0].store.folder


def test_the_grids_are_those_of_the_tokenizer(explorer: Explorer, pixels: Any) -> None:
    for model in explorer.models:
        levels = model.tokenizer.quantize(pixels)
        for name, index in (("low", 0), ("middle", 1), ("deep", 2)):
            if name in model.levels:
                for image in range(len(pixels)):
                    own = model.levels[name].grid(image)[..., 0]
                    assert np.array_equal(own, levels[index].indices[image].numpy())
    aligned = explorer.models[1]
    assert aligned.tokenizer.aligner is not None
    vectors = aligned.tokenizer.aligner.embed_images(levels).numpy()
    assert np.asarray(aligned.store.grids["embeddings"][: len(pixels)]) == pytest.approx(vectors, abs=1e-5)


def test_counts_are_those_of_the_grids(explorer: Explorer) -> None:
    level = explorer.models[0].levels["deep"]
    codes = np.stack([level.grid(image) for image in range(IMAGES)])
    assert level.columns.count.tolist() == np.bincount(codes.ravel(), minlength=12).tolist()
    code = int(level.columns.count.argmax())
    assert level.position_map(code).tolist() == (codes[..., 0] == code).sum(0).tolist()
    assert level.columns.images[code] == (codes == code).any(axis=(1, 2, 3)).sum()
    for image, row, column in level.closest(code):
        assert codes[image, row, column, 0] == code


def test_surroundings_are_those_of_the_grids(explorer: Explorer) -> None:
    level = explorer.models[0].levels["deep"]
    codes = np.stack([level.grid(image)[..., 0] for image in range(IMAGES)])
    frequency = np.bincount(codes.ravel(), minlength=12) / codes.size
    code = int(level.columns.count.argmax())
    padded = np.pad(codes, ((0, 0), (2, 2), (2, 2)), constant_values=-1)
    around = level.around(code, 2)
    for dy in range(-2, 3):
        for dx in range(-2, 3):
            there = padded[:, 2 + dy : padded.shape[1] - 2 + dy, 2 + dx : padded.shape[2] - 2 + dx][codes == code]
            there = there[there >= 0]
            gains = {}
            for other in set(there.tolist()) - {code}:
                count = int((there == other).sum())
                gains[other] = count * math.log(count / len(there) / frequency[other])
            best = max(gains.values(), default=0.0)
            found = around[dy + 2][dx + 2]
            if (dy, dx) == (0, 0) or best <= 0:
                assert found is None
            else:
                assert found is not None
                other, share, lift = found
                assert share == pytest.approx((there == other).mean())
                assert lift == pytest.approx(share / frequency[other])
                assert gains[other] == pytest.approx(best)


def test_a_code_that_no_image_has_is_surrounded_by_nothing(explorer: Explorer, monkeypatch: pytest.MonkeyPatch) -> None:
    level = explorer.models[0].levels["deep"]
    monkeypatch.setattr(level, "positions", [np.empty(0, np.int64)])
    assert {cell for row in level.around(0, 2) for cell in row} == {None}


def test_a_second_call_opens_the_store(data: Path, plain: Path, stores: Path, explorer: Explorer,
                                       monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    def fail(*_: object) -> None:
        raise AssertionError("encoded again")

    monkeypatch.setattr(Encoder, "run", fail)
    again = tavq.open_explorer([plain], data=data, store=stores)
    assert store_of(again) == store_of(explorer)


def test_a_pass_that_was_stopped_continues(
    data: Path, plain: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tavq.explore.encoding.SAVE_SECONDS", 0.0)
    monkeypatch.setattr("tavq.explore.encoding.BATCH", 16)
    seen: list[int] = []

    def stop(done: int, total: int | None, note: str) -> None:
        seen.append(done)
        if done == 32:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tavq.open_explorer([plain], data=data, store=tmp_path / "stopped", progress=stop)
    [folder] = (tmp_path / "stopped").iterdir()
    assert json.loads((folder / PROGRESS).read_text()) == {"done": 16}
    assert not (folder / MANIFEST).exists()
    seen.clear()
    report = lambda done, total, note: seen.append(done)  # noqa: E731
    tavq.open_explorer([plain], data=data, store=tmp_path / "stopped", progress=report)
    assert seen[0] == 32  # of the second batch: the first was kept
    whole = store_of(tavq.open_explorer([plain], data=data, store=tmp_path / "whole"))
    for name in (GRIDS, TABLES):
        assert (folder / name).read_bytes() == (whole / name).read_bytes()


@pytest.mark.parametrize("name", [GRIDS, TABLES])
@pytest.mark.parametrize("damage", ["cut", "changed", "gone"])
def test_a_damaged_store_is_refused(
    name: str, damage: str, data: Path, plain: Path, explorer: Explorer, tmp_path: Path
) -> None:
    folder = tmp_path / store_of(explorer).name
    shutil.copytree(store_of(explorer), folder)
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content[:-1] if damage == "cut" else content)
    if damage == "gone":
        (folder / name).unlink()
    with pytest.raises(FileError, match=r"altered|missing|does not match|sha|SHA"):
        tavq.open_explorer([plain], data=data, store=tmp_path)


def test_a_store_of_something_else_is_refused(data: Path, plain: Path, explorer: Explorer, tmp_path: Path) -> None:
    folder = tmp_path / store_of(explorer).name
    shutil.copytree(store_of(explorer), folder)
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["source"]["data"] = "0" * 64
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(FileError, match="is of another data; remove it"):
        tavq.open_explorer([plain], data=data, store=tmp_path)


def test_an_unreadable_image_is_left_out(data: Path, plain: Path, tmp_path: Path) -> None:
    shutil.copytree(data, tmp_path / "walls")
    (tmp_path / "walls" / "images" / "005.png").write_bytes(b"no image")
    explorer = tavq.open_explorer([plain], data=tmp_path / "walls", store=tmp_path / "stores")
    model = explorer.models[0]
    assert model.store.manifest.unreadable == 1
    assert int(model.levels["deep"].columns.count.sum()) == (IMAGES - 1) * model.levels["deep"].shape.cells
    with pytest.raises(DataError, match="cannot be read"):
        tavq.open_explorer([plain], data=tmp_path / "walls", store=tmp_path / "others", fault_budget=0)


def test_models_are_named_apart_and_once(data: Path, plain: Path, pixels: Any, tmp_path: Path, stores: Path) -> None:
    one, two = (
        save_model(make_tokenizer(seed), tmp_path / name / "seed-0" / "model", pixels)
        for seed, name in ((3, "first"), (4, "second"))
    )
    explorer = tavq.open_explorer([one, two.parent], data=data, store=stores)
    assert [model.id for model in explorer.models] == ["first-seed-0", "second-seed-0"]
    with pytest.raises(UsageError, match="holds the same model"):
        tavq.open_explorer([one, one.parent], data=data, store=stores)


def test_a_model_without_a_size_is_read_at_256(data: Path, pixels: Any, tmp_path: Path) -> None:
    folder = save_model(make_tokenizer(5), tmp_path / "model", pixels, size=None)
    few = tavq.open_explorer([folder], data=data, split="test", store=tmp_path / "stores")
    assert few.models[0].size == 256
    assert len(few.dataset) == 10
    assert few.models[0].levels["deep"].shape.height == 256 // few.models[0].tokenizer.factor
    assert SIZE != 256


def test_stores_are_kept_in_the_folder_of_caches(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("TAVQ_CACHE", str(tmp_path))
    assert default_folder() == tmp_path / "explore"
