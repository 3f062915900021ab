"""What a generation task produces for a page: conditional samples, completions, and unconditional samples."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tavq.core.devices import to_device
from tavq.data.folder import FolderDataset
from tavq.data.images import load_segmentation
from tavq.data.loader import load_image_batch
from tavq.data.palette import colourize
from tavq.data.records import Record
from tavq.data.shards import find_home
from tavq.data.storage import DataFile
from tavq.data.texts import collate_text, find_text_tables
from tavq.data.transforms import crop_and_resize
from tavq.inspection.pixels import as_bytes
from tavq.report.run import Run
from tavq.report.tokenizer.view import choose_evenly, select_held_out_first
from tavq.tasks.base import GenerationTask, Prompt, Sampling, tasks
from tavq.tasks.completion import complete_images, evaluation_masks
from tavq.tasks.generation import build_prompt, generate_images
from tavq.tasks.model_folder import TaskModel
from tavq.text.store import TextStore

SHOWN = 12
GREY = 0.0
"""Value of hidden pixels, in [-1, 1]."""

Bytes = UInt8[np.ndarray, "y x 3"]


@dataclass(frozen=True)
class Shown:
    """Images that belong together, each with its name, and their text."""

    key: str
    images: tuple[tuple[str, UInt8[np.ndarray, "y x 3"]], ...]
    text: str = ""


@dataclass(frozen=True)
class TaskView:
    """Everything that a page shows of a generation task."""

    split: str
    conditioned: tuple[Shown, ...] = ()
    completed: tuple[Shown, ...] = ()
    alone: tuple[UInt8[np.ndarray, "y x 3"], ...] = ()


def is_generation(run: Run) -> bool:
    """Whether the run trained a generation task."""
    return issubclass(tasks[run.model["model"]["task"]["name"]], GenerationTask)


@torch.no_grad()
def build_task_view(
    run: Run, folder: Path | None, text: Path | None, limit: int, done: Callable[[int], None]
) -> TaskView:
    """Generate images with a run's model, always with the same seed.

    Args:
        run: the run.
        folder: the data set with images, texts and maps, held-out ones first; without one only unconditional tasks
            generate.
        text: the text store; by default that of the data set.
        limit: maximum number of its images to consider.
        done: called with the number of images generated.
    """
    model = run.task
    needs = model.task.required_conditions(model.config.task)
    device = next(model.task.parameters()).device
    generator = torch.Generator(device).manual_seed(0)
    alone: tuple[Bytes, ...] = ()
    if not needs:
        alone = _to_bytes(generate_images(model, Prompt(SHOWN), Sampling(), generator, done))
    if folder is None:
        return TaskView("", alone=alone)
    store = TextStore.find(find_home(folder), text) if "text" in needs else None
    if "text" in needs and store is None:
        return TaskView("")
    if store is not None:
        store.check_encoder(run.provenance.get("text"))
    dataset = select_held_out_first(folder, limit)
    dataset = dataset.subset(record for record in dataset if _is_usable(record, store, "segmentation" in needs))
    if not len(dataset):
        return TaskView("", alone=alone)
    names = choose_evenly(dataset, SHOWN)
    records = {record.file_name: record for record in dataset}
    chosen = [records[name] for name in names]
    images = load_image_batch(dataset, names, run.size).to(device)
    if needs:
        shown = _generate_conditioned(model, dataset, chosen, images, store, generator, done)
        return TaskView(dataset[0].split, conditioned=shown)
    return TaskView(dataset[0].split, completed=_complete(model, names, images, generator), alone=alone)


def _is_usable(record: Record, store: TextStore | None, mapped: bool) -> bool:
    return (store is None or record.file_name in store) and (not mapped or record.segmentation is not None)


def _generate_conditioned(
    model: TaskModel,
    dataset: FolderDataset,
    records: Sequence[Record],
    images: Float[Tensor, "b 3 y x"],
    store: TextStore | None,
    generator: torch.Generator,
    done: Callable[[int], None],
) -> tuple[Shown, ...]:
    """Images generated from the conditions of real ones, next to these."""
    maps = [dataset.file(record.segmentation) for record in records if record.segmentation and store is None]
    if store is not None:
        features = collate_text(store, [record.file_name for record in records], find_text_tables(dataset, store))
        prompt = Prompt(len(records), text=to_device(features, images.device))
    else:
        prompt, _ = build_prompt(model, (), maps, 1)
    generated = _to_bytes(generate_images(model, prompt, Sampling(), generator, done))
    found = []
    for index, (record, image) in enumerate(zip(records, _to_bytes(images), strict=True)):
        asked = () if store is not None else (("map", _load_map(maps[index], image.shape[0])),)
        shown = (*asked, ("real", image), ("generated", generated[index]))
        found.append(Shown(record.file_name, shown, _shown_text(record, store)))
    return tuple(found)


def _load_map(path: DataFile, size: int) -> Bytes:
    square = crop_and_resize(colourize(load_segmentation(path)), size, nearest=True)
    return np.ascontiguousarray(square.permute(1, 2, 0).numpy())


def _complete(
    model: TaskModel, names: Sequence[str], images: Float[Tensor, "b 3 y x"], generator: torch.Generator
) -> tuple[Shown, ...]:
    """Images with a part hidden and completed, equally many for each mask."""
    masks = evaluation_masks(model)
    found = []
    for index, (name, mask) in enumerate(masks.items()):
        rows = slice(index, None, len(masks))
        hidden = mask.to(images.device)
        originals = images[rows]
        filled = complete_images(model, originals, hidden.expand(len(originals), *hidden.shape), Sampling(), generator)
        kept = torch.where(hidden, GREY, originals)
        for key, *shown in zip(names[rows], *(map(as_bytes, part) for part in (originals, kept, filled)), strict=True):
            named = zip(("original", f"{name} hidden", "completed"), shown, strict=True)
            found.append(Shown(key, tuple(named)))
    return tuple(found)


def _to_bytes(images: Float[Tensor, "b 3 y x"]) -> tuple[Bytes, ...]:
    return tuple(as_bytes(image) for image in images)


def _shown_text(record: Record, store: TextStore | None) -> str:
    """The text that the task was given: what the store has under the image's own key."""
    return "" if store is None else record.texts(store.each_caption)[0][1]
