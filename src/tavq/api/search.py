"""Build a search index, and find images by text and texts by image."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from tavq.api.calls import TEXTS, Budget, PathLike, Progress, count_up_to, select_faults, warn, warn_of_faults
from tavq.api.images import ImageLike, image_config, read_square
from tavq.core.addresses import is_remote
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset, is_dataset, open_storage
from tavq.data.images import save_png
from tavq.data.storage import StoredFile
from tavq.data.workers import explain_dead_workers
from tavq.ops.collective import join_processes
from tavq.search.building import build_index as build
from tavq.search.index import INDEX, MODEL, Hit, SearchIndex
from tavq.search.spaces import AlignerSpace, open_space
from tavq.tasks.generation import image_grid
from tavq.text.store import TextStore

COUNT = 10
TILE = 128
"""Side of each image on a sheet, in pixels."""


@dataclass(frozen=True)
class SearchResult:
    """What a search found, nearest first; texts are searched by an image only."""

    images: Sequence[Hit]
    texts: Sequence[Hit] = ()


@explain_dead_workers()
def build_index(
    model: PathLike,
    *,
    data: PathLike,
    out: PathLike | None = None,
    split: str | None = None,
    text: PathLike | None = None,
    float16: bool = False,
    fault_budget: Budget | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> SearchIndex:
    """Embed the images and texts of a data set for `search_index`.

    Args:
        model: a tokenizer with an aligner (TA-VQ, LG-VQ) or a model of the task retrieval: its model folder, run folder
            or hub name.
        data: a folder data set.
        out: the folder of the index; by default RUN/index. An older index there is replaced.
        split: only this split; by default all images.
        text: the text store, for an aligner; by default DATA/text. Without one, only images can be found.
        float16: store vectors as float16, half the size.
        fault_budget: how many images may be unreadable before the call fails: a number (by default 100), or a share of
            them such as "5%".
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note).

    Returns:
        The index.

    Raises:
        UsageError: there is no such model or data set, the model has no space of images and texts, or `out` holds
            something else.
        DataError: too many images cannot be read.
        FileError: a file is damaged.
    """
    name = os.fspath(model)
    if out is None and not Path(name).is_dir():
        raise UsageError(f"{name} is not a local folder; use --out to say where to write the index.")
    place = Path(out) if out is not None else Path(name) / INDEX
    with join_processes():
        dataset = FolderDataset(Path(data), split)
        space = open_space(name, device=default_device())
        if isinstance(space, AlignerSpace):
            _read_texts(space, dataset, None if text is None else Path(text))
        elif text is not None:
            raise UsageError(f"{name} reads texts directly and does not use a text store; remove --text.")
        config = image_config(space.size, fault_budget, workers)
        index, faults = build(space, dataset, place, float16, count_up_to(len(dataset), progress), config)
        warn_of_faults(select_faults(faults, *TEXTS))
    return index


def _read_texts(space: AlignerSpace, dataset: FolderDataset, text: Path | None) -> None:
    """Give an aligner the texts of a data set, if there is a text store."""
    store = TextStore.find(dataset.home, text)
    if store is None:
        warn(f"{dataset.folder} has no text store, so no texts are indexed; build one with: tavq text {dataset.folder}")
        return
    space.use_store(store)
    changed = store.find_changed(record.texts(store.each_caption)[0] for record in dataset)
    if changed:
        warn(
            f"The text of {len(changed):,} images ({changed[0]} first) changed since {store.folder} was built; the "
            f"index has the old text. Rebuild the store with: tavq text {dataset.folder}"
        )


def search_index(
    index: PathLike,
    *,
    text: str | None = None,
    image: ImageLike | None = None,
    count: int = COUNT,
    text_encoder: str | None = None,
    data: PathLike | None = None,
    out: PathLike | None = None,
) -> SearchResult:
    """Find images by a text, or texts and similar images by an image. The search is exact.

    Args:
        index: the folder of an index, or the run folder that it lies in.
        text: find images of this text; unknown words are logged.
        image: find texts of this image, and images like it; its centre square is used.
        count: number of results.
        text_encoder: folder of the text encoder of an aligner, where it has moved.
        data: folder of the data set, where it has moved; used for `out`.
        out: also write the images that were found to one PNG file, after the image that was searched for.

    Returns:
        The nearest images and texts.

    Raises:
        UsageError: there is no index, or not exactly one of `text` and `image` is given.
        FileError: the index is damaged.
        DataError: an image cannot be read.
    """
    if (text is None) == (image is None):
        raise UsageError('Say what to look for, with either --text "…" or --image FILE.')
    opened = SearchIndex.open(Path(index))
    folder = Path(data) if data is not None else Path(opened.manifest.data_folder)
    if out is not None:
        _check_images(folder, None if data is not None else opened.manifest.data_sha256)
    space = open_space(opened.folder / MODEL, encoder=text_encoder, device=default_device())
    opened.check_model(space.sha256)
    if image is not None:
        query = space.embed_images(read_square(image, space.size))
        [texts] = opened.find_texts(query.numpy(), count)
    else:
        assert text is not None
        query, notes = space.embed_query(text)
        texts = []
        for note in notes:
            warn(note)
    [images] = opened.find_images(query.numpy(), count)
    if out is not None:
        first = [] if image is None else [image]
        _write_sheet(Path(out), [*first, *(open_storage(folder).file(hit.file_name) for hit in images)])
    return SearchResult(images, texts)


def _check_images(folder: Path, data_sha256: str | None) -> None:
    """Refuse a folder that is missing, or not the data set with this hash: an index can name any folder."""
    advice = "use --data to say where they are"
    if data_sha256 is not None and is_remote(folder):  # an index of somebody else must reach no network
        raise UsageError(f"The images of the index are at {folder}; {advice}.")
    if not is_dataset(folder):
        raise UsageError(f"There is no folder {folder} with the images of the index; {advice}.")
    if data_sha256 is not None and FolderDataset(folder).fingerprint != data_sha256:
        raise UsageError(
            f"{folder}, which the index names, holds other images than the index was built of, or changed since; "
            f"{advice}."
        )


def _write_sheet(out: Path, images: Sequence[ImageLike | StoredFile]) -> None:
    if not images:
        raise UsageError("Nothing was found, so there is nothing to show.")
    save_png(out, image_grid(torch.cat([read_square(image, TILE) for image in images])))
