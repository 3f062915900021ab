"""Shipped settings, one YAML file a recipe, and the reader of recipe files."""

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from tavq.core import files
from tavq.core.config import apply_overrides, build, read_yaml
from tavq.core.errors import UsageError, unknown_name
from tavq.recipes.schema import Recipe, TaskRecipe

MAX_CHAIN = 5

TASKS = "tasks"
"""The folder of the recipes of tasks; those of tokenizers stand here."""


def names(shelf: str = "") -> list[str]:
    """The shipped recipes of tokenizers, or those of tasks."""
    shelved = resources.files(__name__).joinpath(shelf) if shelf else resources.files(__name__)
    return sorted(path.name.removesuffix(".yaml") for path in shelved.iterdir() if path.name.endswith(".yaml"))


def load(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> Recipe:
    """A tokenizer's recipe, shipped by name or a YAML file by path, with dotted settings changed.

    A recipe may say `extends: NAME`, or a path seen from its own folder; its settings are then laid over that recipe's.

    Raises:
        UsageError: no such recipe, or a setting that is unknown or not accepted.
    """
    settings = apply_overrides(_settings(name_or_path, ""), overrides or {})
    return build(Recipe, settings, f"Recipe {name_or_path}")


def load_task(name_or_path: str, overrides: Mapping[str, Any] | None = None) -> TaskRecipe:
    """A task's recipe; else as `load`."""
    settings = apply_overrides(_settings(name_or_path, TASKS), overrides or {})
    return build(TaskRecipe, settings, f"Recipe {name_or_path}")


def text_of(name_or_path: str, shelf: str = "") -> str:
    """A recipe's own YAML text."""
    if name_or_path in names(shelf):
        return resources.files(__name__).joinpath(shelf, f"{name_or_path}.yaml").read_text(encoding="utf-8")
    if _is_path(name_or_path):
        path = Path(name_or_path)
        if not path.is_file():
            raise UsageError(f"There is no recipe file {name_or_path!r}.")
        return files.read_text(path)
    raise UsageError(unknown_name("recipe", name_or_path, names(shelf)) + " A file of your own ends in .yaml.")


def _settings(name_or_path: str, shelf: str, depth: int = 0) -> dict[str, Any]:
    if depth == MAX_CHAIN:
        raise UsageError(f"Recipe {name_or_path} extends a chain of more than {MAX_CHAIN} recipes.")
    settings = read_yaml(text_of(name_or_path, shelf), f"Recipe {name_or_path}")
    base = settings.pop("extends", None)
    if base is None:
        return settings
    return _laid_over(_settings(_seen_from(name_or_path, str(base)), shelf, depth + 1), settings)


def _seen_from(recipe: str, base: str) -> str:
    return str(Path(recipe).parent / base) if _is_path(base) else base


def _is_path(name: str) -> bool:
    return name.endswith((".yaml", ".yml")) or "/" in name


def _laid_over(base: dict[str, Any], top: dict[str, Any]) -> dict[str, Any]:
    """`top` over `base`, section by section; a part with another `name` replaces the base's whole."""
    result = dict(base)
    for key, value in top.items():
        below = result.get(key)
        same = isinstance(value, dict) and isinstance(below, dict) and value.get("name") in (None, below.get("name"))
        result[key] = _laid_over(below, value) if same and isinstance(below, dict) else value
    return result
