"""What tasks that read learn from: what is seen of every image, with the examples that its record gives."""

import os
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.errors import DataError, FileError
from tavq.core.files import TEMP_PREFIX
from tavq.core.mmap_tensors import MappedTensors, TensorFileWriter
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig, EpochPermutations, EvaluationLoader
from tavq.data.palette import Colours
from tavq.data.records import Fault
from tavq.interfaces import TextSource
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
from tavq.training.task.tokens import TOKENS, FrozenTokenizer, encode_split, load_or_encode

FEATURES = "features.safetensors"
BATCH = 32
FITTED = 256
"""Images whose rows decide the adapter's mean and spread."""


class FeatureCache:
    """What is seen of each image of the training split, by its place among those that could be read."""

    def __init__(
        self,
        config: ImageInput,
        frozen: FrozenTokenizer,
        dataset: FolderDataset,
        data: DataConfig,
        run: Path,
        device: torch.device,
    ) -> None:
        self.config, self.frozen, self.device = config, frozen, device
        self._dataset, self._data = dataset, data
        stamp = f"{frozen.sha256} {dataset.fingerprint} {dataset.split} {frozen.size}"
        self._kept: Any
        if config.source == "features":
            stored, self.faults = self._features(run / FEATURES, stamp)
            self._kept, self._rows = stored["features"], np.flatnonzero(stored["read"])
            names = bytes(stored["keys"]).decode().split("\n")
            self.keys = tuple(names[row] for row in self._rows)
        else:
            table = load_or_encode(
                run / TOKENS, stamp + " False", lambda: encode_split(frozen, dataset, data, False, device)
            )
            self.keys, self.faults, self._kept = table.keys, table.faults, table.tokens[:, 0]

    def rows(self, places: Sequence[int]) -> Tensor:
        """[b n d] of some images."""
        if self.config.source == "features":
            return torch.from_numpy(np.stack([self._kept[self._rows[place]] for place in places])).float()
        return lookup_quantized(
            self.frozen.tokenizer, self.frozen.layout, self._kept[list(places)].long().to(self.device)
        )

    def _features(self, path: Path, stamp: str) -> tuple[MappedTensors, tuple[Fault, ...]]:
        """The features in half precision, mapped from a file of the run folder, which is made where it is not there."""
        try:
            stored = MappedTensors(path)
            if stored.metadata.get("stamp") == stamp:
                return stored, ()
        except FileError:
            pass
        faults = self._write_features(path, stamp)
        return MappedTensors(path), faults

    def _write_features(self, path: Path, stamp: str) -> tuple[Fault, ...]:
        """A batch at a time: they are many times as large as tokens. `read` tells which images could be read."""
        rows = {record.file_name: row for row, record in enumerate(self._dataset)}
        keys, layout = "\n".join(rows).encode(), self.frozen.layout
        shape = len(rows), layout.height * layout.width, self.frozen.feature_width
        shapes = {"features": ("<f2", shape), "keys": ("u1", (len(keys),)), "read": ("u1", (len(rows),))}
        temporary = path.with_name(f"{TEMP_PREFIX}{os.getpid()}-{path.name}")
        file = TensorFileWriter(temporary, shapes, {"stamp": stamp})
        try:
            file.write("keys", 0, np.frombuffer(keys, np.uint8))
            loader = EvaluationLoader(self._dataset, self._data, BATCH)
            for batch in loader:
                found = (
                    extract_encoder_features(self.frozen.tokenizer, batch.images.to(self.device)).half().cpu().numpy()
                )
                for key, feature in zip(batch.keys, found, strict=True):
                    file.write("features", rows[key], feature[None])
                    file.write("read", rows[key], np.ones(1, np.uint8))
            file.flush()
        finally:
            file.close()
        temporary.replace(path)
        return tuple(loader.faults)


class ExampleBatches:
    """An endless iterator of one process's batches; `consumed` examples of all processes were handed out before."""

    def __init__(
        self, seen: FeatureCache, examples: Sequence[tuple[int, Any]], task: UnderstandingTask, batch: int, seed: int,
        consumed: int = 0, rank: int = 0, world: int = 1,
    ) -> None:  # fmt: skip
        self.seen, self.examples, self.task, self.batch = seen, examples, task, batch
        self.consumed = consumed
        self.faults: Sequence[Fault] = seen.faults
        self._rank, self._world = rank, world
        self._orders = EpochPermutations(len(examples), seed)

    def __iter__(self) -> "ExampleBatches":
        return self

    def __next__(self) -> UnderstandingBatch:
        start = self.consumed + self._rank * self.batch
        chosen = [self.examples[self._place(place)] for place in range(start, start + self.batch)]
        self.consumed += self.batch * self._world
        places = [place for place, _ in chosen]
        keys = tuple(self.seen.keys[place] for place in places)
        return UnderstandingBatch(self.seen.rows(places), keys, self.task.collate([example for _, example in chosen]))

    def _place(self, place: int) -> int:
        epoch, start = divmod(place, len(self.examples))
        return int(self._orders[epoch][start])

    def close(self) -> None:
        """Nothing reads ahead."""


class UnderstandingData:
    """The examples of the training split, and what is seen of its images."""

    text: TextSource | None = None
    segmentation_tokenizer: Tokenizer | None = None
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
        fitted = kind.resolve_config(recipe.task, frozen.layout, [example for _, example in self.examples])
        self.config = TaskConfig(task=fitted, layout=frozen.layout, feature_width=frozen.feature_width)
        self._seen: FeatureCache | None = None
        self._task: Any = None

    def metadata(self) -> dict[str, Any]:
        """How much there is to learn from."""
        return {"examples": len(self.examples)}

    def initialize(self, task: Task) -> None:
        """Words, answers and pretrained weights."""
        self._task = task
        self._task.prepare([example for _, example in self.examples])

    def seen(self) -> FeatureCache:
        """What is seen of the training split; made once, and kept in the run folder."""
        if self._seen is None:
            data = self.recipe.data
            config = DataConfig(size=self.frozen.size, workers=data.workers, fault_budget=data.fault_budget)
            self._seen = FeatureCache(self.config.task.image, self.frozen, self.dataset, config, self.run, self.device)
        return self._seen

    def open_batches(self, consumed: int, batch: int, rank: int, world: int) -> ExampleBatches:
        """Batches of examples whose image can be read."""
        seen = self.seen()
        self._task.adapter.fit(seen.rows(range(min(len(seen.keys), FITTED))))  # of a resumed run, to the same numbers
        places = {key: place for place, key in enumerate(seen.keys)}
        usable = [(places[key], example) for key, example in self.examples if key in places]
        if not usable:
            raise DataError(f"No image of {self.dataset.folder} that can be read has an example.")
        return ExampleBatches(seen, usable, self._task, batch, self.recipe.train.seed, consumed, rank, world)

    def render_sample(self, task: Task) -> ndarray | None:
        """Nothing to see."""
        return None

    def named_tensors(self, batch: UnderstandingBatch) -> dict[str, Tensor]:
        """Rows and what is asked."""
        values = {field.name: getattr(batch.examples, field.name) for field in fields(batch.examples)}
        return {
            "features": batch.features,
            **{name: value for name, value in values.items() if isinstance(value, Tensor)},
        }
