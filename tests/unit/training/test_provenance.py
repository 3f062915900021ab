"""What tells that two runs are trainings of one and the same method."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tavq.core import files
from tavq.data.folder import FolderDataset
from tavq.tokenizer import read_model_config
from tavq.training.provenance import seedless
from tavq.training.settings import Recipe
from tavq.training.trainer import Trainer

FACTS = {"data_sha256": "d", "text": None, "device": "x86_64 CPU"}


@pytest.mark.parametrize(
    ("changes", "facts", "same"),
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
def test_only_a_seed_leaves_a_method_the_same(
    recipe: Callable[..., Recipe], changes: dict[str, Any], facts: dict[str, Any], same: bool
) -> None:
    assert (seedless(recipe(changes), {**FACTS, **facts}) == seedless(recipe(), FACTS)) is same


def test_a_model_folder_tells_it(recipe: Callable[..., Recipe], dataset: FolderDataset, tmp_path: Path) -> None:
    made = recipe({"train.steps": 1})
    model = Trainer(made, dataset, tmp_path / "run").run()
    assert read_model_config(model)["seedless"] == seedless(made, files.read_json(tmp_path / "run" / "provenance.json"))
