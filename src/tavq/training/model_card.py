"""The model card: the README.md of a model folder."""

from collections.abc import Mapping, Sequence
from typing import Any

from tavq.core.markdown import table_cell
from tavq.model_folder import find_import
from tavq.recipes.schema import Recipe, TaskRecipe
from tavq.tasks.base import TokenLayout
from tavq.tasks.model_folder import CONDITION_TOKENIZER


def tokenizer_card(recipe: Recipe, sizes: Sequence[int], provenance: dict[str, Any], step: int) -> str:
    """The README.md of a tokenizer's model folder.

    Args:
        recipe: its recipe.
        sizes: entries of each part of the codebook.
        provenance: metadata of the run.
        step: steps done.
    """
    model, train = recipe.model, recipe.train
    align = model.align.name if model.align is not None else "none"
    text = provenance.get("text")
    entries = " + ".join(f"{size:,}" for size in sizes)
    encoder = (text or {}).get("encoder", {}).get("name", "none") if isinstance(text, dict) else "none"
    return f"""# Image tokenizer

{recipe.description or "Trained with tavq."}

| | |
|---|---|
| codebook | {model.codebook.name}, {entries} entries of width {model.codebook.width} |
| quantizer | {model.quantizer.name} |
| alignment | {align} |
| text encoder | {encoder} |
| downsampling factor | {model.net.factor} |
| parameters | {sum(provenance["parameters"].values()):,} |
| data | {provenance["data"]}, {provenance["images"]:,} images, metadata {provenance["data_sha256"][:12]}… |
| image size | {recipe.data.size} px |
| steps | {step:,} of batch {train.batch}, seed {train.seed}, {train.precision} |{_started_from(provenance)}
| made with | tavq {provenance["tavq"]}, torch {provenance["torch"]} on {provenance["device"]} |

{_licence(provenance)}
`tavq evaluate` writes the metrics to evaluation.json of the run folder.

```python
from tavq import Tokenizer

tokenizer = Tokenizer.from_pretrained("path/to/this/folder")
indices = tokenizer.encode(images)  # float [b 3 y x] in [-1, 1]
images = tokenizer.decode(indices)
```
"""


def _started_from(provenance: Mapping[str, Any]) -> str:
    """The row of the table that names the model that training started from."""
    started = provenance.get("started_from")
    if not isinstance(started, Mapping):
        return ""
    imported = find_import(provenance)
    origin = f", imported from {table_cell(str(imported['origin']))}" if imported else ""
    return f"\n| started from | {table_cell(str(started['model']))}, weights {str(started['sha256'])[:12]}…{origin} |"


def _licence(provenance: Mapping[str, Any]) -> str:
    stated = find_import(provenance).get("licence")
    if stated:
        return (
            f"The model that these weights started from was imported with the licence {table_cell(str(stated))}; that "
            "and the licence of the data decide which one these have. State it here before you share them."
        )
    return (
        "The licence of these weights follows from that of the data they were trained on; state it here before you "
        "share them."
    )


def task_card(recipe: TaskRecipe, layout: TokenLayout, provenance: dict[str, Any], step: int) -> str:
    """The README.md of a task's model folder.

    Args:
        recipe: its recipe.
        layout: layout of its tokens.
        provenance: metadata of the run.
        step: steps done.
    """
    train, maps = recipe.train, provenance.get("segmentation_tokenizer")
    condition = (
        f"\n| tokenizer of segmentation maps | {maps[:12]}… (in the folder `{CONDITION_TOKENIZER}`) |" if maps else ""
    )
    return f"""# {recipe.task.name} on image tokens

{recipe.description or "Trained with tavq."}

| | |
|---|---|
| task | {recipe.task.name} |
| tokens | {layout.height} x {layout.width} positions x {layout.parts}, vocabulary {layout.vocabulary:,} |
| tokenizer | {provenance["tokenizer"][:12]}… (in the folder `tokenizer`) |{condition}
| parameters | {sum(provenance["parameters"].values()):,} |
| data | {provenance["data"]}, {provenance["images"]:,} images, metadata {provenance["data_sha256"][:12]}… |
| image size | {provenance["size"]} px |
| steps | {step:,} of batch {train.batch}, seed {train.seed}, {train.precision} |
| made with | tavq {provenance["tavq"]}, torch {provenance["torch"]} on {provenance["device"]} |

The licence of these weights follows from that of the data they were trained on; state it here before you share them.
"""
