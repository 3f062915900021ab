"""Finished runs of three steps on 16 px images, with text and without, made once for all tests of pages."""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from evaluation_files import evaluation_file
from jaxtyping import Float
from torch import Tensor

from tavq.core.config import apply_overrides
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.recipes.schema import Recipe
from tavq.text.building import build_store
from tavq.text.encoders import TextEncoder
from tavq.text.store import TextStore
from tavq.training.tokenizer.trainer import Trainer

SETTINGS: dict[str, Any] = {
    "model": {
        "net": {"channels": 8, "multipliers": [1, 1, 1], "blocks": 1, "attention": False},
        "codebook": {"name": "learned", "entries": 16, "width": 8, "init": "features"},
    },
    "data": {"size": 16},
    "train": {"steps": 3, "batch": 4, "log_every": 1, "checkpoint_every": 3, "sample_every": 3},
}
ALIGN = {"name": "ta", "word": 0.1, "phrase": 0.1, "sentence": 0.1, "samples": [2, 2, 2], "iterations": 3}
COLOURS = {"red": (220, 40, 40), "blue": (50, 60, 220)}
HOSTILE = 'images/<b>"&.png'
"""A file name that would be markup if any part of a page forgot to escape it."""


class LetterEncoder(TextEncoder):
    """Vectors drawn from a hash of the text; needs no model."""

    max_unit = 10**6

    def __init__(self) -> None:
        self.name, self.sha256, self.width, self.precision = "letters", "0" * 64, 6, "float32"

    def encode_units(self, texts: Sequence[str]) -> Float[Tensor, "m t"]:
        seeds = [int.from_bytes(hashlib.sha256(text.encode()).digest()[:4], "big") for text in texts]
        rows = [np.random.default_rng(seed).standard_normal(6).astype(np.float32) for seed in seeds]
        return torch.from_numpy(np.stack(rows))

    def encode_words(self, words: Sequence[str]) -> Float[Tensor, "m t"]:
        return self.encode_units(words)


@dataclass(frozen=True)
class Runs:
    """A data set and runs on it."""

    data: Path
    plain: Path
    aligned: Path
    other: Path  # other seed, steps and data
    other_data: Path


def draw(folder: Path, greys: int = 100) -> Path:
    """20 images of 16 px: left half of a colour that the text names, right half grey; two for each of val and test.

    The first of the test split has a name that is markup.
    """
    lines = []
    for number, split in enumerate(["train"] * 16 + ["val"] * 2 + ["test"] * 2):
        colour = list(COLOURS)[number % 2]
        image = np.random.default_rng(number).integers(greys, greys + 9, (16, 16, 3), np.uint8)
        image[:, :8] = COLOURS[colour]
        name = HOSTILE if number == 18 else f"images/{number}.png"
        save_png(folder / name, image)
        text = f"A {colour} wall stands beside a grey floor."
        lines.append(json.dumps({"file_name": name, "split": split, "captions": [text]}))
    (folder / "metadata.jsonl").write_text("\n".join(lines) + "\n")
    return folder


def train(data: Path, out: Path, text: TextStore | None = None, **changes: Any) -> Path:
    recipe = apply_overrides(SETTINGS, {"model.align": ALIGN, **changes} if text else changes)
    Trainer(Recipe.model_validate(recipe), FolderDataset(data, "train"), out, text).run()
    return out


def evaluation(**changes: float) -> dict[str, Any]:
    values = {"psnr": 20.0, "usage_deep": 0.5, "code_text_cosine": 0.5, "shuffled/code_text_cosine": 0.25}
    details = {"split": "val", "images": 2, "size": [16, 16], "data": "images", "data_sha256": "0"}
    return evaluation_file({**values, "code_text_gap": 0.25, **changes}, **details)


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Runs:
    """Runs that every test of pages may read and none may change; the reports it writes are its own."""
    root = tmp_path_factory.mktemp("runs")
    data, other = draw(root / "images"), draw(root / "others", greys=60)
    texts = {record.file_name: record.text or "" for record in FolderDataset(data)}
    build_store(texts, LetterEncoder(), "pattern", data / "text")
    (other / "metadata.jsonl").write_text((other / "metadata.jsonl").read_text().replace("floor", "ceiling"))
    found = Runs(
        data,
        train(data, root / "plain <run>"),
        train(data, root / "aligned", TextStore.open(data / "text")),
        train(other, root / "other", None, **{"train.seed": 1, "train.steps": 2}),
        other,
    )
    (found.plain / "evaluation.json").write_text(json.dumps(evaluation()))
    (found.aligned / "evaluation.json").write_text(json.dumps(evaluation(psnr=22.5)))
    return found


@pytest.fixture
def folder_run(tmp_path: Path) -> Callable[..., Path]:
    """Makes a run folder of files alone, without any model behind it; None leaves a file out."""

    def make(**texts: str | None) -> Path:
        contents = {"config": "{}", "log": '{"step": 1, "loss": 2.0}\n', "evaluation": None, "provenance": None} | texts
        run = tmp_path / "run"
        places = {"config": "model/config.json", "log": "log.jsonl"}
        for name, text in contents.items():
            if text is not None:
                place = run / places.get(name, f"{name}.json")
                place.parent.mkdir(parents=True, exist_ok=True)
                place.write_text(text)
        return run

    return make
