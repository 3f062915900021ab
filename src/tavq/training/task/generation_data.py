"""The training data of generation tasks: tokens of images, with their text or the tokens of their maps."""

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.devices import to_device
from tavq.core.errors import UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.palette import load_colours
from tavq.data.transforms import to_uint8
from tavq.interfaces import TextSource
from tavq.model_folder import kind_of_images
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import GenerationBatch, Prompt, Sampling, tasks
from tavq.tasks.model_folder import TaskConfig
from tavq.tokenizer import Tokenizer
from tavq.training.run_folder import text_tensors
from tavq.training.task.token_cache import find_cached_tokens
from tavq.training.task.tokens import (
    TOKENS,
    FrozenTokenizer,
    TokenBatches,
    TokenTable,
    encode_split,
    join_tables,
    load_or_encode,
)

PREVIEWS = 8


class GenerationData:
    """The training split as tokens, encoded once and kept in the run folder.

    Args:
        recipe: the task's recipe.
        frozen: the tokenizer.
        dataset: the training split.
        run: the run folder.
        text: encoded text by file_name, if the task needs it.
        device: where tokens are encoded.
        segmentation_tokenizer: model folder, run folder or hub name of a tokenizer of maps, if the task needs it.
    """

    def __init__(
        self,
        recipe: TaskRecipe,
        frozen: FrozenTokenizer,
        dataset: FolderDataset,
        run: Path,
        text: TextSource | None,
        device: torch.device,
        segmentation_tokenizer: Path | str | None,
    ) -> None:
        self.recipe, self.frozen, self.dataset, self.run, self.device = recipe, frozen, dataset, run, device
        needs = tasks[recipe.task.name].required_conditions(recipe.task)
        if "text" in needs and text is None:
            raise UsageError(f"The task {recipe.task.name!r} needs encoded text; encode it with: tavq text DIR")
        self.text = text if "text" in needs else None
        text_width = self.text.width if self.text is not None else None
        self.maps, map_layout, self.colours = None, None, None
        if "segmentation" in needs:
            self.maps = self._load_map_tokenizer(segmentation_tokenizer)
            map_layout = self.maps.layout
            self.colours = load_colours(self.maps.stored, "The tokenizer of the maps")
        self.config = TaskConfig(
            task=recipe.task, layout=frozen.layout, condition_layout=map_layout, text_width=text_width
        )
        self._table: TokenTable | None = None
        self.say: Callable[[str], None] = lambda text: None

    def _load_map_tokenizer(self, name: Path | str | None) -> FrozenTokenizer:
        if name is None:
            raise UsageError(
                f"The task {self.recipe.task.name!r} with these settings needs a tokenizer of segmentation maps; train "
                "one with: tavq train RECIPE --data.images segmentation"
            )
        maps = FrozenTokenizer.load(name, self.frozen.size, self.device)
        if kind_of_images(maps.stored) == "images":
            raise UsageError(
                f"The tokenizer {name} was trained on images, not on segmentation maps; train one on maps with: "
                "tavq train RECIPE --data.images segmentation"
            )
        return maps

    @property
    def condition_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of segmentation maps."""
        return self.maps.tokenizer if self.maps is not None else None

    def metadata(self) -> dict[str, Any]:
        """The hash of the tokenizer of segmentation maps."""
        return {"segmentation_tokenizer": self.maps.sha256 if self.maps is not None else None}

    def initialize(self, task: Any) -> None:
        """Do nothing: the network of a generation task takes nothing from its data."""

    def table(self) -> TokenTable:
        """The tokens of the training split."""
        if self._table is None:
            stamp = f"{self.frozen.sha256} {self.dataset.fingerprint} {self.dataset.split} {self.frozen.size} "
            stamp += f"{self.recipe.data.flip}" + (f" {self.maps.sha256}" if self.maps is not None else "")
            stamp += f" {self.colours}" if self.colours is not None else ""
            shared = partial(find_cached_tokens, stamp, self.dataset, self.device)
            self._table = load_or_encode(self.run / TOKENS, stamp, self._encode, shared, self.say)
        return self._table

    def _encode(self) -> TokenTable:
        data = self.recipe.data
        config = DataConfig(size=self.frozen.size, workers=data.workers, fault_budget=data.fault_budget)
        images = encode_split(self.frozen, self.dataset, config, data.flip, self.device)
        if self.maps is None:
            return images
        maps = encode_split(self.maps, self.dataset, config.for_segmentation(self.colours), data.flip, self.device)
        return join_tables(images, maps)

    def open_batches(self, consumed: int, batch: int, rank: int, world: int) -> TokenBatches:
        """Batches of tokens."""
        return self._open(batch, consumed, rank, world, self.recipe.data.workers)

    def _open(self, batch: int, consumed: int = 0, rank: int = 0, world: int = 1, workers: int = 0) -> TokenBatches:
        seed, text = self.recipe.train.seed, self.text
        return TokenBatches(self.table(), self.dataset, batch, seed, text, consumed, rank, world, workers, self.device)

    def render_sample(self, task: Any) -> ndarray | None:
        """Images generated for the conditions of the first training images, below the reconstructions of these."""
        seed, layout = self.recipe.train.seed, self.frozen.layout
        batch: GenerationBatch = to_device(next(self._open(PREVIEWS)), self.device)
        prompt = Prompt(PREVIEWS, text=batch.text, condition=batch.condition)
        if task.completion:
            keep = torch.zeros_like(batch.tokens, dtype=torch.bool)
            keep[:, : layout.length // 2] = True
            prompt = replace(prompt, known_tokens=batch.tokens, keep_mask=keep)
        generated = task.sample(prompt, Sampling(), torch.Generator(self.device).manual_seed(seed))
        images = [self.frozen.tokenizer.decode(layout.to_indices(tokens)) for tokens in (batch.tokens, generated)]
        rows = [torch.cat(list(row.clamp(-1, 1)), dim=2) for row in images]
        return to_uint8(torch.cat(rows, dim=1)).permute(1, 2, 0).cpu().numpy()

    def named_tensors(self, batch: GenerationBatch) -> dict[str, Tensor]:
        """Tokens, condition and text."""
        condition = {} if batch.condition is None else {"condition": batch.condition}
        return {"tokens": batch.tokens, **condition, **text_tensors(batch.text)}
