"""`tavq search`: find images by a text, and texts and images by an image."""

import textwrap
from pathlib import Path
from typing import Any

from cyclopts import App

from tavq.cli import console
from tavq.cli.console import Count
from tavq.core.errors import UsageError

COUNT = 10
TILE = 128
"""Pixels of a side of each image on a sheet."""

LONGEST = 100
"""Characters of a text that is shown."""


app = App(name="search")


@app.command
def index(
    model: str,
    /,
    *,
    data: Path,
    out: Path | None = None,
    split: str | None = None,
    text: Path | None = None,
    float16: bool = False,
    json: Path | None = None,
) -> None:
    """Turns the images and texts of a data set into vectors that `tavq search` looks through.

    Example: tavq search index run --data scenes --out found

    Args:
        model: A tokenizer with an aligner (TA-VQ, LG-VQ) or a model of the task retrieval: its model folder, run
            folder or hub name.
        data: A folder data set.
        out: The index, a folder; by default RUN/index. An older index there is replaced.
        split: Only this split; by default all images.
        text: The text store, for an aligner; by default DATA/text. Without one, only images are found.
        float16: Store vectors as float16, half the size.
        json: Write the counts to this file too.
    """
    from tavq.core.devices import default_device
    from tavq.data.folder import FolderDataset
    from tavq.search.building import build_index
    from tavq.search.spaces import AlignerSpace, open_space

    place = out or _in_run(model)
    dataset = FolderDataset(data, split)
    space = open_space(model, device=default_device())
    if isinstance(space, AlignerSpace):
        _read_store(space, dataset, text)
    elif text is not None:
        raise UsageError(f"{model} reads texts as they are and needs no text store; leave --text out.")
    with console.bar(f"Indexing {data}", len(dataset)) as bar:
        made, faults = build_index(space, dataset, place, float16, bar)
    console.tell_faults(faults)
    told = made.manifest
    counts = {"images": told.images - told.unreadable, "texts": told.texts, "unreadable": told.unreadable}
    console.write_json(json, {**counts, "width": told.width, "bytes": told.bytes, "index": str(place)})
    console.say(
        f"{counts['images']:,} images and {told.texts:,} distinct texts are in {place}. Next: tavq search {place} "
        '--text "…"'
    )


def _read_store(space: Any, dataset: Any, named: Path | None) -> None:
    """Gives an aligner the texts of a data set, where it has a text store."""
    from tavq.text.store import TextStore

    store = TextStore.find(dataset.folder, named, verify=True)
    if store is None:
        console.say(
            f"{dataset.folder} has no text store, so no texts will be found; make one: tavq text {dataset.folder}"
        )
        return
    space.read(store)
    changed = store.find_changed((record.file_name, record.text or "") for record in dataset)
    if changed:
        console.say(
            f"The text of {len(changed):,} images, {changed[0]} the first, is another one than when {store.folder} "
            f"was made, and is found by what the old one says; make it anew with: tavq text {dataset.folder}"
        )


def _in_run(model: str) -> Path:
    from tavq.search.index import INDEX

    if not Path(model).is_dir():
        raise UsageError(f"{model} is no folder here; say with --out where the index shall lie.")
    return Path(model) / INDEX


@app.default
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
    """Finds images by a text, or texts and similar images by an image.

    Every vector is compared, so what is found is what is nearest. First make the index: tavq search index

    Example: tavq search run --text "a red barn beside a lake" --count 10 --out sheet.png

    Args:
        index: What `tavq search index` made: the folder, or the run folder that it lies in.
        text: Find images of this.
        image: Find texts of this image, and images like it; its centre square is read.
        count: How many, the nearest first.
        text_encoder: Where the text encoder of an aligner's training is, if it was a folder.
        data: Where the data set is now, if it was moved.
        out: Write the images that were found as one PNG, row by row; with --image that image comes first.
        json: Write what was found to this file too.
    """
    from tavq.core.devices import default_device
    from tavq.search.index import MODEL, SearchIndex
    from tavq.search.spaces import open_space

    if (text is None) == (image is None):
        raise UsageError('Say what to look for, with either --text "…" or --image FILE.')
    found = SearchIndex.open(index, verify=True)
    folder = data or Path(found.manifest.data_folder)
    if out is not None and not folder.is_dir():
        raise UsageError(f"There is no folder {folder}, where the images should be; say with --data where they are.")
    space = open_space(found.folder / MODEL, encoder=text_encoder, device=default_device())
    found.check_model(space.sha256)
    if text is not None:
        query, notes = space.embed_typed(text)
        for line in notes:
            console.say(line)
    else:
        assert image is not None
        query = space.embed_images(_square(image, space.size))
    [images] = found.find_images(query.numpy(), count)
    [texts] = found.find_texts(query.numpy(), count) if image is not None else [[]]
    if image is not None:
        rows = [[textwrap.shorten(hit.text or "", LONGEST, placeholder=" …"), hit.score] for hit in texts]
        console.table("Texts", ["text", "score"], rows)
    console.table("Images", ["image", "score"], [[hit.file_name, hit.score] for hit in images])
    if out is not None:
        _write_sheet(out, image, [hit.file_name for hit in images], folder)
        console.say(f"The images are in {out}.")
    console.write_json(json, {"index": str(index), **_told(text, image, images, texts)})


def _told(text: str | None, image: Path | None, images: Any, texts: Any) -> dict[str, Any]:
    """What was found, for JSON."""
    told: dict[str, Any] = {"text": text} if image is None else {"image": str(image)}
    told["images"] = [{"file_name": hit.file_name, "score": hit.score} for hit in images]
    if image is not None:
        told["texts"] = [{"text": hit.text, "file_name": hit.file_name, "score": hit.score} for hit in texts]
    return told


def _square(path: Path, size: int) -> Any:
    """The centre square of a file's image, as models read it."""
    from tavq.data.images import load_image
    from tavq.data.transforms import crop_and_resize, to_float

    return to_float(crop_and_resize(load_image(path), size))[None]


def _write_sheet(out: Path, asked: Path | None, names: list[str], folder: Path) -> None:
    import torch

    from tavq.core.files import resolve_inside
    from tavq.data.images import save_png
    from tavq.tasks.generation import image_grid

    places = [asked] * (asked is not None) + [resolve_inside(folder, name) for name in names]
    if not places:
        raise UsageError("Nothing was found, so there is nothing to show.")
    save_png(out, image_grid(torch.cat([_square(place, TILE) for place in places if place is not None])))
