"""Building a search index: every image and every text of a data set as vectors, in memory that does not grow."""

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch

from tavq.core import files
from tavq.core.errors import UsageError
from tavq.core.mmap_tensors import TensorFileWriter
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.records import Fault
from tavq.search.index import FORMAT, MANIFEST, MODEL, TABLE, Contents, Manifest, SearchIndex, is_index, shapes_of
from tavq.search.spaces import Space, copy_model

BATCH = 32
TEXTS = 256
"""Texts that become vectors at a time."""

Progress = Callable[[int], None]


def build_index(
    space: Space,
    dataset: FolderDataset,
    out: Path,
    float16: bool = False,
    progress: Progress | None = None,
) -> tuple[SearchIndex, list[Fault]]:
    """The index of a data set's images and distinct texts at `out`, and the faults that were met.

    It takes the place of an older index in one atomic step; a build that was stopped leaves the older one. Rows stand
    in the order of file names, so that equally near ones have an order that no metadata.jsonl decides. The model is
    copied into it, so that it loads by itself. Memory: one batch, the lines of the data set, and a number for each
    distinct text.

    Args:
        space: what makes the vectors.
        dataset: the collection; images are read as their centre squares.
        out: the folder.
        float16: store vectors as float16.
        progress: told the images so far.

    Raises:
        UsageError: `out` holds something else.
        DataError: too many images cannot be read, or none can.
    """
    if out.exists() and not is_index(out) and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already holds something that is no search index; choose another --out.")
    files.remove_leftovers_of(out)
    ordered = dataset.subset(sorted(dataset, key=lambda record: record.file_name))
    blank = torch.zeros(1, 3, space.size, space.size)
    contents = Contents(
        format=FORMAT, model=space.sha256, size=space.size, width=space.embed_images(blank).shape[1], float16=float16,
        images=len(ordered), texts=sum(1 for _ in _texts(space, ordered)), data=dataset.folder.resolve().name,
        data_sha256=dataset.fingerprint, split=dataset.split, text_store=space.text_store,
    )  # fmt: skip
    with files.write_folder(out) as folder:
        unreadable, faults = _fill(folder / TABLE, contents, space, ordered, progress)
        copy_model(space.folder, folder / MODEL)
        manifest = Manifest(
            **contents.model_dump(),
            bytes=(folder / TABLE).stat().st_size,
            sha256=files.sha256(folder / TABLE),
            unreadable=unreadable,
            data_folder=str(dataset.folder.resolve()),
        )
        files.write_json(folder / MANIFEST, manifest.model_dump(mode="json"))
    return SearchIndex.open(out), faults


def _texts(space: Space, dataset: FolderDataset) -> Iterator[tuple[int, str, str]]:
    """Each distinct text with the place and name of the first image that it is of; told apart by 64 bits."""
    seen: set[int] = set()
    for place, record in enumerate(dataset):
        for text in space.texts_of(record):
            number = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            if number not in seen:
                seen.add(number)
                yield place, record.file_name, text


def _fill(
    path: Path, contents: Contents, space: Space, dataset: FolderDataset, progress: Progress | None
) -> tuple[int, list[Fault]]:
    """Writes all tensors; gives how many images could not be read, and all faults of the data set."""
    keys = [record.file_name.encode() for record in dataset]
    text = sum(len(text.encode()) for _, _, text in _texts(space, dataset))
    header = {"contents": json.dumps(contents.model_dump(mode="json"))}
    file = TensorFileWriter(path, shapes_of(contents, sum(map(len, keys)), text), header)
    try:
        file.write("keys_offsets", 0, np.cumsum([0, *map(len, keys)]))
        file.write("keys", 0, np.frombuffer(b"".join(keys), np.uint8))
        _write_texts(file, space, dataset)
        loader = EvaluationLoader(dataset, DataConfig(size=space.size), BATCH)
        read = _write_images(file, contents, space, loader, progress)
        file.flush()
    finally:
        file.close()
    return contents.images - read, list(loader.faults)


def _write_texts(file: TensorFileWriter, space: Space, dataset: FolderDataset) -> None:
    rows, end = 0, 0
    source = _texts(space, dataset)
    file.write("text_offsets", 0, np.zeros(1))
    while batch := list(islice(source, TEXTS)):
        encoded = [text.encode() for _, _, text in batch]
        file.write("texts", rows, space.embed_texts([(key, text) for _, key, text in batch]).numpy())
        file.write("owners", rows, np.array([place for place, _, _ in batch]))
        file.write("text_offsets", rows + 1, end + np.cumsum([len(text) for text in encoded]))
        file.write("text", end, np.frombuffer(b"".join(encoded), np.uint8))
        rows, end = rows + len(batch), end + sum(map(len, encoded))


def _write_images(
    file: TensorFileWriter, contents: Contents, space: Space, loader: EvaluationLoader, progress: Progress | None
) -> int:
    """Images come in order, some left out: the row of one that cannot be read is NaN, which is never found.

    Gives how many were read.
    """
    places = {record.file_name: place for place, record in enumerate(loader.dataset)}
    done = read = 0
    for batch in loader:
        found = [places[key] for key in batch.keys]
        rows = np.full((found[-1] + 1 - done, contents.width), np.nan, np.float32)
        rows[np.array(found) - done] = space.embed_images(batch.images).numpy()
        file.write("images", done, rows)
        done, read = found[-1] + 1, read + len(found)
        if progress is not None:
            progress(done)
    file.write("images", done, np.full((contents.images - done, contents.width), np.nan, np.float32))
    return read
