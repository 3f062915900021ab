"""The training of a task on a frozen tokenizer: network, optimizer and data for the loop."""

from collections.abc import Callable
from itertools import groupby
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from numpy import ndarray
from torch import Tensor

from tavq.core.devices import default_device, to_device
from tavq.data.folder import FolderDataset
from tavq.data.palette import Colours
from tavq.interfaces import Losses, TextSource
from tavq.nets.convnet import count_parameters
from tavq.ops import collective
from tavq.ops.parts import is_part
from tavq.recipes.identity import METHOD_HASH, TOKENIZER_METHOD_HASH, stored_hash
from tavq.recipes.schema import TaskRecipe
from tavq.tasks.base import GenerationTask, Task, tasks
from tavq.tasks.model_folder import TaskConfig, save_task
from tavq.tasks.understanding import UnderstandingTask
from tavq.tokenizer import Tokenizer
from tavq.training import model_card, provenance
from tavq.training.batches import check_batch
from tavq.training.compilation import compile_blocks, find_obstacle
from tavq.training.loop import Loop, step_seed
from tavq.training.recomputation import recompute_blocks
from tavq.training.reporting import Reporter
from tavq.training.sharding import gather_state, is_sharded, shard
from tavq.training.start import Resume
from tavq.training.task.generation_data import GenerationData
from tavq.training.task.step import TaskStep
from tavq.training.task.tokens import FrozenTokenizer
from tavq.training.task.understanding_data import UnderstandingData
from tavq.training.trainable import Alarm, Batches


@runtime_checkable
class TaskData(Protocol):
    """The training data of one kind of task."""

    config: TaskConfig
    text: TextSource | None
    colours: Colours | None
    """Colours of the classes of segmentation maps, if they are not the palette's."""

    @property
    def condition_tokenizer(self) -> Tokenizer | None:
        """The tokenizer of segmentation maps, if the task has one."""
        ...

    say: Callable[[str], None]
    """Receives a line about where the tokens of the images come from."""

    def metadata(self) -> dict[str, Any]:
        """What to record of it in addition to the data set and the tokenizer."""
        ...

    def initialize(self, task: Task) -> None:
        """Set the parts of a new network that come from the data, such as its vocabulary."""
        ...

    def open_batches(self, consumed: int, batch: int, rank: int, world: int) -> Batches:
        """The batches of one process.

        Args:
            consumed: samples that all processes together used before.
            batch: samples of a step, which all processes share.
            rank: of this process.
            world: number of processes.
        """
        ...

    def render_sample(self, task: Task) -> ndarray | None:
        """An image that shows what the network can do, uint8 [y x 3]; None if the task makes no images."""
        ...

    def named_tensors(self, batch: Any) -> dict[str, Tensor]:
        """The tensors of a batch by name."""
        ...


class TaskTrainer:
    """Trains a task's recipe into a run folder.

    Args:
        recipe: what to train.
        tokenizer: model folder, run folder or hub name of the tokenizer; its weights do not change.
        dataset: the training split.
        run: the run folder.
        text: encoded text by file_name, if the task needs it.
        reporter: receives progress and messages.
        device: by default a GPU, if there is one.
        segmentation_tokenizer: like `tokenizer`, one that was trained on segmentation maps, if the task needs it.
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
        check_batch(recipe.train)
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
        self.data.say = self.loop.reporter.message
        if self.obstacle is not None:
            self.loop.reporter.message(self.obstacle)
        if recipe.train.sharding == "full" and not self.loop.sharded:
            self.loop.reporter.message("train.sharding full changes nothing in one process, which holds all weights.")

    def _build(self) -> None:
        train = self.recipe.train
        torch.manual_seed(step_seed(train.seed, -1))
        self.model = self.data.config.make()
        self.data.initialize(self.model)
        self.model.to(self.device)
        sharded = train.sharding == "full" and collective.world_size() > 1
        self.obstacle = find_obstacle(self.device) if train.compile else None
        if train.compile and self.obstacle is None:
            compile_blocks(self.model, sharded)
        if train.recompute:
            recompute_blocks(self.model)
        if sharded:
            shard(self.model, train.precision)
        self.stepper = TaskStep(self.model, train, self.device)
        self.modules = {"model": self.model}
        self.optimizers: dict[str, torch.optim.Optimizer] = {
            "model": torch.optim.AdamW(
                parameter_groups(self.model, train.weight_decay),
                train.learning_rate,
                train.betas,
                fused=self.device.type == "cuda",
            )
        }

    def run(self, resume: Resume = False) -> Path:
        """Train to the last step and return the model folder; see `Loop.run`."""
        return self.loop.run(resume)

    # --- Trainable ----------------------------------------------------------------------------------------------

    def metadata(self) -> dict[str, Any]:
        """Versions, data, text, tokenizers and parameter counts."""
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
        """The batches of the task's data."""
        batch = self.recipe.train.batch
        return self.data.open_batches(consumed, batch, collective.rank(), collective.world_size())

    def set_train_mode(self) -> None:
        """Put the network into training mode."""
        self.model.train()

    def backward(self, batch: Any, step: int) -> Losses:
        """Compute the gradients of the task's objective."""
        return self.stepper.backward(to_device(batch, self.device))

    def should_step(self, name: str, step: int) -> bool:
        """True: the network is updated at every step."""
        return True

    def pop_metrics(self) -> dict[str, Any]:
        """No metrics other than the losses."""
        return {}

    def find_alarm(self, step: int, line: dict[str, Any]) -> Alarm | None:
        """None: tasks have no alarms."""
        return None

    def render_sample(self) -> ndarray | None:
        """An image that shows what the task can do now; None if it makes no images."""
        if not is_sharded(self.model):
            return self.data.render_sample(self.model)
        if not isinstance(self.model, GenerationTask):
            return None
        weights = gather_state(self.model)
        return self.data.render_sample(self._unsharded(weights)) if weights else None

    def _unsharded(self, weights: dict[str, Tensor]) -> Task:
        """The network with whole weights, on the device; for a moment they are there beside the parts."""
        task = self.data.config.make_empty()
        task.load_state_dict(weights, assign=True)
        return task.to(self.device).requires_grad_(False).eval()

    def save_model(self, folder: Path, metadata: dict[str, Any]) -> None:
        """Write the model folder, with the tokenizers in it; where the network is sharded, in the first process."""
        data, tokenizer = self.data, self.frozen.tokenizer
        weights = gather_state(self.model) if is_sharded(self.model) else None
        if collective.rank():
            return
        card = model_card.task_card(self.recipe, data.config.layout, metadata, metadata["step"])
        maps = data.condition_tokenizer
        save_task(folder, data.config, self.model, tokenizer, maps, card, metadata, data.colours, weights)

    def extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        """No further state."""
        return {}

    def named_tensors(self, batch: Any) -> dict[str, Tensor]:
        """The tensors of a batch by name."""
        return self.data.named_tensors(batch)


def parameter_groups(model: torch.nn.Module, decay: float) -> list[dict[str, Any]]:
    """Parameter groups: weight decay on matrices, none on vectors (biases, norms) and embedding tables."""
    tables = {id(module.weight) for module in model.modules() if isinstance(module, torch.nn.Embedding)}
    parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
    matrices = [parameter for parameter in parameters if parameter.ndim >= 2 and id(parameter) not in tables]
    others = [parameter for parameter in parameters if parameter.ndim < 2 or id(parameter) in tables]
    # The order decides the names in checkpoints, so a group is only cut where a scalar is not sharded as the rest is.
    runs = [list(run) for _, run in groupby(others, is_part)]
    return [{"params": matrices, "weight_decay": decay}, *({"params": run, "weight_decay": 0.0} for run in runs)]
