"""What `train.recompute` and `train.accumulate` do; that they change no result is tested with the engine's contract."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tavq.data.folder import FolderDataset
from tavq.interfaces import Loss, Losses
from tavq.recipes.schema import Recipe, TaskTrainConfig
from tavq.tasks.base import GenerationBatch, Task
from tavq.training.task.step import TaskStep
from tavq.training.tokenizer.trainer import Trainer

Make = Callable[..., Recipe]


@contextmanager
def passes_of(module: nn.Module) -> Iterator[list[int]]:
    """The number of samples of each forward pass of a module."""
    seen: list[int] = []
    hook = module.register_forward_pre_hook(lambda _, inputs: seen.append(len(inputs[0])))
    yield seen
    hook.remove()


def train_one_step(
    recipe: Recipe, dataset: FolderDataset, out: Path, part: Callable[[Trainer], nn.Module]
) -> list[int]:
    trainer = Trainer(recipe, dataset, out, device=torch.device("cpu"))
    batches = trainer.open_batches(0)
    with passes_of(part(trainer)) as seen:
        trainer.loop.train_step(next(iter(batches)))
    batches.close()
    return seen


def first_convolution(trainer: Trainer) -> nn.Module:
    return next(module.conv1 for module in trainer.tokenizer.encoder.modules() if hasattr(module, "conv1"))


@pytest.mark.parametrize(("recompute", "passes"), [(False, 1), (True, 2)])
def test_blocks_run_again_where_they_are_recomputed(
    recompute: bool, passes: int, recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    settings = {"train.recompute": recompute, "train.adversarial": None}
    seen = train_one_step(recipe(settings), dataset, tmp_path, first_convolution)
    assert seen == [2] * passes


@pytest.mark.parametrize(("parts", "sizes"), [(1, {4}), (2, {2}), (4, {1})])
def test_a_tokenizer_encodes_a_batch_in_parts(
    parts: int, sizes: set[int], recipe: Make, dataset: FolderDataset, tmp_path: Path
) -> None:
    settings = {"train.accumulate": parts, "train.batch": 4, "train.adversarial": None}
    seen = train_one_step(recipe(settings), dataset, tmp_path, lambda trainer: trainer.tokenizer.encoder)
    assert set(seen) == sizes
    assert sum(seen) >= 4


class Mean(Task):
    """A task whose loss is the mean of the tokens times a weight."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))
        self.seen: list[int] = []

    def loss(self, batch: Any) -> Losses:
        self.seen.append(len(batch.keys))
        return {"mean": Loss(self.weight * batch.tokens.float().mean(), 1.0)}


@pytest.mark.parametrize(("parts", "seen"), [(1, [6]), (2, [3, 3]), (4, [1, 2, 1, 2])])
def test_a_task_takes_a_batch_in_parts(parts: int, seen: list[int]) -> None:
    task, tokens = Mean(), torch.arange(12).view(6, 2)
    step = TaskStep(task, TaskTrainConfig(steps=1, accumulate=parts), torch.device("cpu"))
    losses = step.backward(GenerationBatch(tokens, tuple("abcdef"), None))
    assert task.seen == seen
    assert task.weight.grad is not None
    assert float(task.weight.grad) == pytest.approx(float(tokens.float().mean()))
    assert float(losses["mean"].value.detach()) == pytest.approx(float(tokens.float().mean()))
