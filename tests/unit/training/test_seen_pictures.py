"""What a reading task sees of training pictures: entries or features, each at its picture's place."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from tavq.core.config import build
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig, EvaluationLoader
from tavq.data.pictures import save_png
from tavq.tasks.base import Layout
from tavq.tasks.reading import PictureConfig, look
from tavq.tokenizer import Tokenizer, TokenizerConfig
from tavq.training import reading
from tavq.training.reading import FEATURES, SeenPictures
from tavq.training.tokens import Frozen

SIZE = 16
NET = {"channels": 8, "multipliers": [1, 2], "blocks": 1, "attention": False}


@pytest.fixture
def dataset(tmp_path: Path) -> FolderDataset:
    """Five pictures, of which the second cannot be read."""
    lines = [json.dumps({"file_name": f"{number}.png"}) for number in range(5)]
    (tmp_path / "data").mkdir()
    (tmp_path / "data/metadata.jsonl").write_text("\n".join(lines))
    for number in range(5):
        pixels = np.random.default_rng(number).integers(0, 255, (SIZE, SIZE, 3), np.uint8)
        save_png(tmp_path / f"data/{number}.png", pixels)
    (tmp_path / "data/1.png").write_bytes(b"no picture")
    return FolderDataset(tmp_path / "data", "train")


@pytest.fixture
def frozen() -> Frozen:
    torch.manual_seed(0)
    settings = {"net": NET, "codebook": {"name": "learned", "entries": 20, "width": 6, "init": "normal"}, "align": None}
    tokenizer = Tokenizer(build(TokenizerConfig, settings, "test")).eval()
    return Frozen(tokenizer, {"sha256": "0"}, SIZE, Layout(height=8, width=8, sizes=(20,)), "tokenizer")


@pytest.mark.parametrize("source", ["codes", "features"])
def test_each_row_is_its_pictures_own(
    source: str, dataset: FolderDataset, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reading, "BATCH", 2)
    config, data = PictureConfig.model_validate({"source": source}), DataConfig(size=SIZE)
    seen = SeenPictures(config, frozen, dataset, data, tmp_path, torch.device("cpu"))
    assert seen.keys == ("0.png", "2.png", "3.png", "4.png")
    assert [fault.where for fault in seen.faults] == ["1.png"]
    [batch] = EvaluationLoader(dataset, data, 8)
    own = look(frozen.tokenizer, frozen.layout, config, batch.images)
    assert own.shape == (4, 64, 6)
    assert torch.allclose(seen.rows([3, 0]), own[[3, 0]], atol=2e-3)  # features are kept in half precision
    assert not torch.allclose(seen.rows([1]), own[[2]], atol=2e-3)


def test_features_are_kept_and_made_again_for_another_tokenizer(
    dataset: FolderDataset, frozen: Frozen, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config, data = PictureConfig(source="features"), DataConfig(size=SIZE)
    first = SeenPictures(config, frozen, dataset, data, tmp_path, torch.device("cpu")).rows([0, 1, 2, 3])
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == [FEATURES]
    monkeypatch.setattr(reading, "features_of", lambda tokenizer, images: torch.zeros(len(images), 64, 6))
    again = SeenPictures(config, frozen, dataset, data, tmp_path, torch.device("cpu"))
    assert torch.equal(again.rows([0, 1, 2, 3]), first)
    other = Frozen(frozen.tokenizer, {"sha256": "1"}, SIZE, frozen.layout, "other")
    assert not SeenPictures(config, other, dataset, data, tmp_path, torch.device("cpu")).rows([0]).any()
