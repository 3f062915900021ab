"""`tavq search`: find images by a text, and texts and images by an image."""

import textwrap
from pathlib import Path
from typing import Any

from cyclopts import App

from tavq import api
from tavq.cli import console
from tavq.cli.console import Count, Workers
from tavq.cli.devices import with_device, with_precision

COUNT = 10

LONGEST = 100
"""Characters of a text that are shown."""

app = App(name="search")


@app.command
@with_device
@with_precision
def index(
    model: str,
    /,
    *,
    data: Path,
    out: Path | None = None,
    split: str | None = None,
    text: Path | None = None,
    float16: bool = False,
    fault_budget: str | None = None,
    workers: Workers | None = None,
    json: Path | None = None,
) -> None:
    """Embed the images and texts of a data set for `tavq search`.

    Example: tavq search index run --data scenes --out index

    Args:
        model: A tokenizer with an aligner (TA-VQ, LG-VQ) or a model of the task retrieval: its model folder, run
            folder or hub name.
        data: A folder data set.
        out: The folder of the index; by default RUN/index. An older index there is replaced.
        split: Only this split; by default all images.
        text: The text store, for an aligner; by default DATA/text. Without one, only images can be found.
        float16: Store vectors as float16, half the size.
        fault_budget: How many images may be unreadable: a number (by default 100), or a share of them such as 5%.
        workers: Background processes that read images; by default 0 on a CPU, and one a core, at most 8, on a GPU.
        json: Also write the counts to this file.
    """
    with console.bar(f"Indexing {data}") as bar:
        index = api.build_index(
            model,
            data=data,
            out=out,
            split=split,
            text=text,
            float16=float16,
            fault_budget=fault_budget,
            workers=workers,
            progress=bar,
        )
    built = index.manifest
    counts = {"images": built.images - built.unreadable, "texts": built.texts, "unreadable": built.unreadable}
    value = {**counts, "width": built.width, "bytes": built.bytes, "index": str(index.folder)}
    with console.saved_as_json(json, value):
        console.say(
            f"{counts['images']:,} images and {built.texts:,} distinct texts are in {index.folder}. Next: tavq search "
            f'{_as_argument(index.folder)} --text "…"'
        )


def _as_argument(folder: Path) -> str:
    """A folder as an argument that is not taken for a command: `index` is one."""
    return f"./{folder}" if str(folder) in app else str(folder)


@app.default
@with_device
@with_precision
def search(
    index: Path,
    /,
    *,
    text: str | None = None,
    image: Path | None = None,
    count: Count = COUNT,
    text_encoder: str | None = None,
    data: Path | None = None,
    out: Path | None = None,
    json: Path | None = None,
) -> None:
    """Find images by a text, or texts and similar images by an image.

    The search is exact. First build the index with: tavq search index

    Example: tavq search run --text "a red barn beside a lake" --count 10 --out sheet.png

    Args:
        index: The folder that `tavq search index` wrote, or the run folder that it lies in.
        text: Find images of this text.
        image: Find texts of this image, and images like it; its centre square is used.
        count: Number of results, nearest first.
        text_encoder: Folder of the text encoder of an aligner, if it has moved.
        data: Folder of the data set, if it has moved.
        out: Also write the images that were found to one PNG, row by row; with --image that image comes first.
        json: Also write the results to this file.
    """
    found = api.search_index(index, text=text, image=image, count=count, text_encoder=text_encoder, data=data, out=out)
    images = [{"file_name": hit.file_name, "score": hit.score} for hit in found.images]
    result: dict[str, Any] = {"index": str(index)}
    if image is None:
        result |= {"text": text, "images": images}
    else:
        texts = [{"text": hit.text, "file_name": hit.file_name, "score": hit.score} for hit in found.texts]
        result |= {"image": str(image), "images": images, "texts": texts}
    with console.saved_as_json(json, result):
        if image is not None:
            rows = [[textwrap.shorten(hit.text or "", LONGEST, placeholder=" …"), hit.score] for hit in found.texts]
            console.print_table("Texts", ["text", "score"], rows)
        console.print_table("Images", ["image", "score"], [[hit.file_name, hit.score] for hit in found.images])
    if out is not None:
        console.say(f"The images are in {out}.")
