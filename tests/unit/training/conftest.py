"""A recipe whose steps take hundredths of a second, images for it, and text that needs no encoder."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tavq.core.config import apply_overrides
from tavq.data.folder import FolderDataset
from tavq.interfaces import GRANULARITIES
from tavq.recipes.schema import Recipe

SETTINGS: dict[str, Any] = {
    "model": {
        "net": {"channels": 8, "multipliers": [1, 1, 2], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 16, "width": 8, "init": "features"},
    },
    "data": {"size": 16},
    "train": {
        "steps": 4,
        "batch": 2,
        "learning_rate": 1e-3,
        "adversarial": {"start": 2, "discriminator": {"channels": 8, "layers": 1}},
        "log_every": 2,
        "checkpoint_every": 2,
        "sample_every": 100,
    },
}


class Words:
    """One to three words, a phrase and a sentence per image, random with its name as seed."""

    width = 6

    def __contains__(self, key: str) -> bool:
        return True

    def vectors(self, key: str) -> Mapping[str, np.ndarray]:
        number = int(Path(key).stem)
        rng = np.random.default_rng(number)
        counts = {"words": 1 + number % 3, "phrases": 1, "sentences": 1}
        return {name: rng.standard_normal((count, 6), np.float32) for name, count in counts.items()}

    def vocabulary(self, granularity: str) -> tuple[list[str], np.ndarray]:
        rng = np.random.default_rng(GRANULARITIES.index(granularity))
        return ["first", "second", "third"], rng.standard_normal((3, 6), np.float32)


@pytest.fixture
def recipe() -> Callable[..., Recipe]:
    """The tiny recipe with dotted settings changed."""
    return lambda changes={}: Recipe.model_validate(apply_overrides(SETTINGS, changes))


@pytest.fixture
def aligned(recipe: Callable[..., Recipe]) -> Callable[..., Recipe]:
    """The same with TA-VQ's aligner."""
    align = {"name": "ta", "word": 0.1, "phrase": 0.1, "sentence": 0.1, "samples": [2, 2, 2], "iterations": 5}
    return lambda changes={}: recipe({"model.align": align, **changes})


@pytest.fixture
def words() -> Words:
    """A TextSource."""
    return Words()


@pytest.fixture
def dataset(image_folder: Path) -> FolderDataset:
    """The training split of the tiny data set."""
    return FolderDataset(image_folder, "train")
