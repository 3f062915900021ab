"""The metrics of an understanding task on a split."""

from collections.abc import Callable, Iterator

import torch

from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, load_training_split
from tavq.data.loader import EvaluationLoader
from tavq.data.records import Fault
from tavq.metrics.record import Evaluation
from tavq.ops.collective import rank, world_size
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.understanding import (
    ExampleBatch,
    ExampleBatches,
    UnderstandingTask,
    collect_examples,
    collect_record_examples,
    extract_features,
)

BATCH = 32


def evaluate_understanding(
    model: TaskModel,
    dataset: FolderDataset,
    limit: int | None,
    progress: Callable[[int], None] | None,
    images: DataConfig,
    faults: list[Fault],
) -> Evaluation:
    """All metrics of an understanding task on a split, and those of baselines that see no image.

    Several processes each take a part of the batches; all return the result of a single process.

    The baselines come from the training split of the same data set. Images are the split's centre squares, read as
    `images` says; `faults` receives what of the split could not be used.
    """
    task: UnderstandingTask = model.task
    train = load_training_split(dataset, None)
    known = collect_examples(type(task), model.config.task, train) if train is not None else []
    loader = EvaluationLoader(dataset, images, BATCH, None, limit, rank(), world_size())
    with torch.no_grad():
        metrics = task.compute_metrics(ExampleBatches(_example_batches(model, loader, progress)), known)
    loader.join_faults()
    faults += loader.faults
    return Evaluation(tuple(metrics), {})


def _example_batches(
    model: TaskModel, loader: EvaluationLoader, progress: Callable[[int], None] | None
) -> Iterator[tuple[int, ExampleBatch]]:
    """The examples of the split in batches of images, each with the place of its first image."""
    done = 0
    dataset = loader.dataset
    records = {record.file_name: record for record in dataset}
    places = {name: place for place, name in enumerate(records)}
    device = next(model.task.parameters()).device
    task, config = model.task, model.config
    for batch in loader:
        found = [collect_record_examples(type(task), config.task, dataset, records[key]) for key in batch.keys]
        rows = [row for row, some in enumerate(found) for _ in some]  # an image once for each of its examples
        if rows:
            features = extract_features(model.tokenizer, config.layout, config.task.image, batch.images.to(device))
            examples = [example for some in found for example in some]
            keys = [batch.keys[row] for row in rows]
            yield places[batch.keys[0]], (features[rows], keys, examples)
        done += len(batch.keys)
        if progress is not None:
            progress(done)
