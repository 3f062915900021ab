"""The model card of an imported tokenizer, and the part of its config.json that says where it comes from."""

from typing import Any

from tavq.core import files
from tavq.core.config import write_yaml
from tavq.core.markdown import table_cell
from tavq.core.version import __version__
from tavq.interop.importing import Imported, summarize

UNSTATED = "not stated at the import; ask its publisher before you share the weights"


def import_metadata(imported: Imported, licence: str | None, origin: str | None) -> dict[str, Any]:
    """Where a tokenizer comes from, ready for JSON.

    Args:
        imported: the tokenizer.
        licence: as the user states it.
        origin: as the user states it; by default the name of the file.
    """
    return {
        "kind": imported.kind.name,
        "origin": origin or imported.file.name,
        "file": imported.file.name,
        "sha256": files.sha256(imported.file),
        "licence": licence,
        "weights": imported.weights,
        "dropped": [*summarize(imported.dropped), *imported.left],
        "tavq": __version__,
    }


def import_card(imported: Imported, record: dict[str, Any], size: int | None) -> str:
    """The README.md of the model folder.

    Args:
        imported: the tokenizer.
        record: what `import_metadata` made of it.
        size: side of the images that it was trained on, if the user said it.
    """
    tokenizer = imported.tokenizer
    model = tokenizer.config
    dropped = ", ".join(f"`{table_cell(name)}`" for name in record["dropped"]) or "nothing"
    settings = model.model_dump(mode="json", include={"net", "codebook", "quantizer"})
    return f"""# Image tokenizer

{imported.kind.title}, imported by tavq {record["tavq"]}.

| | |
|---|---|
| origin | {table_cell(record["origin"])} |
| file | {table_cell(record["file"])}, sha256 {record["sha256"]} |
| licence | {table_cell(record["licence"] or UNSTATED)} |
| weights that were read | {record["weights"]} |
| not read | {dropped} |
| discriminator | {imported.discriminator.description} |
| codebook | {tokenizer.entries:,} entries of width {model.codebook.width} |
| quantizer | {model.quantizer.name} |
| downsampling factor | {tokenizer.factor} |
| parameters | {sum(tokenizer.parameter_counts().values()):,} |
| image size | {f"{size} px" if size else "not stated; give --size to commands that read images"} |

```python
from tavq import Tokenizer

tokenizer = Tokenizer.from_pretrained("path/to/this/folder")
indices = tokenizer.encode(images)  # float [b 3 y x] in [-1, 1]
images = tokenizer.decode(indices)
```

Train it further with `tavq train finetune-decoder --train.start_from path/to/this/folder --data DATA --out RUN`. A
recipe of your own needs these settings and `train.start_from: path/to/this/folder`:

```yaml
{write_yaml({"model": settings}).rstrip()}
```
"""
