"""How well a task does on images that it was not trained on; what is measured follows from what it does."""

from collections.abc import Callable, Sequence
from typing import Any

from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.evaluation.generation import evaluate_drawing
from tavq.evaluation.understanding import evaluate_reading
from tavq.interfaces import TextSource
from tavq.nets.features.extractors import FeatureNetwork
from tavq.tasks.base import Sampling
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.understanding import UnderstandingTask
from tavq.tokenizer import Tokenizer


def evaluate_task(
    model: TaskModel,
    dataset: FolderDataset,
    networks: Sequence[FeatureNetwork] = (),
    sampling: Sampling | None = None,
    text: TextSource | None = None,
    limit: int | None = None,
    progress: Callable[[int], None] | None = None,
    aligned: Tokenizer | None = None,
    reader: TaskModel | None = None,
) -> dict[str, Any]:
    """All measurements of a task on a split, ready for JSON; see `measuring.drawn` and `measuring.read`.

    Args:
        model: the task.
        dataset: the split; training images of the same data set are read for the baselines.
        networks: feature networks of the distances, on the task's device.
        sampling: how tokens are drawn.
        text: encoded text, where the task reads it.
        limit: measure so many images only, and copy from as many training images.
        progress: called with the number of images done after each batch.
        aligned: the tokenizer in whose space drawn images look for their texts (`measuring.faithful.open_aligned`).
        reader: the model that is asked questions about drawn images (`measuring.answered.open_reader`).
    """
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} must be 1 or more.")
    if isinstance(model.task, UnderstandingTask):
        return evaluate_reading(model, dataset, limit, progress)
    return evaluate_drawing(model, dataset, networks, sampling or Sampling(), text, limit, progress, aligned, reader)
