"""The shipped recipes."""

from typing import Any

from tavq import recipes
from tavq.core.config import read_yaml, write_yaml
from tavq.recipes.schema import Recipe
from tavq.recipes.sizes import Counter
from tavq.recipes.study import STUDIES

DATA = ("tiny", "flickr8k", "256", "celeba-hq", "cub200", "coco", "textcaps", "ade20k", "imagenet")
"""The ends of recipes' names that say what data they are for."""


def list_recipes() -> list[dict[str, Any]]:
    """Return what each shipped recipe of a tokenizer is: its settings in short, its parameters, published results."""
    counter = Counter()
    return [_describe(name, recipes.load(name), counter) for name in recipes.names()]


def list_task_recipes() -> list[dict[str, Any]]:
    """Return what each shipped recipe of a task is."""
    found = [(name, recipes.load_task(name)) for name in recipes.names(recipes.TASKS)]
    return [
        {"name": name, "description": recipe.description, "batch": recipe.train.batch, "steps": recipe.train.steps}
        for name, recipe in found
    ]


def list_finetuning_recipes() -> list[dict[str, Any]]:
    """Return what each shipped recipe that trains a trained tokenizer further is."""
    found = [(name, read_yaml(recipes.text_of(name), f"Recipe {name}")) for name in recipes.names(recipes.FINETUNING)]
    return [{"name": name, "description": settings["description"]} for name, settings in found]


def show_recipe(name: str) -> str:
    """Return the YAML text of a recipe with every setting, or of a study or a recipe of fine-tuning as it is.

    Args:
        name: a shipped recipe of a tokenizer or a task, a shipped study, or a YAML file with a tokenizer's recipe.

    Raises:
        UsageError: there is no such recipe, or a setting is not accepted.
    """
    if name in recipes.names(STUDIES):
        return recipes.text_of(name, STUDIES)
    if name in recipes.names(recipes.FINETUNING):
        return recipes.text_of(name)  # most settings are those of a model that only training names
    is_task = name in recipes.names(recipes.TASKS)
    recipe = recipes.load_task(name) if is_task else recipes.load(name)
    return write_yaml(recipe.model_dump(mode="json"))


def _describe(name: str, recipe: Recipe, counter: Counter) -> dict[str, Any]:
    data = next((known for known in DATA if name.endswith(f"-{known}")), name.rpartition("-")[2])
    sizes = counter.count(recipe)
    return {
        "name": name,
        "method": name.removesuffix(f"-{data}"),
        "data": data,
        "description": recipe.description,
        "generator": sizes.generator,
        "discriminator": sizes.discriminator,
        "alignment": sizes.alignment,
        "size": recipe.data.size,
        "batch": recipe.train.batch,
        "steps": recipe.train.steps,
        "published": [number.model_dump(mode="json") for number in recipe.published],
    }
