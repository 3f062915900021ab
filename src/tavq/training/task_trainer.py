"""The training of a task on a frozen tokenizer: what the loop is given."""

from pathlib import Path
from typing import Any

import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.config import build
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig
from tavq.data.palette import Colours, stored_colours
from tavq.data.transforms import to_uint8
from tavq.interfaces import Losses, TextSource, to_device, total
from tavq.nets.convnet import count_parameters
from tavq.ops import collective
from tavq.tasks.base import Codes, Layout, Prompt, Sampling, tasks
from tavq.tasks.folder import TaskConfig, save_task
from tavq.tokenizer import Tokenizer, find_model, read_model_config
from tavq.training import card, provenance
from tavq.training.folder import RunFolder, text_tensors
from tavq.training.loop import Loop, Reporter, share_of_batch, step_seed
from tavq.training.settings import TaskRecipe
from tavq.training.tokens import TOKENS, TokenBatches, TokenTable, encode_split, joined, kept_tokens

PREVIEWS = 8


class TaskTrainer:
    """One run of a task's recipe into a run folder.

    Args:
        recipe: what to train.
        tokenizer: its model folder, run folder or hub name; its weights never change here.
        dataset: the training split.
        run: the run folder.
        text: encoded text by file_name, where the task needs it.
        segmentation_tokenizer: as `tokenizer`, one that was trained on segmentation maps, where the task needs it.
        reporter: who is told.
        device: by default a GPU where there is one.
    """

    def __init__(
        self,
        recipe: TaskRecipe,
        tokenizer: Path | str,
        dataset: FolderDataset,
        run: Path,
        text: TextSource | None = None,
        reporter: Reporter | None = None,
        device: torch.device | None = None,
        segmentation_tokenizer: Path | str | None = None,
    ) -> None:
        self.recipe, self.dataset, self.folder = recipe, dataset, RunFolder(run)
        self.batch = share_of_batch(recipe.train)
        self.device = device or default_device()
        kind = tasks[recipe.task.name]
        needs = kind.needs(recipe.task)
        self.text = text if "text" in needs else None
        if "text" in needs and text is None:
            raise UsageError(f"The task {recipe.task.name!r} needs encoded text; make it with: tavq text DIR")
        self.tokenizer, stored = self._frozen(tokenizer)
        self.sha256 = str(stored.get("sha256"))
        self.size = recipe.data.size or int(stored.get("size") or 256)
        self.layout = _layout(self.tokenizer, self.size)
        self.given: Tokenizer | None = None
        self.given_sha256: str | None = None
        self.colours: Colours | None = None
        if "segmentation" in needs:
            self._take_segmentation(segmentation_tokenizer)
        self._build()
        self.loop = Loop(self, run, reporter)

    def _frozen(self, name: Path | str) -> tuple[Tokenizer, dict[str, Any]]:
        """A tokenizer for tokens alone, and what its folder says of it."""
        stored = read_model_config(find_model(name))
        return Tokenizer.from_pretrained(name).without_alignment().to(self.device), stored

    def _take_segmentation(self, name: Path | str | None) -> None:
        if name is None:
            raise UsageError(
                f"The task {self.recipe.task.name!r} with these settings needs a tokenizer of segmentation maps; train "
                "one with: tavq train RECIPE --data.pictures segmentation"
            )
        self.given, stored = self._frozen(name)
        if stored.get("kind_of_pictures") == "pictures":
            raise UsageError(
                f"The tokenizer {name} was trained on pictures, not on segmentation maps; train one on these with: "
                "tavq train RECIPE --data.pictures segmentation"
            )
        self.given_sha256 = str(stored.get("sha256"))
        self.colours = stored_colours(stored, f"The tokenizer {name}")

    def _build(self) -> None:
        train = self.recipe.train
        torch.manual_seed(step_seed(train.seed, -1))
        width = self.text.width if self.text is not None else None
        given = _layout(self.given, self.size) if self.given is not None else None
        self.config = TaskConfig(task=self.recipe.task, layout=self.layout, given=given, text_width=width)
        self.model = self.config.make().to(self.device)
        self.modules = {"model": self.model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(_groups(self.model, train.weight_decay), train.learning_rate, train.betas)
        }
        self._table: TokenTable | None = None

    def run(self, resume: bool = False) -> Path:
        """Trains to the last step and returns the model folder; see `Loop.run`."""
        return self.loop.run(resume)

    # --- what the loop asks -------------------------------------------------------------------------------------

    def facts(self) -> dict[str, Any]:
        """Versions, data, text, tokenizer and the numbers of parameters."""
        return {
            **provenance.describe(self.dataset, self.text, self.device),
            "tokenizer": self.sha256,
            "segmentation_tokenizer": self.given_sha256,
            "size": self.size,
            "parameters": {"task": count_parameters(self.model)},
        }

    def table(self) -> TokenTable:
        """The tokens of the training split; made once, and kept in the run folder."""
        if self._table is None:
            data = self.recipe.data
            stamp = f"{self.sha256} {self.dataset.fingerprint} {self.dataset.split} {self.size} {data.flip}"
            stamp += f" {self.given_sha256}" if self.given is not None else ""
            stamp += f" {self.colours}" if self.colours is not None else ""
            self._table = kept_tokens(self.folder.path / TOKENS, stamp, self._make_table)
        return self._table

    def _make_table(self) -> TokenTable:
        data = self.recipe.data
        config = DataConfig(size=self.size, workers=data.workers, fault_budget=data.fault_budget)
        table = encode_split(self.tokenizer, self.layout, self.dataset, config, data.flip, self.device)
        if self.given is None or self.config.given is None:
            return table
        maps = config.of_maps(self.colours)
        return joined(table, encode_split(self.given, self.config.given, self.dataset, maps, data.flip, self.device))

    def open(self, consumed: int) -> TokenBatches:
        """Batches of tokens."""
        train = self.recipe.train
        where = collective.rank(), collective.processes()
        return TokenBatches(self.table(), self.dataset, self.batch, train.seed, self.text, consumed, *where)

    def train_mode(self) -> None:
        """Training mode."""
        self.model.train()

    def backward(self, batch: Codes, step: int) -> Losses:
        """The gradients of the task's objective."""
        codes = Codes(
            batch.tokens.to(self.device),
            batch.keys,
            to_device(batch.text, self.device),
            None if batch.given is None else batch.given.to(self.device),
        )
        enabled = self.recipe.train.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            losses = self.model.loss(codes)
        total(losses).backward()
        return losses

    def moves(self, name: str, step: int) -> bool:
        """Always."""
        return True

    def measured(self) -> dict[str, Any]:
        """Nothing beside the losses."""
        return {}

    def watch(self, step: int, line: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Nothing."""
        return None

    def sample(self) -> ndarray | None:
        """What is drawn for the first pictures' conditions, under these pictures as their tokens show them."""
        batch = next(TokenBatches(self.table(), self.dataset, PREVIEWS, self.recipe.train.seed, self.text))
        tokens = batch.tokens.to(self.device)
        kept = torch.zeros_like(tokens, dtype=torch.bool)
        kept[:, : self.layout.length // 2] = True
        prompt = Prompt(
            PREVIEWS,
            tokens if self.model.completes else None,
            kept if self.model.completes else None,
            to_device(batch.text, self.device),
            None if batch.given is None else batch.given.to(self.device),
        )
        generator = torch.Generator(self.device).manual_seed(self.recipe.train.seed)
        drawn = self.model.draw(prompt, Sampling(), generator)
        rows = [self.tokenizer.decode(self.layout.indices(part)) for part in (tokens, drawn)]
        joined = torch.cat([torch.cat(list(row.clamp(-1, 1)), dim=2) for row in rows], dim=1)
        return to_uint8(joined).permute(1, 2, 0).cpu().numpy()

    def save(self, folder: Path, facts: dict[str, Any]) -> None:
        """The model folder, with the tokenizer in it."""
        text = card.write_task(self.recipe, self.layout, facts, facts["step"])
        save_task(folder, self.config, self.model, self.tokenizer, self.given, text, facts, self.colours)

    def extra_state(self) -> dict[str, dict[str, Tensor]]:
        """None."""
        return {}

    def tensors_of(self, batch: Codes) -> dict[str, Tensor]:
        """Tokens and text."""
        given = {} if batch.given is None else {"given": batch.given}
        return {"tokens": batch.tokens, **given, **text_tensors(batch.text)}


def _layout(tokenizer: Tokenizer, size: int) -> Layout:
    side = size // tokenizer.factor
    return build(Layout, {"height": side, "width": side, "sizes": tokenizer.codebook.sizes}, f"Pictures of {size} px")


def _groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices lose weight, vectors (biases, norms) and tables of embeddings do not."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2 and id(p) not in tables]
    others = [p for p in parameters if p.ndim < 2 or id(p) in tables]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
