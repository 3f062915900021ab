"""Train, evaluate and use a tokenizer."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tavq import recipes
from tavq.api.calls import (
    Budget,
    PathLike,
    Progress,
    TrainingProgress,
    select_faults,
    warn,
    warn_of_faults,
    warn_of_unread_shards,
)
from tavq.api.images import image_config, read_square
from tavq.api.measuring import BATCH, measure_split, measure_start, open_network, text_to_measure
from tavq.api.stored_tokens import StoredTokens, open_tokens
from tavq.api.text import ensure_store, warn_of_changed_text
from tavq.api.tracking import require_run, track_evaluation
from tavq.core import files
from tavq.core.devices import default_device
from tavq.core.errors import DataError, FileError, UsageError
from tavq.core.inside import resolve_inside
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, is_dataset, load_held_out_split
from tavq.data.images import MAX_PIXELS, save_png
from tavq.data.loader import EvaluationLoader, limit_batch
from tavq.data.own_output import mark_decoded
from tavq.data.records import Fault
from tavq.data.transforms import to_uint8
from tavq.data.workers import explain_dead_workers
from tavq.metrics.record import Evaluation, evaluation_as_json
from tavq.model_folder import find_model, read_model_config
from tavq.ops.collective import barrier, join_processes, rank, world_size
from tavq.ops.gathering import gather_in_order, gather_rows
from tavq.recipes.schema import Recipe
from tavq.text.store import TextStore
from tavq.token_file import Tokens, png_names
from tavq.tokenizer import Tokenizer
from tavq.training.start import Resume
from tavq.training.tokenizer.trainer import Trainer
from tavq.training.tracking import tracking

# --- training ---------------------------------------------------------------------------------------------------


def train(
    recipe: str | Recipe,
    *,
    data: PathLike,
    out: PathLike,
    settings: Mapping[str, Any] | None = None,
    resume: Resume = False,
    text: PathLike | None = None,
    log_to: Iterable[str] = (),
    progress: Progress | None = None,
) -> Path:
    """Train a tokenizer.

    Args:
        recipe: the name of a shipped recipe, a YAML file, or a Recipe.
        data: a folder data set.
        out: the run folder: recipe.yaml, log.jsonl, checkpoints, samples and model.
        settings: settings to change by dotted name, such as {"train.steps": 400}; of a recipe given by name or file.
        resume: continue from the newest checkpoint; the result is bit-for-bit that of an uninterrupted run.
            "auto" starts the run if there is none yet, and returns at once if it is complete.
        text: the text store; by default DATA/text, which is built where it is missing and the recipe needs it.
        log_to: also log to `tensorboard` or `wandb`; what goes wrong there does not end the run.
        progress: called with (step, steps, note) after each step.

    Returns:
        The run folder.

    Raises:
        UsageError: there is no such recipe or data set, or a setting is unknown or not accepted.
        DataError: the data cannot be used.
        FileError: a file is damaged, or the run folder cannot be written.
        TrainingError: a loss was not finite.
    """
    chosen = recipe if isinstance(recipe, Recipe) else recipes.load(recipe, settings)
    with join_processes(), tracking(TrainingProgress(progress, _loss_and_usage), log_to) as reporter:
        _warn_of_lost_aligner(chosen)
        dataset = FolderDataset(Path(data), "train")
        warn_of_unread_shards(Path(data))
        store = _text_store(chosen, dataset, text) if chosen.model.reads_text else None
        trainer = Trainer(chosen, dataset, Path(out), store, load_held_out_split(Path(data)), reporter)
        if chosen.train.evaluate_first:
            trainer.loop.before_first_step = lambda: measure_start(trainer, store)
        trainer.run(resume)
    return Path(out)


def _warn_of_lost_aligner(recipe: Recipe) -> None:
    start = recipe.train.start_from
    if start is None or recipe.model.align is not None:
        return
    if read_model_config(find_model(start))["model"].get("align") is not None:
        warn(f"The aligner of {start} is left out: the recipe has no model.align. To keep it, use align-finetune.")


def _text_store(recipe: Recipe, dataset: FolderDataset, text: PathLike | None) -> TextStore:
    place = Path(text) if text is not None else dataset.home / "text"
    if rank() == 0 and text is None:
        ensure_store(dataset, [recipe.model])
    barrier()
    store = TextStore.open(place)
    warn_of_changed_text(store, dataset)
    return store


def _loss_and_usage(line: dict[str, Any]) -> str:
    aligned = sum(value for key, value in line.items() if key.startswith("align/"))
    loss = line.get("reconstruction/l1", line.get("reconstruction/l2", aligned))
    return f"loss {loss:.3f}, usage {line['codebook/usage']:.0%}"


# --- evaluation -------------------------------------------------------------------------------------------------


@explain_dead_workers()
def evaluate(
    model: PathLike,
    *,
    data: PathLike,
    split: str = "test",
    text: PathLike | None = None,
    features: Iterable[str] = ("scenes",),
    limit: int | None = None,
    size: int | None = None,
    fault_budget: Budget | None = None,
    workers: int | None = None,
    log_to: Iterable[str] = (),
    progress: Progress | None = None,
) -> Evaluation:
    """Measure a tokenizer's reconstructions, codebook and alignment on a split.

    The result is also written to evaluation.json of the run folder that holds the model. Processes started by torchrun
    each measure a part, and all return the whole result.

    Args:
        model: a model folder, a run folder or a hub name.
        data: a folder data set.
        split: train, val or test.
        text: the text store; by default DATA/text where it exists.
        features: feature networks of the distances: `scenes`, `squeezenet=FILE`, `inception=FILE`, `lpips=FILE`.
        limit: measure only the first images.
        size: side of the images; by default the size that the model was trained at.
        fault_budget: how many images may be unreadable before the call fails: a number (by default 100), or a share of
            them such as "5%".
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        log_to: also log the metrics to `tensorboard` or `wandb`, where the training of the run was logged.
        progress: called with (images, total, note) after each batch.

    Returns:
        The metrics with their 95 % intervals (`result["psnr"].value`), and how they were measured (`result.details`);
        `evaluation.json` holds the same.

    Raises:
        UsageError: there is no such model, data set, split or feature network.
        TrainingError: the model gives NaN or infinity.
        FileError: a file is damaged, or the text store does not fit the model.
    """
    with join_processes():
        folder = find_model(_name(model))
        require_run(model, folder.parent, log_to)
        tokenizer = Tokenizer.from_pretrained(folder).prepare(default_device())
        dataset = FolderDataset(Path(data), split)
        store = text_to_measure(tokenizer, folder, dataset, None if text is None else Path(text))
        config = image_settings(folder, size, fault_budget, workers)
        networks = [open_network(name).to(default_device()) for name in features]
        measured = measure_split(tokenizer, folder, dataset, config, store, networks, limit, progress)
        result = replace(measured, details={"model": str(model), **measured.details})
        if rank() == 0 and folder.name == "model" and (folder.parent / "recipe.yaml").is_file():
            files.write_json(folder.parent / "evaluation.json", evaluation_as_json(result))
            track_evaluation(folder.parent, result, log_to)
    return result


def image_settings(
    folder: Path, size: int | None, fault_budget: Budget | None = None, workers: int | None = None
) -> DataConfig:
    """Return how images are resized: to `size`, or to the size that the model in `folder` was trained at."""
    trained = read_model_config(folder).get("size")
    if size is None and not isinstance(trained, int):
        raise UsageError(f"{folder / 'config.json'} does not say which image size it was trained at; give --size.")
    return image_config(trained if size is None else size, fault_budget, workers)  # type: ignore[arg-type]


# --- encoding and decoding --------------------------------------------------------------------------------------


@explain_dead_workers()
def encode_folder(
    model: PathLike,
    source: PathLike,
    *,
    out: PathLike | None = None,
    size: int | None = None,
    split: str | None = None,
    fault_budget: Budget | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> Tokens:
    """Encode images as token indices.

    Args:
        model: a model folder, a run folder or a hub name.
        source: a folder data set, a folder of images or one image file.
        out: also write a safetensors file.
        size: side of the images; by default the size that the model was trained at.
        split: only this split of the data set.
        fault_budget: how many images may be unreadable before the call fails: a number (by default 100), or a share of
            them such as "5%".
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note) after each batch.

    Returns:
        The indices and the file name of each image; images that cannot be read are left out and logged.

    Raises:
        UsageError: there is no such model or source.
        DataError: no image could be read.
        FileError: the model is damaged, or `out` cannot be written.
    """
    with join_processes():
        folder = find_model(_name(model))
        tokenizer = Tokenizer.from_pretrained(folder).prepare(default_device())
        keys, indices, faults = _encode_images(
            tokenizer, Path(source), image_settings(folder, size, fault_budget, workers), split, progress
        )
        if not keys:
            raise DataError(f"No image of {source} could be read: {faults[0] if faults else 'it holds none'}.")
        warn_of_faults(select_faults(faults))
        sha256 = str(read_model_config(folder).get("sha256"))
        tokens = Tokens(indices.to(torch.int32), tuple(keys), tokenizer.entries, sha256, tokenizer.precision)
        if out is not None and rank() == 0:
            tokens.save(Path(out))
        barrier()
    return tokens


def _encode_images(
    tokenizer: Tokenizer, source: Path, config: DataConfig, split: str | None, progress: Progress | None
) -> tuple[list[str], Tensor, list[Fault]]:
    """Return the names of all images in order, their indices, and what cannot be used; each process encodes a part."""
    if source.is_file() and not is_dataset(source):  # one image, which each process encodes
        image = read_square(source, config.size).to(default_device())
        return [source.name], tokenizer.encode(image).cpu(), []
    dataset = FolderDataset(source, split)
    loader = EvaluationLoader(dataset, config, BATCH, rank=rank(), world=world_size())
    keys: list[str] = []
    found = []
    for batch in loader:
        found.append(tokenizer.encode(batch.images.to(default_device())).cpu())
        keys.extend(batch.keys)
        if progress is not None:
            progress(min(len(keys) * world_size(), len(dataset)), len(dataset), "")
    loader.join_faults()
    place_of = {record.file_name: place for place, record in enumerate(dataset)}
    places = [place_of[key] for key in keys]
    return gather_in_order(places, keys), gather_rows(places, found), list(loader.faults)


def decode_tokens(
    model: PathLike, tokens: Tokens | PathLike, *, out: PathLike, progress: Progress | None = None
) -> list[Path]:
    """Decode token indices and write the images as PNG files.

    Args:
        model: the model that made the indices: a model folder, a run folder or a hub name.
        tokens: what `encode_folder` returned, the file that it wrote, or the folder that `encode_shards` wrote.
        out: the folder to write; each image keeps its name, with the suffix .png.
        progress: called with (images, total, note) after each batch.

    Returns:
        The files, in the order of the tokens.

    Raises:
        UsageError: there is no such model, or its codebook does not fit the tokens.
        FileError: a file is damaged, or a name leads outside `out`.
    """
    with join_processes():
        folder = find_model(_name(model))
        tokenizer = Tokenizer.from_pretrained(folder).prepare(default_device())
        found = open_tokens(tokens)
        found.check_codebook(tokenizer)
        if found.model not in (None, str(read_model_config(folder).get("sha256"))):
            warn(f"{found.source} was made by another model than {folder}; the images may be meaningless.")
        paths = [resolve_inside(Path(out), name) for name in png_names(found.keys)]
        batches = list(_batches_of(found, tokenizer.factor))
        if rank() == 0:
            mark_decoded(Path(out))
        barrier()
        for start, stop in batches[rank() :: world_size()]:
            indices = found.read(start, stop).to(default_device(), torch.int64)
            images = to_uint8(tokenizer.decode(indices)).permute(0, 2, 3, 1).cpu().numpy()
            for path, image in zip(paths[start : start + len(images)], images, strict=True):
                save_png(path, image)
            if progress is not None:
                progress(start + len(images), len(paths), "")
        barrier()
        if progress is not None:
            progress(len(paths), len(paths), "")
    return paths


def _batches_of(tokens: StoredTokens, factor: int) -> Iterator[tuple[int, int]]:
    """Yield where batches of images of one shape begin and end; raises FileError where one has too many pixels."""
    shapes = tokens.shapes
    borders = np.flatnonzero((shapes[1:] != shapes[:-1]).any(1)) + 1
    for first, last in pairwise([0, *borders.tolist(), len(shapes)]):
        h, w = (int(side) for side in shapes[first])
        height, width = h * factor, w * factor
        if height * width > MAX_PIXELS:
            raise FileError(
                f"{tokens.source} holds grids of {w:,} x {h:,} tokens, images of {width:,} x {height:,} pixels; "
                f"at most {MAX_PIXELS:,} pixels are decoded."
            )
        batch = limit_batch(BATCH, height * width)
        for start in range(first, last, batch):
            yield start, min(start + batch, last)


def _name(model: PathLike) -> str | Path:
    """Keep a string: it may be a hub name."""
    return model if isinstance(model, str) else Path(model)
