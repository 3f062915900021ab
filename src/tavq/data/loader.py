"""Batches of images with their text: an endless shuffled stream for training, one ordered pass for evaluation.

The order is a function of (seed, epoch) and every augmentation one of (seed, epoch, image). The whole state of the
stream is therefore one number, the samples consumed: a run that was stopped, or that goes on with other numbers of
workers or processes, sees what an undisturbed run sees.
"""

import contextlib
import json
import math
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float, UInt8
from pydantic import BeforeValidator, Field, model_validator
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tavq.core.errors import DataError, TavqError
from tavq.core.files import parse_json, resolve_inside
from tavq.data.folder import FolderDataset
from tavq.data.images import load_image, load_segmentation, read_shape
from tavq.data.palette import Colours, colourize
from tavq.data.records import Fault
from tavq.data.texts import collate_text, find_text_tables
from tavq.data.transforms import AugmentConfig, crop_and_resize, to_float
from tavq.interfaces import Batch, TextSource
from tavq.ops.collective import all_gather_text

ORDER, CHANGE = 0, 1  # what random numbers are drawn for; keeps the two streams apart


def _without_pictures(value: Any) -> Any:
    """`pictures` was the name of `images` in recipes and model folders of the version before."""
    return "images" if value == "pictures" else value


class DataConfig(AugmentConfig):
    """How images are read.

    `size` is the side of the square in pixels, `workers` the number of reading processes (0 reads in the training
    process itself), `fault_budget` the number of images that may be unreadable before the work stops. With
    `images: segmentation` the images are the segmentation maps in the palette's colours, or in those of `colours`
    by class number, all classes named; an image without a map cannot be read.
    """

    RENAMED: ClassVar = {"pictures": "images"}

    images: Annotated[Literal["images", "segmentation"], BeforeValidator(_without_pictures)] = "images"
    colours: Colours | None = None
    size: int = Field(default=256, ge=16, le=2048)
    workers: int = Field(default=0, ge=0, le=64)
    fault_budget: int = Field(default=100, ge=0)

    @model_validator(mode="after")
    def _colours_of_maps(self) -> "DataConfig":
        if self.colours is not None and self.images != "segmentation":
            raise ValueError("data.colours colour segmentation maps; set data.images to segmentation too")
        return self

    def for_segmentation(self, colours: Colours | None) -> "DataConfig":
        """The same of the segmentation maps, in the colours that a tokenizer was trained on."""
        return self.model_copy(update={"images": "segmentation", "colours": colours})


@dataclass(frozen=True)
class _Part:
    """What a worker hands over for one batch: the images it could read, and the faults it met on the way.

    One tensor for all images: each tensor that crosses processes costs a shared-memory file.
    """

    indices: tuple[int, ...]
    images: UInt8[Tensor, "b 3 y x"]
    faults: tuple[tuple[int, str], ...]


class _Reader(Dataset[_Part]):
    """Reads the images of a data set; lives in each worker and holds no open file."""

    def __init__(self, dataset: FolderDataset, config: DataConfig) -> None:
        self.folder = dataset.folder
        self.names = [record.file_name for record in dataset]
        self.maps = [record.segmentation for record in dataset] if config.images == "segmentation" else None
        self.config = config
        self.broken: dict[int, str] = {}

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor | None:
        """The prepared image; None, and an entry in `broken`, where it cannot be read."""
        if index in self.broken:
            return None
        path = self.folder / self.names[index]
        try:
            resolve_inside(
                self.folder, self.names[index]
            )  # again: a link may have been put there since the lines were read
            if self.maps is not None:
                image = self._map(path, self.maps[index])
            else:
                image = load_image(path, math.ceil(self.config.size / self.config.crop_scale**0.5))
        except TavqError as error:
            self.broken[index] = str(error).removeprefix(f"{path}: ")
            return None
        return crop_and_resize(image, self.config.size, rng, self.config, nearest=self.maps is not None)

    def _map(self, path: Path, name: str | None) -> UInt8[np.ndarray, "y x 3"]:
        """The segmentation of the image at `path` in colours."""
        if name is None:
            raise DataError("it has no segmentation")
        height, width, _ = read_shape(path)
        place = resolve_inside(self.folder, name)
        try:
            classes = load_segmentation(place)
        except DataError as error:
            raise DataError(f"its segmentation: {str(error).removeprefix(f'{place}: ')}") from error
        if classes.shape != (height, width):
            y, x = classes.shape
            raise DataError(f"its segmentation has {x} x {y} pixels, the image {width} x {height}")
        try:
            return colourize(classes, self.config.colours)
        except DataError as error:
            raise DataError(f"its segmentation: {error}") from error

    def __getitems__(self, places: Sequence[int]) -> _Part:
        faults: dict[int, str] = {}
        samples = [self.sample(place, faults) for place in places]
        found = [(index, image) for index, image in samples if image is not None]
        size = self.config.size
        images = torch.stack([image for _, image in found]) if found else torch.empty((0, 3, size, size)).byte()
        return _Part(tuple(index for index, _ in found), images, tuple(faults.items()))

    def sample(self, place: int, faults: dict[int, str]) -> tuple[int, Tensor | None]:
        """The image number `place`, in order; None, and an entry in `faults`, where it cannot be read."""
        image = self.read(place, None)
        if image is None:
            faults[place] = self.broken[place]
        return place, image


class EpochPermutations:
    """The order of `count` samples in each epoch, each once; a function of seed and epoch alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._known: dict[int, np.ndarray] = {}  # of this epoch and the one before: batches lie across both

    def __getitem__(self, epoch: int) -> np.ndarray:
        if epoch not in self._known:
            self._known = {key: order for key, order in self._known.items() if key == epoch - 1}
            self._known[epoch] = np.random.default_rng([ORDER, self.seed, epoch]).permutation(self.count)
        return self._known[epoch]


class _ShuffledReader(_Reader):
    """Reads by the number of a sample in the endless stream."""

    def __init__(self, dataset: FolderDataset, config: DataConfig, seed: int) -> None:
        super().__init__(dataset, config)
        self.seed = seed
        self.orders = EpochPermutations(len(self.names), seed)

    def sample(self, place: int, faults: dict[int, str]) -> tuple[int, Tensor | None]:
        """The image of one place of the stream, or the next one of its epoch that can be read."""
        epoch, start = divmod(place, len(self.names))
        order = self.orders[epoch]
        for step in range(len(order)):
            index = int(order[(start + step) % len(order)])
            image = self.read(index, np.random.default_rng([CHANGE, self.seed, epoch, index]))
            if image is not None:
                return index, image
            faults[index] = self.broken[index]
            if len(faults) > self.config.fault_budget:
                break
        return -1, None


@dataclass(frozen=True)
class _Places:
    """The places of each batch of this process, endlessly; all processes together take consecutive places."""

    consumed: int
    batch: int
    rank: int
    world: int

    def __iter__(self) -> Iterator[list[int]]:
        start = self.consumed + self.rank * self.batch
        while True:
            yield list(range(start, start + self.batch))
            start += self.batch * self.world


@contextlib.contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Turns torch's RuntimeError about a worker that ended into a DataError.

    Where there are workers, torch raises it from a signal handler, so at any moment, not only while a batch is
    waited for: put it around all the work that goes on meanwhile.
    """
    try:
        yield
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise DataError(
            f"A process that reads images ended ({str(error).splitlines()[0].strip()}). It may have run out of "
            "memory; try fewer data.workers, or 0."
        ) from error


class _Loader:
    """What both loaders share: faults, text, and the step from samples to a Batch."""

    def __init__(self, dataset: FolderDataset, config: DataConfig, text: TextSource | None) -> None:
        self.dataset = dataset
        self.config = config
        self.text = text
        self.faults: list[Fault] = list(dataset.faults)
        """What the data set's metadata got wrong, and the images that could not be read so far, each once."""
        self._unreadable: dict[int, str] = {}
        self._tables = find_text_tables(dataset, text)
        self._check_budget()

    def _read(self, reader: _Reader, places: Iterable[list[int]]) -> Generator[_Part, None, None]:
        loader = DataLoader(
            reader,
            batch_sampler=places,
            num_workers=self.config.workers,
            collate_fn=_unchanged,
            generator=torch.Generator(),  # else DataLoader draws from the global one
        )
        with explain_dead_workers():
            yield from loader

    def _note(self, part: _Part) -> None:
        for index, reason in part.faults:
            if index not in self._unreadable:
                self._unreadable[index] = reason
                self.faults.append(Fault(self.dataset[index].file_name, reason))
        self._check_budget()

    def _check_budget(self) -> None:
        if len(self.faults) > self.config.fault_budget or len(self._unreadable) == len(self.dataset):
            first = "; ".join(str(fault) for fault in self.faults[:3])
            raise DataError(
                f"{len(self._unreadable)} of {len(self.dataset)} images in {self.dataset.folder} cannot be read; "
                f"{len(self.faults)} faults in all (fault_budget is {self.config.fault_budget}): {first}. "
                "See them all with: tavq data check."
            )

    def _join(self, part: _Part) -> Batch:
        keys = tuple(self.dataset[index].file_name for index in part.indices)
        text = collate_text(self.text, keys, self._tables) if self.text is not None else None
        return Batch(to_float(part.images), keys, text)


class TrainingLoader(_Loader):
    """An endless iterator of training batches, without a break or a short batch at the end of an epoch.

    `batch` is the number of images of one process; the `world` processes together consume `batch * world` a step.
    `consumed` says how many samples all of them have been handed so far: give it back to go on from there. An image
    that cannot be read is replaced by the next readable one of its epoch and listed in `faults`.

    Raises DataError when more than `fault_budget` images cannot be read, UsageError when `text` knows none of them.
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
    ) -> None:
        super().__init__(dataset, config, text)
        self.consumed = consumed
        self._step = batch * world
        reader = _ShuffledReader(dataset, config, seed)
        self._parts = self._read(reader, _Places(consumed, batch, rank, world))

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        part = next(self._parts)
        self._note(part)
        self.consumed += self._step
        return self._join(part)

    def close(self) -> None:
        """Ends the reading processes; without it they end with the loader."""
        self._parts.close()


class EvaluationLoader(_Loader):
    """One pass over the images in order, each the centre square; may be iterated again.

    The last batch may be short. An image that cannot be read is left out of its batch and listed in `faults`.
    `limit` takes the first images only; `len` is the number of batches.

    Of `world` processes each reads every world-th batch, from the one that is its `rank`: none is read twice to fill
    up, and every batch holds the images that it holds where one process reads all, so that each image's figures
    are the same to the last bit.
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
    ) -> None:
        super().__init__(dataset, config, text)
        count = len(dataset) if limit is None else min(limit, len(dataset))
        places = [list(range(start, min(start + batch, count))) for start in range(0, count, batch)]
        self._places = places[rank::world]

    def __len__(self) -> int:
        return len(self._places)

    def __iter__(self) -> Iterator[Batch]:
        for part in self._read(_Reader(self.dataset, self.config), self._places):
            self._note(part)
            if part.indices:
                yield self._join(part)

    def join_faults(self) -> None:
        """Puts the faults of all processes together, in each of them and in the order of the images.

        Raises DataError where they are too many together.
        """
        own = json.dumps(list(self._unreadable.items()))
        told = [parse_json(text, "Another process's faults") for text in all_gather_text(own)]
        self._unreadable = dict(sorted(tuple(fault) for part in told for fault in part))
        found = [Fault(self.dataset[index].file_name, reason) for index, reason in self._unreadable.items()]
        self.faults[:] = [*self.dataset.faults, *found]
        self._check_budget()


def _unchanged(part: Any) -> Any:
    return part


def load_image_batch(dataset: FolderDataset, keys: Sequence[str], size: int) -> Float[Tensor, "b 3 {size} {size}"]:
    """Some images by name, each its centre square."""
    return torch.stack([to_float(crop_and_resize(load_image(dataset.path(key), size), size)) for key in keys])
