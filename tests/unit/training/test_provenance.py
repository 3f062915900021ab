"""The hash of a method, which runs with different seeds share."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tavq.core import files
from tavq.data.folder import FolderDataset
from tavq.model_folder import read_model_config
from tavq.recipes.identity import METHOD_HASH, TOKENIZER_METHOD_HASH, stored_hash
from tavq.recipes.schema import Recipe
from tavq.training.provenance import method_hash
from tavq.training.tokenizer.trainer import Trainer

METADATA = {"data_sha256": "d", "text": None, "device": "x86_64 CPU"}


@pytest.mark.parametrize(
    ("changes", "metadata", "same"),
    [
        ({"train.seed": 7}, {}, True),
        ({"train.log_every": 1, "data.workers": 1}, {}, True),
        ({}, {"device": "another"}, True),
        ({"train.steps": 5}, {}, False),
        ({"train.learning_rate": 2e-3}, {}, False),
        ({"model.codebook.entries": 17}, {}, False),
        ({}, {"data_sha256": "e"}, False),
        ({}, {"text": {"encoder": "minilm"}}, False),
        ({}, {"tokenizer": "t"}, False),
    ],
)
def test_only_seed_and_cosmetic_settings_leave_the_method_hash(
    recipe: Callable[..., Recipe], changes: dict[str, Any], metadata: dict[str, Any], same: bool
) -> None:
    assert (method_hash(recipe(changes), {**METADATA, **metadata}) == method_hash(recipe(), METADATA)) is same


def test_named_weights_count_by_their_content(
    recipe: Callable[..., Recipe], dataset: FolderDataset, tmp_path: Path
) -> None:
    for name in ("one", "same", "other"):
        path = tmp_path / f"{name}.npz"
        path.write_bytes(b"other" if name == "other" else b"weights")
    named = {
        name: recipe({"train.perceptual": {"network": "squeezenet", "weights": str(tmp_path / f"{name}.npz")}})
        for name in ("one", "same", "other")
    }
    hashes = {name: method_hash(named[name], METADATA) for name in named}
    assert hashes["one"] == hashes["same"] != hashes["other"]
    runs = [Trainer(recipe({"train.steps": 1, "train.seed": seed}), dataset, tmp_path / f"{seed}") for seed in (0, 1)]
    begun = [method_hash(recipe({"train.start_from": str(run.run())}), METADATA) for run in runs]
    assert begun[0] != begun[1]
    (tmp_path / "0").rename(tmp_path / "moved")
    assert method_hash(recipe({"train.start_from": str(tmp_path / "moved")}), METADATA) == begun[0]


def test_a_model_folder_stores_the_method_hash(
    recipe: Callable[..., Recipe], dataset: FolderDataset, tmp_path: Path
) -> None:
    made = recipe({"train.steps": 1})
    model = Trainer(made, dataset, tmp_path / "run").run()
    assert read_model_config(model)["method_hash"] == method_hash(
        made, files.read_json(tmp_path / "run" / "provenance.json")
    )


@pytest.mark.parametrize(
    ("stored", "key", "found"),
    [
        ({"method_hash": "new", "seedless": "old"}, METHOD_HASH, "new"),
        ({"seedless": "old"}, METHOD_HASH, "old"),
        ({"tokenizer_seedless": "old"}, TOKENIZER_METHOD_HASH, "old"),
        ({"tokenizer_method_hash": None}, TOKENIZER_METHOD_HASH, None),
        ({"seedless": "of the run itself"}, TOKENIZER_METHOD_HASH, None),
    ],
)
def test_a_hash_of_an_older_version_is_read_by_its_old_key(stored: dict[str, Any], key: str, found: str | None) -> None:
    assert stored_hash(stored, key) == found
