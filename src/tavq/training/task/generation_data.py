"""What tasks that draw learn from: the tokens of every image, with its text or the tokens of its segmentation map."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig
from tavq.data.palette import load_colours
from tavq.data.transforms import to_uint8
from tavq.interfaces import TextSource, to_device
from tavq.model_folder import kind_of_images
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import GenerationBatch, Prompt, Sampling, tasks
from tavq.tasks.model_folder import TaskConfig
from tavq.tokenizer import Tokenizer
from tavq.training.run_folder import text_tensors
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
    """The training split as tokens; made once, and kept in the run folder."""

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
            raise UsageError(f"The task {recipe.task.name!r} needs encoded text; make it with: tavq text DIR")
        self.text = text if "text" in needs else None
        self.maps = self._map_tokenizer(segmentation_tokenizer) if "segmentation" in needs else None
        self.config = TaskConfig(
            task=recipe.task,
            layout=frozen.layout,
            condition_layout=self.maps.layout if self.maps is not None else None,
            text_width=self.text.width if self.text is not None else None,
        )
        self.colours = None if self.maps is None else load_colours(self.maps.stored, "The tokenizer of the maps")
        self._table: TokenTable | None = None

    def _map_tokenizer(self, name: Path | str | None) -> FrozenTokenizer:
        if name is None:
            raise UsageError(
                f"The task {self.recipe.task.name!r} with these settings needs a tokenizer of segmentation maps; train "
                "one with: tavq train RECIPE --data.images segmentation"
            )
        maps = FrozenTokenizer.load(name, self.frozen.size, self.device)
        if kind_of_images(maps.stored) == "images":
            raise UsageError(
                f"The tokenizer {name} was trained on images, not on segmentation maps; train one on these with: "
                "tavq train RECIPE --data.images segmentation"
            )
        return maps

    @property
    def segmentation_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of segmentation maps."""
        return self.maps.tokenizer if self.maps is not None else None

    def metadata(self) -> dict[str, Any]:
        """The tokenizer of segmentation maps."""
        return {"segmentation_tokenizer": self.maps.sha256 if self.maps is not None else None}

    def initialize(self, task: Any) -> None:
        """Nothing."""

    def table(self) -> TokenTable:
        """The tokens of the training split."""
        if self._table is None:
            stamp = f"{self.frozen.sha256} {self.dataset.fingerprint} {self.dataset.split} {self.frozen.size} "
            stamp += f"{self.recipe.data.flip}" + (f" {self.maps.sha256}" if self.maps is not None else "")
            stamp += f" {self.colours}" if self.colours is not None else ""
            self._table = load_or_encode(self.run / TOKENS, stamp, self._make_table)
        return self._table

    def _make_table(self) -> TokenTable:
        data = self.recipe.data
        config = DataConfig(size=self.frozen.size, workers=data.workers, fault_budget=data.fault_budget)
        table = encode_split(self.frozen, self.dataset, config, data.flip, self.device)
        if self.maps is None:
            return table
        maps = config.for_segmentation(self.colours)
        return join_tables(table, encode_split(self.maps, self.dataset, maps, data.flip, self.device))

    def open_batches(self, consumed: int, batch: int, rank: int, world: int) -> TokenBatches:
        """Batches of tokens."""
        seed = self.recipe.train.seed
        return TokenBatches(self.table(), self.dataset, batch, seed, self.text, consumed, rank, world)

    def render_sample(self, task: Any) -> ndarray | None:
        """What is drawn for the first images' conditions, under these images as their tokens show them."""
        seed, layout = self.recipe.train.seed, self.frozen.layout
        batch: GenerationBatch = to_device(next(self.open_batches(0, PREVIEWS, 0, 1)), self.device)
        kept = torch.zeros_like(batch.tokens, dtype=torch.bool)
        kept[:, : layout.length // 2] = True
        prompt = Prompt(PREVIEWS, text=batch.text, condition=batch.condition)
        if task.completion:
            prompt = replace(prompt, known_tokens=batch.tokens, keep_mask=kept)
        drawn = task.sample(prompt, Sampling(), torch.Generator(self.device).manual_seed(seed))
        rows = [self.frozen.tokenizer.decode(layout.to_indices(part)) for part in (batch.tokens, drawn)]
        page = torch.cat([torch.cat(list(row.clamp(-1, 1)), dim=2) for row in rows], dim=1)
        return to_uint8(page).permute(1, 2, 0).cpu().numpy()

    def named_tensors(self, batch: GenerationBatch) -> dict[str, Tensor]:
        """Tokens and text."""
        given = {} if batch.condition is None else {"given": batch.condition}
        return {"tokens": batch.tokens, **given, **text_tensors(batch.text)}
