"""The training of a task on a frozen tokenizer: what the loop is given, whatever the task learns from."""

from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.devices import default_device
from tavq.data.folder import FolderDataset
from tavq.data.palette import Colours
from tavq.interfaces import Losses, TextSource, sum_losses, to_device
from tavq.nets.convnet import count_parameters
from tavq.ops import collective
from tavq.recipes.identity import METHOD_HASH, TOKENIZER_METHOD_HASH, stored_hash
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import Task, tasks
from tavq.tasks.model_folder import TaskConfig, save_task
from tavq.tasks.understanding import UnderstandingTask
from tavq.tokenizer import Tokenizer
from tavq.training import model_card, provenance
from tavq.training.loop import Batches, Loop, Reporter, batch_per_process, step_seed
from tavq.training.task.generation_data import GenerationData
from tavq.training.task.tokens import FrozenTokenizer
from tavq.training.task.understanding_data import UnderstandingData


@runtime_checkable
class TaskData(Protocol):
    """What a kind of task learns from."""

    config: TaskConfig
    text: TextSource | None
    colours: Colours | None
    """Of the classes of segmentation maps, where they are not the palette's."""

    @property
    def segmentation_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of segmentation maps, where there is one."""
        ...

    def metadata(self) -> dict[str, Any]:
        """What a run's provenance says of it beside the data set and the tokenizer."""
        ...

    def initialize(self, task: Task) -> None:
        """Fills in a new network what comes from the material."""
        ...

    def open_batches(self, consumed: int, batch: int, rank: int, world: int) -> Batches:
        """The batches of one process, after so many samples of all."""
        ...

    def render_sample(self, task: Task) -> ndarray | None:
        """An image of what the network can do, uint8 [y x 3]; None where there is nothing to see."""
        ...

    def named_tensors(self, batch: Any) -> dict[str, Tensor]:
        """A batch by names."""
        ...


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
        self.recipe, self.dataset = recipe, dataset
        self.batch = batch_per_process(recipe.train)
        self.device = device or default_device()
        self.frozen = FrozenTokenizer.load(tokenizer, recipe.data.size, self.device)
        kind = tasks[recipe.task.name]
        self.data: TaskData
        if issubclass(kind, UnderstandingTask):
            self.data = UnderstandingData(recipe, self.frozen, dataset, run, self.device)
        else:
            self.data = GenerationData(recipe, self.frozen, dataset, run, text, self.device, segmentation_tokenizer)
        self._build()
        self.loop = Loop(self, run, reporter)

    def _build(self) -> None:
        train = self.recipe.train
        torch.manual_seed(step_seed(train.seed, -1))
        self.model = self.data.config.make()
        self.data.initialize(self.model)
        self.model.to(self.device)
        self.modules = {"model": self.model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(_groups(self.model, train.weight_decay), train.learning_rate, train.betas)
        }

    def run(self, resume: bool = False) -> Path:
        """Trains to the last step and returns the model folder; see `Loop.run`."""
        return self.loop.run(resume)

    # --- what the loop asks -------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """Versions, data, text, tokenizers and the numbers of parameters."""
        return {
            **provenance.describe(self.dataset, self.data.text, self.device),
            "tokenizer": self.frozen.sha256,
            "tokenizer_name": self.frozen.name,
            "tokenizer_seed": self.frozen.stored.get("seed"),
            TOKENIZER_METHOD_HASH: stored_hash(self.frozen.stored, METHOD_HASH),
            **self.data.metadata(),
            "size": self.frozen.size,
            "parameters": {"task": count_parameters(self.model)},
        }

    def open_batches(self, consumed: int) -> Batches:
        """Batches of the task's material."""
        return self.data.open_batches(consumed, self.batch, collective.rank(), collective.world_size())

    def set_train_mode(self) -> None:
        """Training mode."""
        self.model.train()

    def backward(self, batch: Any, step: int) -> Losses:
        """The gradients of the task's objective."""
        enabled = self.recipe.train.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            losses = self.model.loss(to_device(batch, self.device))
        sum_losses(losses).backward()
        return losses

    def should_step(self, name: str, step: int) -> bool:
        """Always."""
        return True

    def pop_metrics(self) -> dict[str, Any]:
        """Nothing beside the losses."""
        return {}

    def find_alarm(self, step: int, line: dict[str, Any]) -> tuple[str, dict[str, Any]] | None:
        """Nothing."""
        return None

    def render_sample(self) -> ndarray | None:
        """What the task can do now, where that is an image."""
        return self.data.render_sample(self.model)

    def save_model(self, folder: Path, metadata: dict[str, Any]) -> None:
        """The model folder, with the tokenizers in it."""
        data, tokenizer = self.data, self.frozen.tokenizer
        text = model_card.write_task(self.recipe, data.config.layout, metadata, metadata["step"])
        save_task(folder, data.config, self.model, tokenizer, data.segmentation_tokenizer, text, metadata, data.colours)

    def extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        """None."""
        return {}

    def named_tensors(self, batch: Any) -> dict[str, Tensor]:
        """A batch by names."""
        return self.data.named_tensors(batch)


def _groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Matrices lose weight, vectors (biases, norms) and tables of embeddings do not."""
    tables = {id(m.weight) for m in model.modules() if isinstance(m, torch.nn.Embedding)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [p for p in parameters if p.ndim >= 2 and id(p) not in tables]
    others = [p for p in parameters if p.ndim < 2 or id(p) in tables]
    return [{"params": matrices, "weight_decay": decay}, {"params": others, "weight_decay": 0.0}]
