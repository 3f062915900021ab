"""Training an aligner on the codes of a frozen tokenizer: they are computed once, and kept in the run folder."""

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from tavq.core.errors import DataError, FileError
from tavq.core.mmap_tensors import MappedTensors
from tavq.core.seals import is_intact, write_sealed_tensors
from tavq.core.tensor_bytes import serialize_tensors
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.images import read_shape
from tavq.data.loader import CPU, EvaluationLoader
from tavq.data.prefetch import prefetch
from tavq.data.records import Fault
from tavq.data.texts import CaptionKeys, find_text_tables
from tavq.data.transforms import is_mirrored
from tavq.data.workers import AUGMENTATION, EpochPermutations, StreamSampler, iter_texts
from tavq.interfaces import TextFeatures, TextSource
from tavq.ops.shares import share_of
from tavq.tokenizer import Tokenizer

CODES = "codes.safetensors"
"""File of a run folder with the indices of its training images."""

BATCH = 32

UNREADABLE = "it could not be read when its codes were made"


@dataclass(frozen=True)
class CodeBatch:
    """Indices of images with their text: what a Batch is to an aligner, without pixels."""

    indices: Int[Tensor, "b h w *c"]
    keys: tuple[str, ...]  # file_name of each image
    text: TextFeatures | None = None


@dataclass(frozen=True)
class CodeTable:
    """The indices of the readable images of a split."""

    indices: Int[np.ndarray, "p o h w *c"]  # o orientations: the image and, with flips, its mirror image
    rows: Int[np.ndarray, " n"]  # of each image of the split; -1 where it cannot be read


def stamp_codes(tokenizer: Tokenizer, dataset: FolderDataset, config: DataConfig) -> str:
    """What the indices depend on, as JSON: weights of the frozen parts, data, size of the images, mirror images."""
    weights = hashlib.sha256()
    for part in ("encoder", "codebook", "quantizer"):
        state = {f"{part}.{name}": value.cpu() for name, value in tokenizer.get_submodule(part).state_dict().items()}
        weights.update(serialize_tensors({name: value.contiguous() for name, value in sorted(state.items())}, {}))
    names = "\n".join(record.file_name for record in dataset)
    manifest = {
        "model": weights.hexdigest(),
        "settings": tokenizer.config.model_dump(mode="json", include={"net", "codebook", "quantizer"}),
        "data": dataset.fingerprint,
        "images": hashlib.sha256(names.encode("utf-8", "surrogatepass")).hexdigest(),
        "kind": config.images,
        "colours": config.model_dump(mode="json")["colours"],
        "size": config.size,
        "orientations": 2 if config.flip else 1,
    }
    return json.dumps(manifest, sort_keys=True)


def load_codes(path: Path, stamp: str, images: int) -> CodeTable:
    """Map the file of codes.

    Args:
        path: the file.
        stamp: what `stamp_codes` gives now.
        images: of the split.

    Raises:
        FileError: there is none, it is damaged, or it was made from something else.
    """
    tensors = MappedTensors(path)
    if not is_intact(path):
        raise FileError(f"{path} is damaged")
    if tensors.metadata.get("stamp") != stamp:
        raise FileError(f"{path} was made from other weights, images or settings")
    rows = np.full(images, -1, np.int64)
    rows[tensors["images"]] = np.arange(len(tensors["images"]))
    return CodeTable(tensors["indices"], rows)


@torch.no_grad()
def write_codes(path: Path, stamp: str, tokenizer: Tokenizer, dataset: FolderDataset, config: DataConfig) -> None:
    """Encode the centre square of every image and write the indices, atomically.

    Memory: four bytes an index until the file is written.

    Raises:
        DataError: no image can be read, or fewer than the fault budget demands.
    """
    device = next(tokenizer.parameters()).device
    positions = {record.file_name: index for index, record in enumerate(dataset)}
    indices: list[Tensor] = []
    found: list[int] = []
    for batch in EvaluationLoader(dataset, config, BATCH):
        images = batch.images.to(device)
        orientations = [images, images.flip(3)] if config.flip else [images]
        indices.append(torch.stack([tokenizer.encode(pixels) for pixels in orientations], dim=1).int().cpu())
        found += [positions[key] for key in batch.keys]
    if not found:
        raise DataError(f"No image of {dataset.folder} can be read; see why with: tavq data check {dataset.folder}")
    write_sealed_tensors(path, {"indices": torch.cat(indices), "images": torch.tensor(found)}, {"stamp": stamp})


def count_oblong(dataset: FolderDataset) -> int:
    """How many images are not square, of those that can be opened."""
    count = 0
    for record in dataset:
        try:
            height, width, _ = read_shape(dataset.file(record.file_name))
        except (DataError, FileError):
            continue
        count += height != width
    return count


class CodeBatches:
    """An endless iterator over the batches of one process: the images of `TrainingLoader` in its order, as indices.

    An image is mirrored where that loader would mirror it. Where images are not square the two differ: here each is its
    centre square.

    Args:
        table: the indices of the split.
        dataset: the split.
        config: how its images are loaded.
        batch: images of a step, which all processes share.
        seed: decides the order and the mirror images.
        text: encoded text by file_name.
        consumed: samples that all processes together used before.
        rank: of this process.
        world: number of processes.
        device: where the text is.
    """

    def __init__(
        self,
        table: CodeTable,
        dataset: FolderDataset,
        config: DataConfig,
        batch: int,
        seed: int,
        text: TextSource,
        consumed: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device = CPU,
    ) -> None:
        self.table, self.config, self.seed = table, config, seed
        self.names = [record.file_name for record in dataset]
        missing = [record for record, row in zip(dataset, table.rows, strict=True) if row < 0]
        unreadable = [Fault(each.file_name, UNREADABLE, each.split, costs_image=True) for each in missing]
        self.faults: Sequence[Fault] = [*dataset.faults, *unreadable]
        self.consumed = consumed
        self._share = share_of(batch, rank, world)
        self._orders = EpochPermutations(len(self.names), seed)
        drawn = self._draw_texts(CaptionKeys(dataset, text), StreamSampler(consumed, self._share))
        texts = iter_texts(text, find_text_tables(dataset, text), drawn, config.workers)
        self._texts = prefetch(texts, device)

    def __iter__(self) -> Iterator[CodeBatch]:
        return self

    def __next__(self) -> CodeBatch:
        start = self.consumed + self._share.first
        positions = range(start, start + self._share.count)
        epochs = [position // len(self.names) for position in positions]
        images = [self._image(position) for position in positions]
        text = next(self._texts).unpack()
        self.consumed += self._share.total
        rows = self.table.rows[images]
        orientations = [self._orientation(epoch, image) for epoch, image in zip(epochs, images, strict=True)]
        indices = torch.from_numpy(self.table.indices[rows, orientations].astype(np.int64))
        return CodeBatch(indices, tuple(self.names[image] for image in images), text)

    def _draw_texts(self, captions: CaptionKeys, batches: Iterable[Sequence[int]]) -> Iterator[list[str]]:
        """The keys of the texts of each batch of positions, drawn for the epochs of these."""
        for positions in batches:
            epochs = [position // len(self.names) for position in positions]
            images = [self._image(position) for position in positions]
            yield [captions.draw(image, self.seed, epoch) for image, epoch in zip(images, epochs, strict=True)]

    def _image(self, position: int) -> int:
        """The image at a position of the stream, or the next readable one of its epoch."""
        epoch, start = divmod(position, len(self.names))
        order = self._orders[epoch]
        ahead = (int(order[(start + step) % len(order)]) for step in range(len(order)))
        return next(image for image in ahead if self.table.rows[image] >= 0)

    def _orientation(self, epoch: int, image: int) -> int:
        if self.table.indices.shape[1] == 1:
            return 0
        rng = np.random.default_rng([AUGMENTATION, self.seed, epoch, image])
        return int(is_mirrored(rng, self.config))

    def close(self) -> None:
        """End the workers."""
        self._texts.close()
