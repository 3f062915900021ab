"""`tavq recipes`."""

from pathlib import Path
from typing import Any

from cyclopts import App

from tavq import api
from tavq.cli import console

METHODS = ("vqvae", "vqgan", "gumbel", "cvq", "vqct", "lg-vqgan", "lg-cvq", "ta-vqgan", "ta-cvq")
"""In the order of the papers' tables; others follow by name."""

TITLES = {
    "tiny": "Tiny: the embedded scenes, minutes on a CPU",
    "flickr8k": "Flickr8k, at a size for a CPU",
    "256": "Any images; the base of the papers' recipes",
    "celeba-hq": "CelebA-HQ, as in the papers",
    "cub200": "CUB-200, as in the papers",
    "coco": "MS-COCO, as in the papers",
    "textcaps": "TextCaps, as in the papers",
    "ade20k": "ADE20K, as in the papers",
    "imagenet": "ImageNet, with VQGAN+'s losses",
}
"""Titles of the tables, by the data that recipes are for; others come last, under the data's name."""

COLUMNS = ("name", "generator", "discriminator", "alignment", "px", "batch", "steps", "FID", "description")

NOTE = (
    "Parameters: the generator is what a model folder holds; discriminator and alignment exist in training only. "
    "Alignment is counted for text vectors of BERT (768 wide; TA-VQ) or CLIP (512 wide, 49,408 tokens; LG-VQ). "
    "VQCT's generator has an entry for each word of your captions; it is counted with the paper's 6,207. "
    "FID is the papers' result, with their own network on their own images; `tavq recipes show NAME` prints all "
    "published results."
)


app = App(name="recipes", help="List and show the shipped recipes.\n\nExample: tavq recipes show ta-vqgan-tiny")


@app.default
def print_recipes(*, json: Path | None = None) -> None:
    """List the shipped recipes with their sizes and published results.

    Args:
        json: Also write the list to this file.
    """
    recipes, tasks, studies = api.list_recipes(), api.list_task_recipes(), api.list_studies()
    finetuning = api.list_finetuning_recipes()
    value = {"recipes": recipes, "finetuning": finetuning, "tasks": tasks, "studies": studies, "note": NOTE}
    with console.saved_as_json(json, value):
        _print_tokenizers(recipes)
        rows = [[each["name"], each["description"]] for each in finetuning]
        console.print_table("Any model, named by --train.start_from", ("name", "description"), rows)
        rows = [[task["name"], task["batch"], task["steps"], task["description"]] for task in tasks]
        console.print_table("Tasks", ("name", "batch", "steps", "description"), rows)
        rows = [[each["name"], len(each["rows"]), ", ".join(each["tasks"]), each["description"]] for each in studies]
        console.print_table("Studies, for `tavq study`", ("name", "rows", "tasks", "description"), rows)
        print(NOTE)


def _print_tokenizers(recipes: list[dict[str, Any]]) -> None:
    for name in [*TITLES, *sorted({recipe["data"] for recipe in recipes} - set(TITLES))]:
        chosen = [recipe for recipe in recipes if recipe["data"] == name]
        chosen.sort(key=lambda recipe: _order(recipe["method"]))
        rows = [_cells(recipe) for recipe in chosen]
        if rows:
            console.print_table(TITLES.get(name, name), COLUMNS, rows)


def _order(method: str) -> tuple[int, str]:
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def _cells(recipe: dict[str, Any]) -> list[Any]:
    """Return the row of a recipe; where papers disagree on FID it has all their values."""
    fid = [f"{result['value']:.2f}" for result in recipe["published"] if result["metric"] == "fid"]
    numbers = [recipe[key] or None for key in ("generator", "discriminator", "alignment", "size", "batch", "steps")]
    return [recipe["name"], *numbers, " / ".join(fid) or None, recipe["description"]]


@app.command
def show(name: str) -> None:
    """Print a recipe with every setting, or a study.

    Example: tavq recipes show ta-vqgan-tiny

    Args:
        name: A shipped recipe or study, or a YAML file with a tokenizer's recipe.
    """
    print(api.show_recipe(name), end="")
