"""How well a reading task reads pictures that it was not trained on."""

from collections.abc import Iterator
from typing import Any

import torch

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.loader import DataConfig, EvaluationLoader
from tavq.tasks.folder import TaskModel
from tavq.tasks.reading import Looked, Progress, ReadingTask, examples_in, examples_of, look

BATCH = 32


def evaluate_reading(
    model: TaskModel,
    dataset: FolderDataset,
    training: FolderDataset | None,
    limit: int | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """All figures of a reading task on a split, with `intervals`, beside those of answers without looking.

    Args:
        model: a trained reading task.
        dataset: the split; its pictures are read as their centre squares.
        training: the training split, from which answers without looking are taken; None leaves them out.
        limit: only the first pictures.
        progress: told the examples so far.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} must be 1 or more.")
    task: ReadingTask = model.task
    known = examples_of(type(task), model.config.task, training) if training is not None else []
    with torch.no_grad():
        figures = task.measure(_looked(model, dataset, limit), known, progress)
    return {
        **{name: scored["value"] for name, scored in figures.items()},
        "intervals": {name: scored["interval"] for name, scored in figures.items()},
    }


def _looked(model: TaskModel, dataset: FolderDataset, limit: int | None) -> Iterator[Looked]:
    """The examples of the split in batches of pictures."""
    records = {record.file_name: record for record in dataset}
    device = next(model.task.parameters()).device
    loader = EvaluationLoader(dataset, DataConfig(size=int(model.facts["size"])), BATCH, None, limit)
    task, config = model.task, model.config
    for batch in loader:
        found = [examples_in(type(task), config.task, dataset, records[key]) for key in batch.keys]
        asked = [(row, example) for row, examples in enumerate(found) for example in examples]
        if asked:
            rows = look(model.tokenizer, config.layout, config.task.picture, batch.images.to(device))
            places = [row for row, _ in asked]
            yield rows[places], [batch.keys[place] for place in places], [example for _, example in asked]
