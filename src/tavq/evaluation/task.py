"""The metrics of a task on a split: of generated images, or of answers about images."""

from collections.abc import Callable, Sequence

from tavq.core.errors import UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.records import Fault
from tavq.evaluation.generation import evaluate_generation
from tavq.evaluation.understanding import evaluate_understanding
from tavq.interfaces import TextSource
from tavq.metrics.record import Evaluation
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
    config: DataConfig | None = None,
    faults: list[Fault] | None = None,
) -> Evaluation:
    """All metrics of a task on a split; see `evaluation.generation` and `evaluation.understanding`.

    Args:
        model: the task.
        dataset: the split; training images of the same data set are read for the baselines.
        networks: feature networks of the distances, on the task's device.
        sampling: how tokens are sampled.
        text: encoded text, where the task reads it.
        limit: measure at most this number of images, and copy from as many training images.
        progress: called with the number of images done after each batch.
        aligned: the tokenizer in whose space generated images look for their texts (`text_retrieval.open_aligned`).
        reader: the model that answers questions about generated images (`text_questions.open_reader`).
        config: how images are read; by default at the size of the task.
        faults: receives what of the split could not be used.
    """
    config = config or DataConfig(size=model.size)
    faults = [] if faults is None else faults
    if limit is not None and limit < 1:
        raise UsageError(f"--limit {limit} must be 1 or more.")
    if isinstance(model.task, UnderstandingTask):
        return evaluate_understanding(model, dataset, limit, progress, config, faults)
    sampling = sampling or Sampling()
    return evaluate_generation(
        model, dataset, networks, sampling, text, limit, progress, aligned, reader, config, faults
    )
