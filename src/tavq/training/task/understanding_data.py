"""The training data of understanding tasks: features of every image, and the examples that its record gives."""

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.errors import DataError, FileError
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.core.seals import BLANK, SEAL, is_intact, seal_file
from tavq.core.temporary import temporary_path
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.data.palette import Colours
from tavq.data.records import Fault
from tavq.data.workers import EpochPermutations
from tavq.interfaces import TextSource
from tavq.ops.collective import all_gather_text, any_process, barrier, rank, world_size
from tavq.ops.shares import share_of
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import Task, tasks
from tavq.tasks.model_folder import TaskConfig
from tavq.tasks.understanding import (
    ImageInput,
    UnderstandingBatch,
    UnderstandingTask,
    collect_examples,
    extract_encoder_features,
    lookup_quantized,
)
from tavq.tokenizer import Tokenizer
from tavq.training.task.token_cache import find_cached_tokens
from tavq.training.task.tokens import TOKENS, FrozenTokenizer, encode_split, load_or_encode

FEATURES = "features.safetensors"
BATCH = 32
ADAPTER_IMAGES = 256
"""Images whose features decide the mean and std that the adapter normalizes with."""


class FeatureCache:
    """The features of every readable image of the training split, cached in the run folder.

    Args:
        config: which features; with `source: codes` the tokens are cached, and looked up in the codebook when needed.
        frozen: the tokenizer.
        dataset: the training split.
        data: how images are loaded.
        run: the run folder.
        device: where images are encoded.
        say: receives a line about where the tokens come from.
    """

    def __init__(
        self,
        config: ImageInput,
        frozen: FrozenTokenizer,
        dataset: FolderDataset,
        data: DataConfig,
        run: Path,
        device: torch.device,
        say: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.config, self.frozen, self.device = config, frozen, device
        self._dataset, self._data = dataset, data
        stamp = f"{frozen.sha256} {dataset.fingerprint} {dataset.split} {frozen.size}"
        self._cached: Any
        if config.source == "features":
            stored, self.faults = self._load_or_extract(run / FEATURES, stamp)
            self._cached, self._rows = stored["features"], np.flatnonzero(stored["read"])
            names = bytes(stored["keys"]).decode().split("\n")
            self.keys = tuple(names[row] for row in self._rows)
        else:
            flip = False
            stamp = f"{stamp} {flip}"
            table = load_or_encode(
                run / TOKENS,
                stamp,
                lambda: encode_split(frozen, dataset, data, flip, device),
                lambda: find_cached_tokens(stamp, dataset, device),
                say,
            )
            self.keys, self.faults, self._cached = table.keys, table.faults, table.tokens[:, 0]

    def load(self, images: Sequence[int]) -> Tensor:
        """The features [b n d] of images, given by their positions in `keys`."""
        if self.config.source == "features":
            return torch.from_numpy(np.stack([self._cached[self._rows[image]] for image in images])).float()
        tokens = self._cached[list(images)].long().to(self.device)
        return lookup_quantized(self.frozen.tokenizer, self.frozen.layout, tokens)

    def _load_or_extract(self, path: Path, stamp: str) -> tuple[MappedTensors, tuple[Fault, ...]]:
        """Map the features of an intact file with this stamp; if there is none, extract them and write the file."""
        stored = _map_features(path, stamp)
        is_missing = any_process(stored is None)
        if stored is not None and not is_missing:
            return stored, ()
        faults = self._extract(path, stamp)
        return MappedTensors(path), faults

    def _extract(self, path: Path, stamp: str) -> tuple[Fault, ...]:
        """Write the features in half precision, one batch at a time: they may be larger than memory.

        The table `read` holds 1 for each image that could be read. Processes that share the folder of the run write
        their parts into one file; those with a folder each extract everything, since all need it.
        """
        rows = {record.file_name: row for row, record in enumerate(self._dataset)}
        keys, layout = "\n".join(rows).encode(), self.frozen.layout
        shape = len(rows), layout.height * layout.width, self.frozen.feature_width
        shapes = {"features": ("<f2", shape), "keys": ("u1", (len(keys),)), "read": ("u1", (len(rows),))}
        metadata = {"stamp": stamp, SEAL: BLANK}
        temporary, is_shared = _create_together(temporary_path(path), shapes, metadata)
        part = (rank(), world_size()) if is_shared else (0, 1)
        file = TensorFileWriter(temporary, shapes, metadata)
        try:
            file.write("keys", 0, np.frombuffer(keys, np.uint8))
            loader = EvaluationLoader(self._dataset, self._data, BATCH, None, None, *part)
            for batch in loader:
                features = extract_encoder_features(self.frozen.tokenizer, batch.images.to(self.device))
                for key, feature in zip(batch.keys, features.half().cpu().numpy(), strict=True):
                    file.write("features", rows[key], feature[None])
                    file.write("read", rows[key], np.ones(1, np.uint8))
            file.flush()
        finally:
            file.close()
        if is_shared:
            loader.join_faults()  # every process has written its part
        if not is_shared or rank() == 0:
            seal_file(temporary)
            os.replace(temporary, path)
        barrier()
        return tuple(loader.faults)


def _map_features(path: Path, stamp: str) -> MappedTensors | None:
    """The features of an intact file with this stamp, or None."""
    try:
        stored = MappedTensors(path)
        return stored if stored.metadata.get("stamp") == stamp and is_intact(path) else None
    except FileError:
        return None


def _create_together(own: Path, shapes: Mapping[str, Any], metadata: Mapping[str, str]) -> tuple[Path, bool]:
    """The file to write features into: that of the first process and True if all see it, else `own` and False."""
    if world_size() == 1:
        return own, True
    if rank() == 0:
        TensorFileWriter(own, shapes, metadata).close()
    first = own.with_name(all_gather_text(own.name)[0])
    is_shared = not any_process(not first.is_file())
    return (first if is_shared else own), is_shared


class ExampleBatches:
    """An endless iterator over the batches of one process.

    Args:
        cache: features of the images.
        examples: each example with its image's position in `cache.keys`.
        task: collates examples.
        batch: examples of a step, which all processes share.
        seed: decides the order.
        consumed: examples that all processes together used before.
        rank: of this process.
        world: number of processes.
    """

    def __init__(
        self, cache: FeatureCache, examples: Sequence[tuple[int, Any]], task: UnderstandingTask, batch: int, seed: int,
        consumed: int = 0, rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.cache, self.examples, self.task = cache, examples, task
        self.consumed = consumed
        self.faults: Sequence[Fault] = cache.faults
        self._share = share_of(batch, rank, world)
        self._orders = EpochPermutations(len(examples), seed)

    def __iter__(self) -> "ExampleBatches":
        return self

    def __next__(self) -> UnderstandingBatch:
        start = self.consumed + self._share.first
        samples = [self._sample(position) for position in range(start, start + self._share.count)]
        self.consumed += self._share.total
        images = [image for image, _ in samples]
        keys = tuple(self.cache.keys[image] for image in images)
        examples = self.task.collate([example for _, example in samples])
        return UnderstandingBatch(self.cache.load(images), keys, examples)

    def _sample(self, position: int) -> tuple[int, Any]:
        """The example at a position of the endless stream, with its image."""
        epoch, offset = divmod(position, len(self.examples))
        return self.examples[int(self._orders[epoch][offset])]

    def close(self) -> None:
        """Do nothing: no worker reads ahead."""


class UnderstandingData:
    """The examples of the training split, and the features of its images.

    Args:
        recipe: the task's recipe.
        frozen: the tokenizer.
        dataset: the training split.
        run: the run folder.
        device: where images are encoded.
    """

    text: TextSource | None = None
    condition_tokenizer: Tokenizer | None = None
    colours: Colours | None = None

    def __init__(
        self,
        recipe: TaskRecipe,
        frozen: FrozenTokenizer,
        dataset: FolderDataset,
        run: Path,
        device: torch.device,
    ) -> None:
        self.recipe, self.frozen, self.dataset, self.run, self.device = recipe, frozen, dataset, run, device
        kind: Any = tasks[recipe.task.name]
        self.examples = collect_examples(kind, recipe.task, dataset)
        config = kind.resolve_config(recipe.task, frozen.layout, [example for _, example in self.examples])
        self.config = TaskConfig(task=config, layout=frozen.layout, feature_width=frozen.feature_width)
        self._cache: FeatureCache | None = None
        self.say: Callable[[str], None] = lambda text: None
        self._task: Any = None

    def metadata(self) -> dict[str, Any]:
        """The number of examples."""
        return {"examples": len(self.examples)}

    def initialize(self, task: Task) -> None:
        """Set the vocabulary, the answers and pretrained weights."""
        self._task = task
        self._task.prepare([example for _, example in self.examples])

    def features(self) -> FeatureCache:
        """The features of the training split; extracted once."""
        if self._cache is None:
            data = self.recipe.data
            config = DataConfig(size=self.frozen.size, workers=data.workers, fault_budget=data.fault_budget)
            image = self.config.task.image
            self._cache = FeatureCache(image, self.frozen, self.dataset, config, self.run, self.device, self.say)
        return self._cache

    def open_batches(self, consumed: int, batch: int, rank: int, world: int) -> ExampleBatches:
        """Batches of the examples whose image can be read."""
        cache = self.features()
        # In a resumed run this repeats the values of the checkpoint.
        self._task.adapter.fit(cache.load(range(min(len(cache.keys), ADAPTER_IMAGES))))
        images = {key: image for image, key in enumerate(cache.keys)}
        usable = [(images[key], example) for key, example in self.examples if key in images]
        if not usable:
            raise DataError(f"No readable image of {self.dataset.folder} has an example of this task.")
        return ExampleBatches(cache, usable, self._task, batch, self.recipe.train.seed, consumed, rank, world)

    def render_sample(self, task: Task) -> ndarray | None:
        """None: the task makes no images."""
        return None

    def named_tensors(self, batch: UnderstandingBatch) -> dict[str, Tensor]:
        """Features and examples."""
        values = {field.name: getattr(batch.examples, field.name) for field in fields(batch.examples)}
        tensors = {name: value for name, value in values.items() if isinstance(value, Tensor)}
        return {"features": batch.features, **tensors}
