"""Measuring a tokenizer on a split: for `evaluate`, and before the first step of a run that starts from a model."""

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tavq.api.calls import TEXTS, Progress, count_up_to, inform, select_faults, warn, warn_of_faults
from tavq.api.images import image_config
from tavq.core import files
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.evaluation.protocol import make_protocol
from tavq.evaluation.tokenizer import evaluate as measure
from tavq.interfaces import Batch
from tavq.metrics.record import Evaluation, evaluation_as_json
from tavq.model_folder import find_model, read_model_config
from tavq.nets.features.extractors import FeatureNetwork
from tavq.nets.features.loading import load_feature_network
from tavq.ops.collective import rank, world_size
from tavq.text.store import TextStore
from tavq.tokenizer import Tokenizer
from tavq.training.run_folder import START
from tavq.training.tokenizer.trainer import Trainer

BATCH = 32
"""Images that are encoded or decoded at once."""


def measure_split(
    tokenizer: Tokenizer,
    folder: Path,
    dataset: FolderDataset,
    config: DataConfig,
    store: TextStore | None,
    networks: Sequence[FeatureNetwork],
    limit: int | None = None,
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a loaded tokenizer as `evaluate` does, and write nothing.

    Processes each measure a part, and all return the whole result.

    Args:
        tokenizer: in evaluation mode, on the default device.
        folder: the model folder that it comes from, which the protocol names.
        dataset: the split.
        config: how its images are loaded.
        store: their text; None measures nothing about text.
        networks: feature networks, on the tokenizer's device.
        limit: measure only the first images.
        progress: called with (images, total, note) after each batch.
    """
    loader = EvaluationLoader(dataset, config, BATCH, store, limit, rank(), world_size())
    total = min(len(dataset), limit or len(dataset))
    count = count_up_to(total, progress if rank() == 0 else None)
    report = None if count is None else lambda done: count(min(done * world_size(), total))
    measured = measure(tokenizer, _batches(loader, tokenizer, store), networks, report)
    loader.join_faults()
    faults = select_faults(loader.faults, *TEXTS)
    protocol = make_protocol(measured.details["protocol"], folder, dataset, store, tokenizer, limit, loader.batch)
    about = {"data": dataset.folder.name, "data_sha256": dataset.fingerprint, "split": dataset.split}
    details: dict[str, Any] = {**about, **measured.details, "faults": len(faults), "protocol": protocol}
    warn_of_faults(faults)
    return replace(measured, details=details)


def measure_start(trainer: Trainer, store: TextStore | None) -> None:
    """Measure what a run starts from, on the images of `tavq evaluate`, and keep the result in the run folder.

    The metrics of images and codes are those of the model that `train.start_from` names, where both are measured on the
    same number of images; those of an aligner that the model lacks show chance.

    Args:
        trainer: a trainer before its first step.
        store: the text that it trains on; if it reads none, DATA/text is measured where it exists.
    """
    config = trainer.recipe.train
    assert config.start_from is not None
    dataset = _held_out(trainer.dataset.folder)
    if dataset is None:
        warn("The data has neither a test nor a validation split, so nothing is measured before the first step.")
        return
    folder, tokenizer = find_model(config.start_from), trainer.copy_tokenizer()
    text = text_to_measure(tokenizer, folder, dataset, None if store is None else store.folder)
    images = image_config(
        trainer.recipe.data.size, trainer.recipe.data.fault_budget, trainer.recipe.data.workers or None
    )
    networks = [open_network("scenes").to(default_device())]
    measured = measure_split(tokenizer, folder, dataset, images, text, networks, config.evaluate_first)
    result = replace(measured, details={"model": config.start_from, **measured.details})
    if rank() == 0:
        files.write_json(trainer.folder.path / START, evaluation_as_json(result))
    known = [
        metric for metric in result.metrics if metric.main and metric.baseline is None and metric.value is not None
    ]
    listed = ", ".join(f"{metric.title} {metric.text(metric.value)}" for metric in known)
    inform(f"Before step 1, on {result.details['images']:,} images of the split {dataset.split!r}: {listed}.")


def _held_out(folder: Path) -> FolderDataset | None:
    for split in ("test", "val"):
        try:
            return FolderDataset(folder, split)
        except UsageError:
            continue
    return None


def text_to_measure(tokenizer: Tokenizer, folder: Path, dataset: FolderDataset, text: Path | None) -> TextStore | None:
    """Open the text of a split; log where there is none, because metrics of images need none."""
    store = TextStore.find(dataset.home, text)
    remedy = f"build one with: tavq text {dataset.folder}"
    if store is not None and not store.contains_any(record.file_name for record in dataset):
        warn(
            f"The text store {store.folder} contains none of the {len(dataset):,} images of the split "
            f"{dataset.split!r}, so nothing about text is measured; {remedy}"
        )
        return None
    if store is None and tokenizer.aligner is not None:
        warn(f"{dataset.folder} has no text store, so the alignment is not measured; {remedy}")
    if store is not None and tokenizer.aligner is not None:
        store.check_encoder(read_model_config(folder).get("text"))
    return store


def _batches(loader: EvaluationLoader, tokenizer: Tokenizer, store: TextStore | None) -> Iterable[Batch]:
    if store is None or tokenizer.aligner is None or tokenizer.aligner.matches_vocabulary(store):
        return loader
    warn("The text store has other tokens than the one used in training; masked words are not measured.")
    return (without_token_ids(batch) for batch in loader)


def without_token_ids(batch: Batch) -> Batch:
    """Return a batch whose full texts do not say which tokens they consist of."""
    if batch.text is None or batch.text.full_text is None:
        return batch
    return replace(batch, text=replace(batch.text, full_text=replace(batch.text.full_text, ids=None)))


def open_network(name: str) -> FeatureNetwork:
    """Return a feature network by `NAME` or `NAME=WEIGHTS`."""
    kind, _, weights = name.partition("=")
    return load_feature_network(kind, Path(weights) if weights else None)
