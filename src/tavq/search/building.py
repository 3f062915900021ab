"""Builds a search index: embeds every image and every text of a data set, in bounded memory."""

import hashlib
import json
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int, Shaped

from tavq.core import files
from tavq.core.errors import UsageError
from tavq.core.mmap_tensors import TensorFileWriter
from tavq.core.temporary import remove_leftovers_of
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.records import Fault
from tavq.ops.collective import any_process, barrier, rank, world_size
from tavq.ops.gathering import gather_in_order, gather_rows
from tavq.search.index import FORMAT, MANIFEST, MODEL, TABLE, Contents, Manifest, SearchIndex, is_index, tensor_shapes
from tavq.search.spaces import Space, copy_model

IMAGE_BATCH = 32
TEXT_BATCH = 256

Progress = Callable[[int], None]


def build_index(
    space: Space,
    dataset: FolderDataset,
    out: Path,
    float16: bool = False,
    progress: Progress | None = None,
    config: DataConfig | None = None,
) -> tuple[SearchIndex, list[Fault]]:
    """Embed a data set's images and distinct texts into an index at `out`; returns it with the faults of the data set.

    Each of several processes embeds every n-th batch, the first writes; the index is the same as by one, byte for byte.

    An older index is replaced in one atomic step, and an interrupted build leaves it untouched. Vectors are in the
    order of file names, so that ties are broken independently of metadata.jsonl. The model is copied into the index,
    which makes it self-contained. Memory: one batch, the lines of the data set, and 8 bytes per distinct text.

    Args:
        space: embeds images and texts.
        dataset: the collection; of images the centre square is read.
        out: the folder.
        float16: store vectors as float16.
        progress: called with the number of images so far.
        config: how images are read; by default at the size of the space.

    Raises:
        UsageError: `out` holds something else.
        DataError: too many images, or all of them, are unreadable.
    """
    _check_out(out)
    remove_leftovers_of(out)
    config = config or DataConfig(size=space.size)
    ordered = dataset.subset(sorted(dataset, key=lambda record: record.file_name))
    blank = torch.zeros(1, 3, space.size, space.size)
    contents = Contents(
        format=FORMAT, model=space.sha256, size=space.size, width=space.embed_images(blank).shape[1], float16=float16,
        images=len(ordered), texts=sum(1 for _ in _distinct_texts(space, ordered)), data=dataset.name,
        data_sha256=dataset.fingerprint, split=dataset.split, text_store=space.text_store,
        precision=space.precision,
    )  # fmt: skip
    if rank() > 0:
        _, faults = _embed(None, contents, space, ordered, None, config)
        barrier()
        return SearchIndex.open(out, verify=False), faults
    with files.write_folder(out, lambda: _check_out(out)) as folder:
        unreadable, faults = _write_tensors(folder / TABLE, contents, space, ordered, progress, config)
        copy_model(space.folder, folder / MODEL)
        manifest = Manifest(
            **contents.model_dump(),
            bytes=(folder / TABLE).stat().st_size,
            sha256=files.sha256(folder / TABLE),
            unreadable=unreadable,
            data_folder=dataset.address,
        )
        files.write_json(folder / MANIFEST, manifest.to_json())
    barrier()
    return SearchIndex.open(out, verify=False), faults


def _check_out(out: Path) -> None:
    if out.exists() and not is_index(out) and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} already holds something that is not a search index; choose another --out.")


def _distinct_texts(space: Space, dataset: FolderDataset) -> Iterator[tuple[int, str, str]]:
    """Yield each distinct text with index and name of the first image it belongs to; compared by a 64-bit hash."""
    seen: set[int] = set()
    for image, record in enumerate(dataset):
        for text in space.read_texts(record):
            hashed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
            if hashed not in seen:
                seen.add(hashed)
                yield image, record.file_name, text


def _write_tensors(
    path: Path,
    contents: Contents,
    space: Space,
    dataset: FolderDataset,
    progress: Progress | None,
    config: DataConfig,
) -> tuple[int, list[Fault]]:
    """Write all tensors; returns how many images are unreadable, and all faults of the data set."""
    keys = [record.file_name.encode() for record in dataset]
    text_bytes = sum(len(text.encode()) for _, _, text in _distinct_texts(space, dataset))
    header = {"contents": json.dumps(contents.to_json())}
    file = TensorFileWriter(path, tensor_shapes(contents, sum(map(len, keys)), text_bytes), header)
    try:
        file.write("keys_offsets", 0, np.cumsum([0, *map(len, keys)]))
        file.write("keys", 0, np.frombuffer(b"".join(keys), np.uint8))
        return _embed(file, contents, space, dataset, progress, config)
    finally:
        file.close()


def _embed(
    file: TensorFileWriter | None,
    contents: Contents,
    space: Space,
    dataset: FolderDataset,
    progress: Progress | None,
    config: DataConfig,
) -> tuple[int, list[Fault]]:
    """Embed the share of this process, and write that of all into `file`; return as `_write_tensors` does."""
    _write_texts(file, space, dataset)
    loader = EvaluationLoader(dataset, config, IMAGE_BATCH, rank=rank(), world=world_size())
    readable = _write_images(file, contents, space, loader, progress)
    if file is not None:
        file.flush()
    loader.join_faults()
    return contents.images - readable, list(loader.faults)


def _write_texts(file: TensorFileWriter | None, space: Space, dataset: FolderDataset) -> None:
    count, end = 0, 0
    texts = _distinct_texts(space, dataset)
    if file is not None:
        file.write("text_offsets", 0, np.zeros(1))
    while batch := list(islice(texts, TEXT_BATCH * world_size())):
        own = batch[rank() * TEXT_BATCH : (rank() + 1) * TEXT_BATCH]
        embedded = [space.embed_texts([(key, text) for _, key, text in own])] if own else []
        places = range(rank() * TEXT_BATCH, rank() * TEXT_BATCH + len(own))
        vectors = gather_rows(places, embedded)
        encoded = [text.encode() for _, _, text in batch]
        if file is not None:
            file.write("texts", count, vectors.numpy())
            file.write("owners", count, np.array([image for image, _, _ in batch]))
            file.write("text_offsets", count + 1, end + np.cumsum([len(text) for text in encoded]))
            file.write("text", end, np.frombuffer(b"".join(encoded), np.uint8))
        count, end = count + len(batch), end + sum(map(len, encoded))


def _write_images(
    file: TensorFileWriter | None,
    contents: Contents,
    space: Space,
    loader: EvaluationLoader,
    progress: Progress | None,
) -> int:
    """Write the vectors of all images; returns how many images are readable.

    The loader skips unreadable images; their vectors are NaN, which the search never finds.
    """
    is_there = np.zeros(contents.images, bool)
    for places, vectors in _rounds(space, loader):
        is_there[places] = True
        if file is not None:
            for start in sorted({place - place % loader.batch for place in places.tolist()}):
                here = (places >= start) & (places < start + loader.batch)
                rows = np.full((places[here][-1] + 1 - start, contents.width), np.nan, np.float32)
                rows[places[here] - start] = vectors[here]
                file.write("images", start, rows)
        if progress is not None:
            progress(int(places[-1]) + 1)
    if file is not None:
        for place in np.flatnonzero(~is_there).tolist():
            file.write("images", place, np.full((1, contents.width), np.nan, np.float32))
    return int(is_there.sum())


def _rounds(
    space: Space, loader: EvaluationLoader
) -> Iterator[tuple[Int[np.ndarray, " n"], Shaped[np.ndarray, "n e"]]]:
    """Yield places and vectors of images in their order: in each round one batch of each process, in all of them."""
    place_of = {record.file_name: place for place, record in enumerate(loader.dataset)}
    batches = iter(loader)
    while True:
        batch = next(batches, None)
        if not any_process(batch is not None):
            return
        places = [] if batch is None else [place_of[key] for key in batch.keys]
        vectors = [] if batch is None else [space.embed_images(batch.images)]
        yield np.array(gather_in_order(places, places)), gather_rows(places, vectors).numpy()
