"""Recipes that take the settings that they leave out from the model they start from."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from tavq import api, recipes
from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.recipes.schema import Recipe
from tavq.tokenizer import Tokenizer, TokenizerConfig

PARTS: dict[str, dict[str, Any]] = {
    "plain": {"codebook": {"name": "learned", "entries": 16, "width": 8}},
    "legacy": {
        "codebook": {"name": "learned", "entries": 16, "width": 8},
        "quantizer": {"name": "nearest", "commitment": 0.5, "legacy": True},
    },
    "spherical": {"codebook": {"name": "learned", "entries": 16, "width": 4}, "quantizer": {"name": "spherical"}},
    "gumbel": {"codebook": {"name": "learned", "entries": 16, "width": 8}, "quantizer": {"name": "gumbel"}},
    "residual": {
        "codebook": {"name": "learned", "entries": 8, "width": 4, "parts": 2},
        "quantizer": {"name": "residual"},
    },
    "lattice": {"codebook": {"name": "lattice", "levels": [3, 3]}, "quantizer": {"name": "scalar"}},
    "ema": {"codebook": {"name": "ema", "entries": 16, "width": 8}},
    "anchored": {"codebook": {"name": "anchored", "entries": 16, "width": 8}},
    "computed": {"codebook": {"name": "linear", "entries": 16, "width": 8}},
}
NET = {"channels": 8, "multipliers": [1, 2, 2], "blocks": 1, "attention": "middle", "latent_width": 12, "groups": 4}


def save(folder: Path, parts: dict[str, Any], **metadata: Any) -> TokenizerConfig:
    tokenizer = Tokenizer(build(TokenizerConfig, {"net": NET, **parts}, "test")).with_fixed_codebook()
    tokenizer.save_pretrained(folder, metadata=metadata)
    return tokenizer.config


@pytest.mark.parametrize("name", recipes.names(recipes.FINETUNING))
@pytest.mark.parametrize("parts", PARTS)
def test_network_codebook_and_quantizer_are_the_models(name: str, parts: str, tmp_path: Path) -> None:
    config = save(tmp_path / "model", PARTS[parts], size=32)
    recipe = recipes.load(name, {"train.start_from": str(tmp_path / "model")})
    assert recipe.model.model_copy(update={"align": None, "hierarchy": config.hierarchy}) == config
    assert recipe.data.size == 32
    assert recipe.description
    complete = yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json")))
    assert build(Recipe, complete, "written") == recipe  # what a run records needs no model


def test_a_setting_of_ones_own_is_laid_over_the_models(tmp_path: Path) -> None:
    colours = {"0": [0, 0, 0], "1": [9, 9, 9]}
    save(tmp_path / "model", PARTS["legacy"], size=32, kind_of_images="segmentation", colours=colours)
    start = {"train.start_from": str(tmp_path / "model")}
    recipe = recipes.load("finetune-all", {**start, "model.quantizer.commitment": 1.0, "data.size": 64})
    assert (recipe.model.quantizer.commitment, recipe.model.quantizer.legacy) == (1.0, True)  # type: ignore[attr-defined]
    assert (recipe.data.size, recipe.data.images) == (64, "segmentation")
    assert recipe.data.colours is not None
    other = recipes.load("finetune-all", {**start, "model.quantizer": {"name": "spherical"}})
    assert other.model.quantizer.name == "spherical"


def test_a_file_may_extend_a_model_or_a_recipe_that_does(tmp_path: Path) -> None:
    config = save(tmp_path / "model", PARTS["spherical"])
    mine = tmp_path / "mine.yaml"
    settings = {"extends": "start_from", "train": {"start_from": str(tmp_path / "model"), "steps": 3}}
    mine.write_text(yaml.safe_dump({**settings, "data": {"size": 32}}))
    assert recipes.load(str(mine)).model == config
    mine.write_text(yaml.safe_dump({**settings, "extends": "finetune-decoder", "data": {"size": 32}}))
    recipe = recipes.load(str(mine))
    assert (recipe.model, recipe.train.steps) == (config, 3)
    assert recipe.train.freeze == ("encoder", "codebook", "quantizer")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, "finetune-decoder trains a model further; name it with --train.start_from MODEL"),
        ({"train.start_from": "./none"}, "There is no model at './none'"),
        ({"train.start_from": "model"}, "does not say which image size it was trained at; add --data.size, a multiple "
         "of 4"),
        ({"train.start_from": "model", "data.size": 30}, "data.size 30 must be a multiple of 4"),
        ({"train.start_from": "model", "data.size": 32, "model.quantizer.comitment": 1}, "Unknown setting "
         "'model.quantizer.comitment'"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changes: dict[str, Any], message: str
) -> None:
    save(tmp_path / "model", PARTS["plain"])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UsageError) as caught:
        recipes.load("finetune-decoder", changes)
    assert message in str(caught.value)


def test_the_recipes_are_listed_and_shown() -> None:
    listed = {each["name"]: each["description"] for each in api.list_finetuning_recipes()}
    assert list(listed) == recipes.names(recipes.FINETUNING)
    assert all(len(description) > 20 for description in listed.values())
    assert "extends: start_from" in api.show_recipe("finetune-decoder")
    with pytest.raises(UsageError, match="Did you mean 'finetune-decoder'"):
        recipes.load("finetune-decodr")


@pytest.mark.parametrize(
    ("setting", "value", "message"),
    [
        ("learning_rate_factors", {"encodr": 1}, "train.learning_rate_factors: Unknown part 'encodr'; known: codebook, "
         "decoder, discriminator, encoder, quantizer. Did you mean 'encoder'"),
        ("learning_rate_factors", {"aligner": 1}, "Unknown part 'aligner'"),
        ("learning_rate_factors", {"encoder": 0}, "greater than 0"),
    ],
)  # fmt: skip
def test_factors_of_parts_that_are_not_there(setting: str, value: Any, message: str) -> None:
    settings = {"model": {"net": NET}, "data": {"size": 32}, "train": {"steps": 1, setting: value}}
    with pytest.raises(ValidationError) as caught:
        Recipe.model_validate(settings)
    assert message in str(caught.value)
