"""`tavq recipes`."""

from cyclopts import App

from tavq.cli import console


def add_to(app: App) -> None:
    """Adds the commands."""
    recipes = App(name="recipes", help="The shipped recipes.\n\nExample: tavq recipes show ta-vqgan-tiny")
    recipes.default(listing)
    recipes.command(show)
    app.command(recipes)


def listing() -> None:
    """Lists the shipped recipes with their sizes."""
    import torch

    from tavq import recipes
    from tavq.tokenizer import Tokenizer

    rows = []
    for name in recipes.names():
        recipe = recipes.load(name)
        model = recipe.model
        if model.align is not None and model.text_width is None:
            model = model.model_copy(update={"text_width": 768})
        with torch.device("meta"):
            counts = Tokenizer(model).parameter_counts()
        alignment = counts.get("aligner", 0) + counts.get("hierarchy", 0)
        shipped = sum(counts.values()) - alignment
        rows.append([name, shipped, alignment, recipe.data.size, recipe.train.steps, recipe.description])
    console.table("Recipes", ["name", "parameters", "alignment", "px", "steps", "description"], rows)


def show(name: str) -> None:
    """Prints a recipe with every setting it resolves to.

    Example: tavq recipes show ta-vqgan-tiny

    Args:
        name: A shipped recipe or a YAML file.
    """
    from tavq import recipes
    from tavq.core.config import write_yaml

    print(write_yaml(recipes.load(name).model_dump(mode="json")), end="")
