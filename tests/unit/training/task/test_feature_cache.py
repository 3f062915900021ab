"""The cached features of training images: quantized or not, each at its image's position."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tavq.core.config import build
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.data.loader import EvaluationLoader
from tavq.tasks.base import TokenLayout
from tavq.tasks.understanding import ImageInput, UnderstandingTask, extract_features
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training.task import understanding_data
from tavq.training.task.tokens import FrozenTokenizer
from tavq.training.task.understanding_data import FEATURES, ExampleBatches, FeatureCache

SIZE = 16
NET = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}


@pytest.fixture
def dataset(tmp_path: Path) -> FolderDataset:
    """Five images, of which the second cannot be read."""
    lines = [json.dumps({"file_name": f"{number}.png"}) for number in range(5)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/metadata.jsonl").write_text("\n".join(lines))
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        save_png(tmp_path / f"data/{number}.png", pixels)
    (tmp_path / "data/1.png").write_bytes(b"no image")
    return FolderDataset(tmp_path / "data", "train")


@pytest.fixture
def frozen() -> FrozenTokenizer:
    torch.manual_seed(0)
    settings = {"net": NET, "codebook": {"name": "learned", "entries": 20, "width": 6, "init": "normal"}, "align": None}
    tokenizer = Tokenizer(build(TokenizerConfig, settings, "test")).eval()
    return FrozenTokenizer(tokenizer, {"sha256": "0"}, SIZE, TokenLayout(height=8, width=8, sizes=(20,)), "tokenizer")


@pytest.mark.parametrize("source", ["codes", "features"])
def test_each_image_has_its_own_features(
    source: str, dataset: FolderDataset, frozen: FrozenTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(understanding_data, "BATCH", 2)
    config, data = ImageInput.model_validate({"source": source}), DataConfig(size=SIZE)
    cache = FeatureCache(config, frozen, dataset, data, tmp_path, torch.device("cpu"))
    assert cache.keys == ("0.png", "2.png", "3.png", "4.png")
    assert [fault.where for fault in cache.faults] == ["1.png"]
    [batch] = EvaluationLoader(dataset, data, 8)
    own = extract_features(frozen.tokenizer, frozen.layout, config, batch.images)
    assert own.shape == (4, 64, 6)
    assert torch.allclose(cache.load([3, 0]), own[[3, 0]], atol=2e-3)  # features are kept in half precision
    assert not torch.allclose(cache.load([1]), own[[2]], atol=2e-3)


def test_features_are_cached_and_extracted_again_for_another_tokenizer(
    dataset: FolderDataset, frozen: FrozenTokenizer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = ImageInput(source="features"), DataConfig(size=SIZE)
    first = FeatureCache(config, frozen, dataset, data, tmp_path, torch.device("cpu")).load([0, 1, 2, 3])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [FEATURES]
    monkeypatch.setattr(
        understanding_data, "extract_encoder_features", lambda tokenizer, images: torch.zeros(len(images), 64, 6)
    )
    again = FeatureCache(config, frozen, dataset, data, tmp_path, torch.device("cpu"))
    assert torch.equal(again.load([0, 1, 2, 3]), first)
    other = FrozenTokenizer(frozen.tokenizer, {"sha256": "1"}, SIZE, frozen.layout, "other")
    assert not FeatureCache(config, other, dataset, data, tmp_path, torch.device("cpu")).load([0]).any()


class ListedCache(FeatureCache):
    """Images whose feature is their number."""

    def __init__(self) -> None:
        self.keys, self.faults = tuple("abcde"), ()

    def load(self, images: Any) -> torch.Tensor:
        return torch.tensor(images, dtype=torch.float32).view(-1, 1, 1)


class EchoTask(UnderstandingTask):
    """Returns its examples as they are."""

    def collate(self, examples: Any) -> Any:
        return examples


EchoTask.__abstractmethods__ = frozenset()  # batches call nothing but `collate`


EXAMPLES = [(place, f"{place}{letter}") for place in range(5) for letter in "xy"][:9]


def batches(batch: int, consumed: int = 0, rank: int = 0, world: int = 1) -> ExampleBatches:
    return ExampleBatches(ListedCache(), EXAMPLES, EchoTask(), batch, 3, consumed, rank, world)


def test_each_epoch_has_every_example_once_in_another_order() -> None:
    stream = batches(3)
    epochs = [[example for _ in range(3) for example in next(stream).examples] for _ in range(2)]
    assert all(sorted(epoch) == sorted(example for _, example in EXAMPLES) for epoch in epochs)
    assert epochs[0] != epochs[1]
    assert stream.consumed == 18


def test_an_example_has_its_own_image() -> None:
    found = next(batches(9))
    assert found.features[:, 0, 0].tolist() == [int(example[0]) for example in found.examples]
    assert found.keys == tuple("abcde"[int(example[0])] for example in found.examples)


def test_two_processes_together_have_the_batches_of_one() -> None:
    alone, pair = batches(4), [batches(4, rank=rank, world=2) for rank in range(2)]
    for _ in range(5):
        assert next(alone).examples == [example for one in pair for example in next(one).examples]
    assert [one.consumed for one in pair] == [20, 20]
    resumed = [batches(4, 20, rank, 2) for rank in range(2)]
    assert next(alone).examples == [example for one in resumed for example in next(one).examples]
