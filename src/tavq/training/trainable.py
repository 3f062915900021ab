"""What the training loop asks of a trainer and of its batches."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from numpy import ndarray
from torch import Tensor, nn

from tavq.data.records import Fault
from tavq.interfaces import Losses
from tavq.recipes.schema import RunRecipe


@runtime_checkable
class Batches(Protocol):
    """An endless iterator over the batches of one process."""

    consumed: int
    """Samples that all processes together have used; a new iterator is opened with it to continue from there."""

    @property
    def faults(self) -> Sequence[Fault]:
        """Samples that were skipped, and why."""
        ...

    def __iter__(self) -> Iterator[Any]: ...

    def __next__(self) -> Any: ...

    def close(self) -> None:
        """Stop background workers."""
        ...


@dataclass(frozen=True)
class Alarm:
    """A problem that a log line shows."""

    message: str
    """For a person."""
    record: Mapping[str, Any]
    """For the log; `alarm` names the problem."""


@runtime_checkable
class Trainable(Protocol):
    """What the loop trains.

    All state that later steps depend on is in `modules`, their optimizers and `extra_tensors`. Every random number of
    training comes from torch's global generator, which the loop seeds from (seed, step).
    """

    @property
    def recipe(self) -> RunRecipe:
        """All settings."""
        ...

    @property
    def model(self) -> nn.Module:
        """The module that is saved; one of `modules`."""
        ...

    @property
    def modules(self) -> Mapping[str, nn.Module | None]:
        """The modules that checkpoints hold, by name."""
        ...

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        """The optimizer of each module, by the same names."""
        ...

    def metadata(self) -> dict[str, Any]:
        """Data, text, versions and parameter counts, ready for JSON."""
        ...

    def open_batches(self, consumed: int) -> Batches:
        """The training batches after the first `consumed` samples."""
        ...

    def backward(self, batch: Any, step: int) -> Losses:
        """Compute the gradients of this process's share of a batch, and return every term of the objective.

        Gradients must be those of the whole batch, the same in every process: see `training.replicas.Replica`.
        """
        ...

    def should_step(self, name: str, step: int) -> bool:
        """Whether the optimizer of this name updates its module at this step."""
        ...

    def set_train_mode(self) -> None:
        """Put the modules into training mode."""
        ...

    def pop_metrics(self) -> dict[str, Any]:
        """Metrics of the steps since the last call, to be logged with the losses."""
        ...

    def find_alarm(self, step: int, line: dict[str, Any]) -> Alarm | None:
        """The problem that a log line shows, if any."""
        ...

    def render_sample(self) -> ndarray | None:
        """An image that shows what the model can do now, uint8 [y x 3]; None if the model makes no images."""
        ...

    def save_model(self, folder: Path, metadata: dict[str, Any]) -> None:
        """Write the model folder."""
        ...

    def extra_tensors(self) -> dict[str, dict[str, Tensor]]:
        """Further tensors of a checkpoint, by group and name; resuming copies into them in place."""
        ...

    def named_tensors(self, batch: Any) -> dict[str, Tensor]:
        """The tensors of a batch by name, for the record of a failed step."""
        ...
