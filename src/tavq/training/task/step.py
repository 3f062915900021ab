"""The gradients of one training step of a task, in one pass or accumulated over parts of the batch."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tavq.interfaces import Loss, Losses, sum_losses
from tavq.ops.collective import all_reduce_sum, rank, world_size
from tavq.ops.shares import share_weight
from tavq.recipes.schema import TaskTrainConfig
from tavq.tasks.base import Task
from tavq.training.batches import split_evenly, take_part
from tavq.training.replicas import Replica
from tavq.training.sharding import own_part


class TaskStep:
    """Runs the backward passes of a task; in every process the gradients are those of the whole batch.

    A loss is a mean over samples, or over as many elements as it says. Where parts of a batch have different numbers of
    them, each part is weighted by its number, so that the result does not depend on how the batch is divided.

    Args:
        task: the network, on its device.
        config: its settings of training.
        device: of the network.
    """

    def __init__(self, task: Task, config: TaskTrainConfig, device: torch.device) -> None:
        self.task, self.config, self.device = task, config, device
        self.replica = Replica(task)
        if task.contrasts_batch:  # it divides the batch itself, into parts that do not meet one another
            task.parts = config.accumulate
        self.parts = 1 if task.contrasts_batch else config.accumulate

    def backward(self, batch: Any) -> Losses:
        """Compute the gradients of a batch on the device; return every term of the objective."""
        losses = self._accumulate(batch)
        self.task.finish_step()
        return losses

    def _accumulate(self, batch: Any) -> Losses:
        parts = split_evenly(len(batch.keys), self.parts)
        pieces = [batch] if len(parts) == 1 else [take_part(batch, part) for part in parts]
        done: list[Losses] = []
        counts: list[Tensor] = []
        for piece in pieces:
            # only the last pass reduces over processes, together with what the others have added up
            losses = self.replica(self._losses, piece) if piece is pieces[-1] else self._losses(piece)
            if self._is_plain(losses, pieces):
                sum_losses(losses).backward()
                return losses
            counts.append(_count(losses, len(piece.keys), self.device))
            (sum_losses(losses) * counts[-1]).backward()
            done.append(losses)
        return self._normalize(done, counts)

    def _losses(self, batch: Any) -> Losses:
        enabled = self.config.precision == "bf16"
        with torch.autocast(self.device.type, torch.bfloat16, enabled=enabled):
            return self.task.loss(batch)

    def _is_plain(self, losses: Losses, pieces: Sequence[Any]) -> bool:
        """Whether all parts of the batch count equally, so that the mean over processes is the batch's."""
        equal = share_weight(rank()) == 1 and all(loss.elements is None for loss in losses.values())
        return len(pieces) == 1 and (world_size() == 1 or equal)

    def _normalize(self, done: Sequence[Losses], counts: Sequence[Tensor]) -> Losses:
        """Divide gradients of sums, averaged over processes, by the mean number of elements; return the mean losses."""
        keys = list(done[0])
        numbers = torch.stack(list(counts))
        values = [torch.stack([losses[key].value.detach().float() for losses in done]) for key in keys]
        totals = all_reduce_sum(torch.stack([numbers.sum(), *((each * numbers).sum() for each in values)]))
        whole = totals[0].clamp(min=1)
        for parameter in self.task.parameters():
            if parameter.grad is not None:
                own_part(parameter.grad).mul_(world_size() / whole)
        return {key: Loss(totals[1 + i] / whole, done[0][key].weight) for i, key in enumerate(keys)}


def _count(losses: Losses, samples: int, device: torch.device) -> Tensor:
    """The number of elements that the losses of a part are means of."""
    counts = [loss.elements for loss in losses.values() if loss.elements is not None]
    assert len(counts) in (0, len(losses)), "all losses of a task are means of the same elements"
    return counts[0].detach().float() if counts else torch.tensor(float(samples), device=device)
