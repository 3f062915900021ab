"""Nearest training images by text, by map and by the known part, but never by hidden pixels."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, load_training_split
from tavq.data.images import save_png
from tavq.data.loader import load_image_batch
from tavq.data.transforms import to_float
from tavq.evaluation import nearest_training
from tavq.evaluation.nearest_training import (
    NearestNeighbours,
    find_nearest_by_known_part,
    find_nearest_by_map,
    find_nearest_by_text,
)
from tavq.tasks.completion import named_mask


def test_the_best_of_all_batches_stays_and_the_first_of_ties() -> None:
    found = NearestNeighbours(("a", "b", "c"))
    found.update(torch.tensor([[1.0, 5.0], [2.0, 2.0], [9.0, 0.0]]), ("x", "y"))
    found.update(torch.tensor([[5.0], [3.0], [-1.0]]), ("z",))
    assert found.nearest_names() == {"a": "y", "b": "z", "c": "x"}


def test_no_image_is_its_own_neighbour() -> None:
    found = NearestNeighbours(("a", "b"))
    found.update(torch.tensor([[9.0, 1.0]] * 2), ("a", "x"))
    assert found.nearest_names() == {"a": "x", "b": "a"}
    alone = NearestNeighbours(("a",))
    alone.update(torch.ones(1, 1), ("a",))
    assert alone.nearest_names() == {}


class Text:
    """Sentence vectors by key."""

    width = 2

    def __init__(self, **sentences: list[list[float]]) -> None:
        self.sentences = {f"{key}.png": np.array(rows, np.float32).reshape(-1, 2) for key, rows in sentences.items()}

    def __contains__(self, key: str) -> bool:
        return key in self.sentences

    def vectors(self, key: str) -> dict[str, Any]:
        return {"sentences": self.sentences[key]}

    def vocabulary(self, granularity: str) -> Any:
        raise AssertionError("no vocabulary is asked for here")


def write(folder: Path, splits: dict[str, list[str]], **images: np.ndarray) -> FolderDataset:
    """A data set whose images are grey by default."""
    lines = []
    for split, keys in splits.items():
        for key in keys:
            save_png(folder / f"{key}.png", images.get(key, np.full((32, 32, 3), 90, np.uint8)))
            lines.append({"file_name": f"{key}.png", "split": split})
            if f"{key}_map" in images:
                save_png(folder / f"maps/{key}.png", images[f"{key}_map"])
                lines[-1]["segmentation"] = f"maps/{key}.png"
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return FolderDataset(folder, "test")


def train_of(dataset: FolderDataset, limit: int | None = None) -> FolderDataset:
    found = load_training_split(dataset, limit)
    assert found is not None
    return found


def test_texts_by_the_cosine_of_mean_sentences(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dataset = write(tmp_path, {"train": ["t", "u", "v", "w"], "test": ["a", "b", "c", "d"]})
    text = Text(t=[[10, 0]], u=[[0, 1]], v=[], w=[[1, -1], [1, 3]], a=[[0.1, 0]], b=[[5, 5]], c=[[0, 9], [0, 1]], d=[])
    names = ["a.png", "b.png", "c.png", "d.png"]
    for chunk in (1024, 1):
        monkeypatch.setattr(nearest_training, "TEXTS", chunk)
        # w's mean is (1, 1): its length is of no account; d says nothing and takes the fourth in turn
        assert find_nearest_by_text(names, train_of(dataset), text) == {
            "a.png": "t.png", "b.png": "w.png", "c.png": "u.png", "d.png": "w.png",
        }  # fmt: skip
    assert find_nearest_by_text(["b.png"], train_of(dataset, 2), text) == {"b.png": "t.png"}
    assert find_nearest_by_text(["t.png"], train_of(dataset), text) == {"t.png": "w.png"}


def classes(*columns: tuple[int, int]) -> np.ndarray:
    """A map with each class in a number of columns."""
    row = np.repeat([number for number, _ in columns], [count for _, count in columns]).astype(np.uint8)
    return np.tile(row, (32, 1))


def test_maps_by_the_fraction_of_equal_cells(tmp_path: Path) -> None:
    images = {
        "a_map": classes((0, 16), (3, 16)), "b_map": classes((1, 32)), "t_map": classes((3, 16), (0, 16)),
        "u_map": classes((0, 20), (3, 12)), "v_map": classes((2, 30), (1, 2)),
    }  # fmt: skip
    dataset = write(tmp_path, {"train": ["t", "u", "v", "w"], "test": ["a", "b"]}, **images)
    assert find_nearest_by_map(dataset, train_of(dataset), None) == {"a.png": "u.png", "b.png": "v.png"}
    assert find_nearest_by_map(dataset, train_of(dataset), 1) == {"a.png": "u.png"}
    bare = write(tmp_path / "bare", {"train": ["w"], "test": ["a"]}, a_map=images["a_map"])
    assert find_nearest_by_map(bare, train_of(bare), None) == {}


def halves(left: int, right: int) -> np.ndarray:
    image = np.full((32, 32, 3), left, np.uint8)
    image[:, 16:] = right
    return image


def test_by_the_known_part_alone(tmp_path: Path) -> None:
    images = {"a": halves(50, 200), "t": halves(60, 0), "u": halves(120, 200), "v": halves(200, 50)}
    dataset = write(tmp_path, {"train": ["t", "u", "v"], "test": ["a"]}, **images)
    masks = {"right": named_mask("right", 32), "left": named_mask("left", 32)}
    found = find_nearest_by_known_part(dataset, train_of(dataset), masks, DataConfig(size=32), None)
    assert found == {"right": {"a.png": "t.png"}, "left": {"a.png": "u.png"}}


@pytest.mark.parametrize("size", [32, 48, 64])
def test_hidden_pixels_do_not_affect_the_comparison(size: int) -> None:
    image = torch.rand(1, 3, size, size, generator=torch.Generator().manual_seed(0))
    for name in ("right", "centre"):
        mask = named_mask(name, size)
        other = torch.where(mask, 1 - image, image)
        known = nearest_training._find_known_cells(mask)
        assert 0.4 < float(known.float().mean()) < 0.8
        small, changed = nearest_training._shrink(image), nearest_training._shrink(other)
        assert torch.equal(small[:, :, known], changed[:, :, known])
        assert not torch.equal(small, changed)


def test_training_images_are_those_of_the_split_preprocessed_as_by_the_loader(tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 64, 3), np.uint8)
    dataset = write(tmp_path, {"val": ["x"], "train": ["t", "u"], "test": ["a"]}, u=image)
    assert [record.file_name for record in train_of(dataset)] == ["t.png", "u.png"]
    assert [record.file_name for record in train_of(dataset, 1)] == ["t.png"]
    assert dataset.split == "test"
    assert len(dataset) == 1
    found: Tensor = load_image_batch(train_of(dataset), ["u.png", "t.png"], 40)
    square = to_float(torch.from_numpy(image[:, 12:52].copy()).permute(2, 0, 1))
    assert torch.equal(found[0], square)
    assert F.mse_loss(found[1], torch.full((3, 40, 40), 90 / 127.5 - 1)) < 1e-10
    assert load_training_split(write(tmp_path / "none", {"test": ["a"]}), None) is None
