"""What happens in the workers of a loader: which images a batch takes, reading them and looking up their text."""

import contextlib
import math
import time
import warnings
from collections.abc import Generator, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from tavq.core.errors import DataError, StorageError, TavqError
from tavq.core.signals import defer_signals, end_with_parent
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.images import load_image, load_segmentation, read_shape
from tavq.data.palette import colourize
from tavq.data.squares import load_square
from tavq.data.storage import DataFile
from tavq.data.texts import CaptionKeys, PackedText, collate_text
from tavq.data.transforms import crop_and_resize
from tavq.interfaces import TextSource
from tavq.ops.shares import Share

T = TypeVar("T")

SIGNALS = 0.5
"""Seconds within which the system tells of workers that were killed together."""

ORDER, AUGMENTATION = 0, 1  # the first number of a random seed; keeps the two random streams independent


@dataclass(frozen=True)
class LoadedBatch:
    """What a worker returns for one batch: the images it could read with their text, and the faults it met.

    One tensor holds all images, another one all text: each tensor that crosses processes costs a shared-memory file.
    """

    indices: tuple[int, ...]
    images: UInt8[Tensor, "b 3 y x"]
    faults: tuple[tuple[int, str], ...]
    text: PackedText | None = None
    error: TavqError | None = None  # raised by the main process: torch would wrap it in a traceback


def iter_loaded(reader: Dataset[T], batches: Iterable[Sequence[Any]], workers: int) -> Generator[T, None, None]:
    """Yield what `reader` returns for each batch, in their order, read by background processes or here.

    Closing the generator ends the processes. A process that dies raises DataError; see `explain_dead_workers`.
    """
    with warnings.catch_warnings(), explain_dead_workers():
        # more workers than cores are of use where files come from a slow disk
        warnings.filterwarnings("ignore", "This DataLoader will create")
        loader: DataLoader[T] = DataLoader(
            reader,
            batch_sampler=batches,  # type: ignore[arg-type]  # any iterable will do
            num_workers=workers,
            collate_fn=_identity,
            worker_init_fn=_start,
            generator=torch.Generator(),  # otherwise DataLoader draws from the global one
        )
        with defer_signals():
            loaded = iter(loader)
    with explain_dead_workers():
        yield from loaded


def _identity(batch: Any) -> Any:
    return batch


def _start(number: int) -> None:
    """In a worker: end with the process that started it.

    torch's own workers compare the number of their parent with the one it had when they began to work, so that a
    worker whose parent was killed before that would wait for work forever.
    """
    end_with_parent()


@contextlib.contextmanager
def explain_dead_workers() -> Iterator[None]:
    """Turn torch's error about a worker that died into a DataError: a RuntimeError, or that of the pipe to it.

    torch raises it from a signal handler, so at any moment and not only while waiting for a batch: wrap all work that
    goes on while there are workers.
    """
    try:
        yield
    except (RuntimeError, ConnectionResetError) as error:
        if isinstance(error, RuntimeError) and "DataLoader worker" not in str(error):
            raise
        _let_signals_arrive()
        raise DataError(
            f"A data loading worker died ({str(error).splitlines()[0].strip()}). It may have run out of memory; "
            "use fewer data.workers in training, fewer --workers of other commands, or 0."
        ) from error


def _let_signals_arrive() -> None:
    """Take the errors that torch raises when it hears of the end of this worker, after its pipe, and of others."""
    end = time.monotonic() + SIGNALS
    while (left := end - time.monotonic()) > 0:
        with contextlib.suppress(RuntimeError):
            time.sleep(left)


class ImageReader(Dataset[LoadedBatch]):
    """Reads images and looks up their text; a copy lives in each worker.

    A text store is memory-mapped: forked workers share the pages of its mapping, others open it again.
    """

    def __init__(
        self, dataset: FolderDataset, config: DataConfig, text: TextSource | None = None, tables: Sequence[str] = ()
    ) -> None:
        self.storage = dataset.storage
        self.names = [record.file_name for record in dataset]
        self.maps = [record.segmentation for record in dataset] if config.images == "segmentation" else None
        self.config = config
        self.text, self.tables = text, tables
        self.caption_keys = CaptionKeys(dataset, text)
        self.unreadable: dict[int, str] = {}

    def read(self, index: int, rng: np.random.Generator | None) -> Tensor | None:
        """The cropped image; None if it cannot be read, with the reason in `unreadable`."""
        if index in self.unreadable:
            return None
        file: DataFile | str = self.names[index]
        try:
            file = self.storage.file(self.names[index])
            if self.maps is not None:
                return self._crop(self._read_map(file, self.maps[index]), rng)
            if rng is None:
                return load_square(file, self.config.size)
            return self._crop(load_image(file, math.ceil(self.config.size / self.config.crop_scale**0.5)), rng)
        except StorageError:  # no fault of the image, which would be read the next time
            raise
        except TavqError as error:
            self.unreadable[index] = str(error).removeprefix(f"{file}: ")
            return None

    def _crop(self, image: UInt8[np.ndarray, "y x 3"], rng: np.random.Generator | None) -> Tensor:
        return crop_and_resize(image, self.config.size, rng, self.config, nearest=self.maps is not None)

    def _read_map(self, file: DataFile, name: str | None) -> UInt8[np.ndarray, "y x 3"]:
        """The coloured segmentation of the image in `file`."""
        if name is None:
            raise DataError("it has no segmentation")
        height, width, _ = read_shape(file)
        map_file = self.storage.file(name)
        try:
            classes = load_segmentation(map_file)
        except DataError as error:
            raise DataError(f"its segmentation: {str(error).removeprefix(f'{map_file}: ')}") from error
        if classes.shape != (height, width):
            y, x = classes.shape
            raise DataError(f"its segmentation: it has {x} x {y} pixels, but the image has {width} x {height}")
        try:
            return colourize(classes, self.config.colours)
        except DataError as error:
            raise DataError(f"its segmentation: {error}") from error

    def __getitems__(self, positions: Sequence[int]) -> LoadedBatch:
        faults: dict[int, str] = {}
        try:
            samples = [(position, *self.read_sample(position, faults)) for position in positions]
        except StorageError as raised:
            return LoadedBatch((), torch.empty((0, 3, 1, 1)).byte(), (), None, raised)
        readable = [(position, index, image) for position, index, image in samples if image is not None]
        indices = tuple(index for _, index, _ in readable)
        if not readable:
            size = self.config.size
            return LoadedBatch(indices, torch.empty((0, 3, size, size)).byte(), tuple(faults.items()))
        images = torch.stack([image for _, _, image in readable])
        try:
            text, error = self._look_up([(position, index) for position, index, _ in readable]), None
        except TavqError as raised:
            text, error = None, raised
        return LoadedBatch(indices, images, tuple(faults.items()), text, error)

    def read_sample(self, position: int, faults: dict[int, str]) -> tuple[int, Tensor | None]:
        """The index of a sample and its image; None if it cannot be read, with the reason in `faults`."""
        image = self.read(position, None)
        if image is None:
            faults[position] = self.unreadable[position]
        return position, image

    def text_key(self, position: int, index: int) -> str:
        """The key of the text of the image `index`, which was read for a position."""
        return self.caption_keys.first(index)

    def _look_up(self, samples: Sequence[tuple[int, int]]) -> PackedText | None:
        if self.text is None:
            return None
        keys = [self.text_key(position, index) for position, index in samples]
        return PackedText.pack(collate_text(self.text, keys, self.tables))


class TextReader(Dataset[PackedText | TavqError]):
    """Looks up the texts of batches by their keys; a copy lives in each worker."""

    def __init__(self, text: TextSource, tables: Sequence[str]) -> None:
        self.text, self.tables = text, tables

    def __getitems__(self, keys: Sequence[str]) -> PackedText | TavqError:
        try:
            return PackedText.pack(collate_text(self.text, keys, self.tables))
        except TavqError as error:  # torch would wrap it in a traceback
            return error


def iter_texts(
    text: TextSource, tables: Sequence[str], keys: Iterable[Sequence[str]], workers: int
) -> Generator[PackedText, None, None]:
    """Yield the texts of each batch of keys, looked up by background processes or, without workers, here."""
    with contextlib.closing(iter_loaded(TextReader(text, tables), keys, workers)) as loaded:
        for found in loaded:
            if isinstance(found, TavqError):
                raise found
            yield found


class EpochPermutations:
    """The order of `count` samples in each epoch, each once; a function of seed and epoch alone."""

    def __init__(self, count: int, seed: int) -> None:
        self.count, self.seed = count, seed
        self._cached: dict[int, np.ndarray] = {}  # this epoch and the previous one: a batch may span both

    def __getitem__(self, epoch: int) -> np.ndarray:
        if epoch not in self._cached:
            self._cached = {key: order for key, order in self._cached.items() if key == epoch - 1}
            self._cached[epoch] = np.random.default_rng([ORDER, self.seed, epoch]).permutation(self.count)
        return self._cached[epoch]


class ShuffledReader(ImageReader):
    """Reads by position in the endless shuffled stream."""

    def __init__(
        self,
        dataset: FolderDataset,
        config: DataConfig,
        seed: int,
        text: TextSource | None = None,
        tables: Sequence[str] = (),
    ) -> None:
        super().__init__(dataset, config, text, tables)
        self.seed = seed
        self.permutations = EpochPermutations(len(self.names), seed)

    def read_sample(self, position: int, faults: dict[int, str]) -> tuple[int, Tensor | None]:
        """The image at a position of the stream, or the next readable one of its epoch."""
        epoch, start = divmod(position, len(self.names))
        order = self.permutations[epoch]
        for step in range(len(order)):
            index = int(order[(start + step) % len(order)])
            image = self.read(index, np.random.default_rng([AUGMENTATION, self.seed, epoch, index]))
            if image is not None:
                return index, image
            faults[index] = self.unreadable[index]
            if len(faults) > self.config.max_faults(len(order)):
                break
        return -1, None

    def text_key(self, position: int, index: int) -> str:
        """A text of the image, drawn for the epoch of a position of the stream."""
        return self.caption_keys.draw(index, self.seed, position // len(self.names))


@dataclass(frozen=True)
class StreamSampler:
    """The stream positions of each batch of this process, endlessly; all processes take consecutive positions."""

    consumed: int
    share: Share

    def __iter__(self) -> Iterator[list[int]]:
        start = self.consumed + self.share.first
        while True:
            yield list(range(start, start + self.share.count))
            start += self.share.total
