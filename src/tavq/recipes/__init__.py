"""The shipped recipes, one YAML file each, and the loading of recipe files."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.config import apply_overrides, build, read_yaml
from tavq.core.errors import UsageError, unknown_name
from tavq.recipes.schema import Recipe, TaskRecipe
from tavq.recipes.starting_model import START_FROM, settings_of_model

MAX_CHAIN = 5
"""How many recipes may extend one another; a recipe that extends itself never ends."""

TASKS = "tasks"
"""The folder of the recipes of tasks; those of tokenizers are in this folder."""

FINETUNING = "finetuning"
"""The folder of the recipes that train a trained tokenizer further; `load` takes them by name as it does the others."""


def names(folder: str = "") -> list[str]:
    """The names of the shipped recipes: of tokenizers, of tasks with `folder=TASKS`, of fine-tuning with FINETUNING.

    With `folder=STUDIES` they are those of the shipped studies.
    """
    place = resources.files(__name__).joinpath(folder) if folder else resources.files(__name__)
    return sorted(path.name.removesuffix(".yaml") for path in place.iterdir() if path.name.endswith(".yaml"))


def load(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """Load a tokenizer's recipe: a shipped one by name, or a YAML file by path.

    A recipe with `extends: NAME`, or a path relative to its own folder, overrides the settings of that recipe. One with
    `extends: start_from` overrides those of the model that `train.start_from` names.

    Args:
        name_or_path: the recipe.
        overrides: settings to change, by dotted name.

    Raises:
        UsageError: there is no such recipe, or a setting is unknown or not accepted.
    """
    settings = apply_overrides(_settings(name_or_path, ""), overrides or {})
    if settings.pop("extends", None) == START_FROM:
        settings = _override(settings_of_model(settings, name_or_path), settings)
    return build(Recipe, settings, f"Recipe {name_or_path}")


def load_task(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> TaskRecipe:
    """Load a task's recipe; see `load`."""
    settings = apply_overrides(_settings(name_or_path, TASKS), overrides or {})
    return build(TaskRecipe, settings, f"Recipe {name_or_path}")


def text_of(name_or_path: str, folder: str = "") -> str:
    """The YAML text of a recipe, without those that it extends."""
    folders = [folder] if folder else ["", FINETUNING]
    for place in folders:
        if name_or_path in names(place):
            return resources.files(__name__).joinpath(place, f"{name_or_path}.yaml").read_text(encoding="utf-8")
    if is_path(name_or_path):
        path = Path(name_or_path)
        if not path.is_file():
            raise UsageError(f"There is no recipe file {name_or_path!r}.")
        return files.read_text(path)
    known = [name for place in folders for name in names(place)]
    raise UsageError(unknown_name("recipe", name_or_path, known) + " The path of a file ends in .yaml.")


def _settings(name_or_path: str, folder: str, depth: int = 0) -> dict[str, Any]:
    if depth == MAX_CHAIN:
        raise UsageError(f"Recipe {name_or_path} extends a chain of more than {MAX_CHAIN} recipes.")
    settings = read_yaml(text_of(name_or_path, folder), f"Recipe {name_or_path}")
    if settings.get("extends") == START_FROM:
        return settings  # resolved once the command line has named the model
    base = settings.pop("extends", None)
    if base is None:
        return settings
    return _override(_settings(relative_to(name_or_path, str(base)), folder, depth + 1), settings)


def relative_to(recipe: str, base: str) -> str:
    """The recipe `base` as a file names it: a path is relative to the folder of `recipe`."""
    return str(Path(recipe).parent / base) if is_path(base) else base


def is_path(name: str) -> bool:
    """Whether a name is that of a file, and not of something shipped."""
    return name.endswith((".yaml", ".yml")) or "/" in name


def _override(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """Settings of `top` replace those of `base`, section by section.

    A section with another `name` is another part, and replaces the whole section of the base.
    """
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        same = isinstance(value, dict) and isinstance(below, dict) and value.get("name") in (None, below.get("name"))
        result[key] = _override(below, value) if same and isinstance(below, dict) else value
    return result
