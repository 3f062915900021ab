"""`tavq recipes`."""

from typing import Any

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
        if model.reads_text:
            model = model.fitted(typical_store())
        with torch.device("meta"):
            counts = Tokenizer(model).parameter_counts()
        alignment = counts.get("aligner", 0) + counts.get("hierarchy", 0)
        shipped = sum(counts.values()) - alignment
        rows.append([name, shipped, alignment, recipe.data.size, recipe.train.steps, recipe.description])
    console.table("Recipes", ["name", "parameters", "alignment", "px", "steps", "description"], rows)


def typical_store() -> Any:
    """Stands for a text store where a recipe only has to be counted: as wide as BERT's, with VQCT's 6,207 words."""
    import numpy as np

    from tavq.text.wordgraph import WordGraph

    class Typical:
        width = 768

        def __contains__(self, key: str) -> bool:
            return False

        def vectors(self, key: str) -> dict[str, Any]:
            return {}

        def vocabulary(self, granularity: str) -> tuple[list[str], Any]:
            return ["token"] * 30_522, np.empty((30_522, self.width), np.float32)

        def word_graph(self) -> WordGraph:
            adjectives, nouns = (tuple(f"word {number}" for number in range(size)) for size in (1_207, 5_000))
            edges, vectors = np.empty((0, 2), np.int64), np.empty((6_207, self.width), np.float32)
            return WordGraph(adjectives, nouns, (1,) * 1_207, (1,) * 5_000, edges, edges[:, 0], vectors)

    return Typical()


def show(name: str) -> None:
    """Prints a recipe with every setting it resolves to.

    Example: tavq recipes show ta-vqgan-tiny

    Args:
        name: A shipped recipe or a YAML file.
    """
    from tavq import recipes
    from tavq.core.config import write_yaml

    print(write_yaml(recipes.load(name).model_dump(mode="json")), end="")
