"""`tavq recipes`."""

from pathlib import Path
from typing import Any

from cyclopts import App

from tavq.cli import console

METHODS = ("vqvae", "vqgan", "gumbel", "cvq", "vqct", "lg-vqgan", "lg-cvq", "ta-vqgan", "ta-cvq")
"""In the order of the papers' tables; others follow by name."""

GROUPS = {
    "tiny": "Tiny: the embedded scenes, minutes on a CPU",
    "flickr8k": "Flickr8k, at a size for a CPU",
    "256": "Any images; the base of the papers' recipes",
    "celeba-hq": "The papers' CelebA-HQ",
    "cub200": "The papers' CUB-200",
    "coco": "The papers' MS-COCO",
    "textcaps": "The papers' TextCaps",
    "ade20k": "The papers' ADE20K",
    "imagenet": "ImageNet, with VQGAN+'s losses",
}
"""The ends of names, and what a table of theirs is called; other recipes stand last, under their own end."""

ASSUMED = (
    "Parameters: the generator is what a model folder holds; discriminator and alignment exist in training only. "
    "Alignment is counted for text vectors of BERT (768 wide; TA-VQ) or CLIP (512 wide, 49,408 tokens; LG-VQ). "
    "VQCT's generator has an entry a word of your captions; it is counted with the paper's 6,207. "
    "FID is what papers report, with their own network on their own images; `tavq recipes show NAME` has all of it."
)


app = App(name="recipes", help="The shipped recipes.\n\nExample: tavq recipes show ta-vqgan-tiny")


@app.default
def listing(*, json: Path | None = None) -> None:
    """Lists the shipped recipes with their sizes and what papers report of them.

    Args:
        json: Also write the list to this file.
    """
    from tavq import recipes
    from tavq.recipes.sizes import Counter

    counter = Counter()
    found = [described(name, recipes.load(name), counter) for name in recipes.names()]
    ends = [*GROUPS, *sorted({row["data"] for row in found} - set(GROUPS))]
    for end in ends:
        rows = sorted((row for row in found if row["data"] == end), key=lambda row: place_of(row["method"]))
        if rows:
            columns = ["name", "generator", "discriminator", "alignment", "px", "batch", "steps", "FID", "description"]
            console.print_table(GROUPS.get(end, end), columns, [cells(row) for row in rows])
    print(ASSUMED)
    console.write_json(json, {"recipes": found, "note": ASSUMED})


def described(name: str, recipe: Any, counter: Any) -> dict[str, Any]:
    """What the list says of a recipe."""
    end = next((known for known in GROUPS if name.endswith(f"-{known}")), name.rpartition("-")[2])
    sizes = counter.count(recipe)
    return {
        "name": name,
        "method": name.removesuffix(f"-{end}"),
        "data": end,
        "description": recipe.description,
        "generator": sizes.generator,
        "discriminator": sizes.discriminator,
        "alignment": sizes.alignment,
        "size": recipe.data.size,
        "batch": recipe.train.batch,
        "steps": recipe.train.steps,
        "published": [number.model_dump(mode="json") for number in recipe.published],
    }


def place_of(method: str) -> tuple[int, str]:
    """Sorts methods as the papers do."""
    return (METHODS.index(method) if method in METHODS else len(METHODS), method)


def cells(row: dict[str, Any]) -> list[Any]:
    """The row of a table; papers that disagree on FID are all there."""
    fid = " / ".join(f"{number['value']:.2f}" for number in row["published"] if number["metric"] == "fid")
    numbers = [row[key] or None for key in ("generator", "discriminator", "alignment", "size", "batch", "steps")]
    return [row["name"], *numbers, fid or None, row["description"]]


@app.command
def show(name: str) -> None:
    """Prints a recipe with every setting it resolves to.

    Example: tavq recipes show ta-vqgan-tiny

    Args:
        name: A shipped recipe or a YAML file.
    """
    from tavq import recipes
    from tavq.core.config import write_yaml

    print(write_yaml(recipes.load(name).model_dump(mode="json")), end="")
