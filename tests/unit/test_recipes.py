"""Recipes: every shipped one can be built, and one may stand on another."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from tavq import recipes
from tavq.core.config import build
from tavq.core.errors import TavqError, UsageError
from tavq.tokenizer import Tokenizer
from tavq.training.settings import Recipe

TINY = {
    "model": {"net": {"channels": 8, "multipliers": [1, 2]}, "codebook": {"name": "learned", "entries": 8}},
    "data": {"size": 16},
    "train": {"steps": 2, "betas": [0.5, 0.9]},
}


def write(path: Path, settings: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(settings))
    return str(path)


@pytest.mark.parametrize("name", recipes.names())
def test_a_shipped_recipe_can_be_built(name: str) -> None:
    recipe = recipes.load(name)
    assert recipe.description
    model = recipe.model
    if model.align is not None:
        model = model.model_copy(update={"text_width": 384})
    with torch.device("meta"):
        tokenizer = Tokenizer(model)
    assert recipe.data.size % tokenizer.factor == 0
    assert sum(tokenizer.parameter_counts().values()) > 0


@pytest.mark.parametrize("name", recipes.names())
def test_a_shipped_recipe_survives_as_plain_values(name: str) -> None:
    recipe = recipes.load(name)
    assert build(Recipe, recipe.model_dump(mode="json"), "test") == recipe


@pytest.mark.parametrize("name", [name for name in recipes.names() if name.startswith("ta-")])
def test_an_aligned_recipe_differs_from_its_backbone_in_the_alignment_alone(name: str) -> None:
    aligned, plain = recipes.load(name), recipes.load(name.removeprefix("ta-"))
    assert aligned.model.align is not None
    assert aligned.train == plain.train
    assert aligned.data == plain.data
    own = {"align": None, "hierarchy_weight": plain.model.hierarchy_weight}  # both say how the alignment counts
    assert aligned.model.model_copy(update=own) == plain.model


def test_names_and_texts() -> None:
    assert recipes.names() == sorted(recipes.names())
    assert "ta-vqgan-tiny" in recipes.names()
    assert yaml.safe_load(recipes.text_of("ta-vqgan-tiny"))["extends"] == "vqgan-tiny"


def test_a_file_of_ones_own_with_changes(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", TINY)
    assert recipes.load(path).train.steps == 2
    changed = recipes.load(path, {"train.steps": 5, "model.codebook.width": 3, "model.quantizer": "nearest"})
    assert changed.train.steps == 5
    assert changed.model.codebook.width == 3
    assert changed.model.codebook.entries == 8


def test_settings_are_laid_over_those_of_the_base(tmp_path: Path) -> None:
    write(tmp_path / "base.yaml", TINY)
    over = {
        "extends": "base.yaml",
        "model": {"codebook": {"name": "learned", "width": 3}, "net": {"channels": 16}},
        "train": {"betas": [0.1, 0.2]},
    }
    recipe = recipes.load(write(tmp_path / "mine.yaml", over))
    assert recipe.model.codebook.entries == 8
    assert recipe.model.codebook.width == 3
    assert recipe.model.net.channels == 16
    assert recipe.model.net.multipliers == (1, 2)
    assert recipe.train.betas == (0.1, 0.2)  # a list is replaced, not joined


def test_a_part_of_another_name_replaces_the_whole_part() -> None:
    base = {"quantizer": {"name": "nearest", "commitment": 0.5}, "align": {"name": "ta"}, "net": {"blocks": 1}}
    laid = recipes._laid_over(base, {"quantizer": {"name": "gumbel"}, "align": None, "net": {"channels": 8}})
    assert laid == {"quantizer": {"name": "gumbel"}, "align": None, "net": {"blocks": 1, "channels": 8}}
    assert base["net"] == {"blocks": 1}


def test_a_base_is_sought_beside_the_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "shared" / "base.yaml", TINY)
    write(tmp_path / "mine" / "middle.yaml", {"extends": "../shared/base.yaml", "train": {"steps": 3}})
    path = write(tmp_path / "mine" / "top.yaml", {"extends": "middle.yaml", "train": {"batch": 1}})
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = recipes.load(path)
    assert (recipe.train.steps, recipe.train.batch, recipe.data.size) == (3, 1, 16)


def test_a_recipe_of_ones_own_may_extend_a_shipped_one(tmp_path: Path) -> None:
    path = write(tmp_path / "mine.yaml", {"extends": "vqgan-tiny", "train": {"steps": 3}})
    assert recipes.load(path).train.steps == 3
    assert recipes.load(path).model == recipes.load("vqgan-tiny").model


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"extends": "mine.yaml"}, "extends a chain of more than 5 recipes"),
        ({"extends": "vqgan-tinny"}, "Unknown recipe 'vqgan-tinny'; known: "),
        ({"extends": "none.yaml"}, "There is no recipe file"),
        ({"extends": ["vqgan-tiny"]}, "Unknown recipe"),
        ({**TINY, "modle": {}}, "Unknown setting 'modle'; known: data, description, model, train. "
         "Did you mean 'model'?"),
        ({**TINY, "train": {"steps": 2, "setps": 3}}, "Unknown setting 'train.setps'"),
        ({**TINY, "train": {}}, "The setting 'train.steps' is missing"),
        ({**TINY, "data": {"size": 17}}, "data.size 17 must be a multiple of 2"),
        ({**TINY, "train": {"steps": 2, "l1": 0, "l2": 0}}, "l1 and l2 cannot both be 0"),
        ({**TINY, "train": {"steps": 2, "learning_rate": float("nan")}}, "'train.learning_rate' = nan"),
        ({**TINY, "model": {"codebook": {"name": "learned", "entires": 8}}}, "Unknown setting "
         "'model.codebook.entires'; known: entries, init, name, parts, redraw_until, restart, width. "
         "Did you mean 'entries'?"),
        ([1], "must hold settings"),
    ],
)  # fmt: skip
def test_recipes_that_are_refused(tmp_path: Path, settings: Any, message: str) -> None:
    path = write(tmp_path / "mine.yaml", settings)
    with pytest.raises(UsageError) as caught:
        recipes.load(path)
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("vqgan-tinny", "Did you mean 'vqgan-tiny'? A file of your own ends in .yaml."),
        ("none.yaml", "There is no recipe file 'none.yaml'."),
        ("../recipes/vqgan-tiny", "There is no recipe file '../recipes/vqgan-tiny'."),
        ("folder.yaml", "There is no recipe file 'folder.yaml'."),
    ],
)
def test_no_such_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "folder.yaml").mkdir()
    with pytest.raises(TavqError) as caught:
        recipes.load(name)
    assert message in str(caught.value)
