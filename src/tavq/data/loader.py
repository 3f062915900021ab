"""Batches of images with their text: an endless shuffled stream for training, one ordered pass for evaluation.

The order is a function of (seed, epoch) and every augmentation one of (seed, epoch, image). The whole state of the
stream is therefore one number, the samples consumed, which counts what was handed out and not what was read ahead: a
run that was stopped, or that resumes with other numbers of workers or processes, sees the same batches as an
uninterrupted run.
"""

import json
from collections.abc import Generator, Iterable, Iterator, Sequence
from itertools import pairwise

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import DataError
from tavq.core.files import parse_json
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.prefetch import prefetch
from tavq.data.records import Fault
from tavq.data.squares import load_square
from tavq.data.texts import find_text_tables
from tavq.data.transforms import to_float
from tavq.data.workers import ImageReader, LoadedBatch, ShuffledReader, StreamSampler, iter_loaded
from tavq.interfaces import Batch, TextSource
from tavq.ops.collective import all_gather_text
from tavq.ops.shares import share_of

BATCH_PIXELS = 32 * 512 * 512
"""Pixels that are measured, encoded or decoded at once; networks take some hundred bytes a pixel."""

CPU = torch.device("cpu")


def limit_batch(batch: int, pixels: int) -> int:
    """How many images of so many pixels fit a batch: `batch`, or fewer of large ones."""
    return max(1, min(batch, BATCH_PIXELS // max(1, pixels)))


class _Loader:
    """What both loaders share: faults, text tables, and the step from loaded images to a Batch."""

    def __init__(
        self, dataset: FolderDataset, config: DataConfig, text: TextSource | None, whole: int | None = None
    ) -> None:
        self.dataset = dataset
        self.config = config
        self.text = text
        self.faults: list[Fault] = list(dataset.faults)
        """The faults of the split's metadata and of the images that could not be read so far, each once."""
        self._count = len(dataset)  # of the images that are read
        self._whole = whole  # of the images that the budget counts, where more are read elsewhere
        self._unreadable: dict[int, str] = {}
        self._tables = find_text_tables(dataset, text)
        self._check_budget()

    def _load(self, reader: ImageReader, positions: Iterable[list[int]]) -> Generator[LoadedBatch, None, None]:
        return iter_loaded(reader, positions, self.config.workers)

    def _add_faults(self, loaded: LoadedBatch) -> None:
        if loaded.error is not None:
            raise loaded.error
        for index, reason in loaded.faults:
            if index not in self._unreadable:
                self._unreadable[index] = reason
                self.faults.append(self._to_fault(index, reason))
        self._check_budget()

    def _to_fault(self, index: int, reason: str) -> Fault:
        record = self.dataset[index]
        return Fault(record.file_name, reason, record.split, costs_image=True)

    def _check_budget(self) -> None:
        """Raise DataError if more images are missing than the budget allows; other faults cost none."""
        missing = [fault for fault in self.faults if fault.costs_image]
        count = self._count if self._whole is None else self._whole
        total = count + len(missing) - len(self._unreadable)
        allowed = self.config.max_faults(total)
        if len(missing) <= allowed and len(self._unreadable) < count:
            return
        folder, first = self.dataset.folder, "; ".join(str(fault) for fault in missing[:3])
        remedy = f"List them all with: tavq data check {folder}"
        if len(self._unreadable) < count:
            remedy += (
                " To go on without them, set data.fault_budget in training, or --fault-budget of other commands, to a "
                "number or a share (5%)."
            )
        raise DataError(
            f"{len(missing):,} of {total:,} images in {folder} cannot be read; the fault_budget is {allowed:,}: "
            f"{first}. {remedy}"
        )

    def _to_batch(self, loaded: LoadedBatch) -> Batch:
        keys = tuple(self.dataset[index].file_name for index in loaded.indices)
        return Batch(to_float(loaded.images), keys, None if loaded.text is None else loaded.text.unpack())


class TrainingLoader(_Loader):
    """An endless iterator of training batches; batches span epochs, so that none is short.

    An image that cannot be read is replaced by the next readable one of its epoch and listed in `faults`.

    Args:
        dataset: the images.
        config: how they are loaded.
        batch: images of a step, which all processes share.
        seed: decides order and augmentation.
        text: where their encoded text comes from.
        consumed: how many samples all processes have consumed; give back the attribute of this name to resume.
        rank: of this process.
        world: the number of processes.
        device: where the batches are; images cross to it as bytes.

    Raises:
        DataError: more than `fault_budget` images cannot be read.
        UsageError: `text` contains none of the images.
    """

    def __init__(
        self,
        dataset: FolderDataset,
        config: DataConfig,
        batch: int,
        seed: int,
        text: TextSource | None = None,
        consumed: int = 0,
        rank: int = 0,
        world: int = 1,
        device: torch.device = CPU,
    ) -> None:
        super().__init__(dataset, config, text)
        self.consumed = consumed
        self._step = batch
        reader = ShuffledReader(dataset, config, seed, text, self._tables)
        self._loaded = prefetch(self._load(reader, StreamSampler(consumed, share_of(batch, rank, world))), device)

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        loaded = next(self._loaded)
        self._add_faults(loaded)
        self.consumed += self._step
        return self._to_batch(loaded)

    def close(self) -> None:
        """End the workers; otherwise they end with the loader."""
        self._loaded.close()


class EvaluationLoader(_Loader):
    """One pass over the images in order, each the centre square; may be iterated again. `len` counts batches.

    The last batch may be short. An image that cannot be read is left out of its batch and listed in `faults`.

    Each of several processes reads every `world`-th batch. No image is read twice to even out their numbers, and every
    batch holds the same images as in a single process, so that per-image metrics are the same to the bit.

    Args:
        dataset: the images.
        config: how they are loaded.
        batch: images per batch.
        text: where their encoded text comes from.
        limit: take the first images only.
        rank: of this process, and its first batch.
        world: the number of processes.
        group: no batch has images of two groups of so many, so that those of a group do not depend on the others.
        whole: the images of the data set of which `dataset` is a part, by which `fault_budget` is counted: all images
            of a part may be unreadable. By default those of `dataset`.
    """

    def __init__(
        self,
        dataset: FolderDataset,
        config: DataConfig,
        batch: int,
        text: TextSource | None = None,
        limit: int | None = None,
        rank: int = 0,
        world: int = 1,
        group: int | None = None,
        whole: int | None = None,
    ) -> None:
        super().__init__(dataset, config, text, whole)
        batch = self.batch = limit_batch(batch, config.size * config.size)
        count = self._count = len(dataset) if limit is None else min(limit, len(dataset))
        group = group or max(1, count)
        starts = [start for first in range(0, count, group) for start in range(first, min(first + group, count), batch)]
        batches = [list(range(start, stop)) for start, stop in pairwise([*starts, count])]
        self._batches = batches[rank::world]

    def __len__(self) -> int:
        return len(self._batches)

    def __iter__(self) -> Iterator[Batch]:
        reader = ImageReader(self.dataset, self.config, self.text, self._tables)
        for loaded in self._load(reader, self._batches):
            self._add_faults(loaded)
            if loaded.indices:
                yield self._to_batch(loaded)

    def join_faults(self) -> None:
        """Merge the faults of all processes, in each of them and in the order of the images.

        Raises DataError if they exceed the budget together.
        """
        own = json.dumps(list(self._unreadable.items()))
        parts = [parse_json(text, "Another process's faults") for text in all_gather_text(own)]
        self._unreadable = dict(sorted(tuple(fault) for part in parts for fault in part))
        found = [self._to_fault(index, reason) for index, reason in self._unreadable.items()]
        self.faults[:] = [*self.dataset.faults, *found]
        self._check_budget()


def load_image_batch(dataset: FolderDataset, keys: Sequence[str], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """Load images by name, each as its centre square."""
    return torch.stack([to_float(load_square(dataset.file(key), size)) for key in keys])
