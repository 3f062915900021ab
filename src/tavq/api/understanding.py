"""Ask a trained task about images."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from tavq.api.calls import Budget, PathLike, Progress, select_faults, warn, warn_of_faults
from tavq.api.images import ImageLike, image_config, open_task, read_pixels, read_size, read_square
from tavq.core.config import build
from tavq.core.devices import default_device
from tavq.core.errors import UsageError
from tavq.data.boxes import box_to_image
from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset, is_dataset
from tavq.data.images import save_png
from tavq.data.loader import EvaluationLoader
from tavq.data.workers import explain_dead_workers
from tavq.nets.language import DecodingConfig
from tavq.ops.collective import join_processes, rank, world_size
from tavq.ops.gathering import gather_in_order
from tavq.tasks.grounding_overlay import draw_grounding
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.understanding import collect_examples, extract_features

ANSWERS = 5
BATCH = 32


class Answer(NamedTuple):
    """An answer to a question, or a word for a gap, with its probability."""

    text: str
    probability: float


class Caption(NamedTuple):
    """A caption of an image: a line of COCO's results format."""

    image_id: str
    caption: str


class Grounding(NamedTuple):
    """Where a phrase is in an image.

    Attributes:
        box: left, top, width and height in pixels of the image.
        heatmap: attention over the patches of the centre square, which sums to 1; None where the model has none.
    """

    box: tuple[float, float, float, float]
    heatmap: Float[np.ndarray, "h w"] | None


def ask(model: PathLike | TaskModel, image: ImageLike, question: str, *, count: int = ANSWERS) -> list[Answer]:
    """Answer a question about an image.

    Args:
        model: a model of the task vqa: its model folder, run folder or hub name, or a model from `load_task`.
        image: an image file, or an image of Pillow; its centre square is used.
        question: a question in the words of the training questions; unknown words are logged.
        count: number of answers.

    Returns:
        The most likely answers first.

    Raises:
        UsageError: the model is of another task, or no word of the question is known.
        DataError: the image cannot be read.
    """
    opened = open_task(model, "ask")
    features = _features_of(opened, image)
    _warn_all(opened.task.check_text(question))
    [answers] = opened.task.answer(features, [question])
    return _first(answers, count)


def fill(model: PathLike | TaskModel, image: ImageLike, caption: str, *, count: int = ANSWERS) -> list[list[Answer]]:
    """Fill in the missing words of a caption of an image.

    Args:
        model: a model of the task masked-words: its model folder, run folder or hub name, or one from `load_task`.
        image: an image file, or an image of Pillow; its centre square is used.
        caption: a caption with ___ in place of each missing word; unknown words are logged.
        count: number of words per gap.

    Returns:
        For each gap the most likely words first.

    Raises:
        UsageError: the model is of another task, or the caption has no gap.
        DataError: the image cannot be read.
    """
    opened = open_task(model, "fill")
    _warn_all(opened.task.check_text(caption))
    [gaps] = opened.task.fill(_features_of(opened, image), [caption])
    return [_first(words, count) for words in gaps]


def _first(answers: Sequence[tuple[str, float]], count: int) -> list[Answer]:
    return [Answer(text, probability) for text, probability in answers[:count]]


def ground(model: PathLike | TaskModel, image: ImageLike, phrase: str, *, out: PathLike | None = None) -> Grounding:
    """Find the object that a phrase refers to.

    Args:
        model: a model of the task grounding: its model folder, run folder or hub name, or a model from `load_task`.
        image: an image file, or an image of Pillow; its centre square is used.
        phrase: a phrase in the words of the training phrases; unknown words are logged.
        out: also write a PNG file with the box and, next to it, the attention map.

    Returns:
        The box and the attention.

    Raises:
        UsageError: the model is of another task, or no word of the phrase is known.
        DataError: the image cannot be read.
    """
    opened = open_task(model, "ground")
    _warn_all(opened.task.check_text(phrase))
    [found] = opened.task.ground(_features_of(opened, image), [phrase])
    box = box_to_image(found.box, *read_size(image))
    heatmap = None if found.heatmap is None else found.heatmap.cpu().numpy()
    if out is not None:
        save_png(Path(out), draw_grounding(read_pixels(image), box, heatmap))
    return Grounding(box, heatmap)


@explain_dead_workers()
def caption(
    model: PathLike | TaskModel,
    images: ImageLike | Sequence[ImageLike],
    *,
    count: int = 1,
    beams: int | None = None,
    temperature: float | None = None,
    top_p: float | None = None,
    top_k: int | None = None,
    seed: int = 0,
    split: str = "test",
    fault_budget: Budget | None = None,
    workers: int | None = None,
    progress: Progress | None = None,
) -> list[Caption]:
    """Generate captions by beam search, or by sampling where a temperature, top_p or top_k is given.

    Args:
        model: a model of the task captioning: its model folder, run folder or hub name, or a model from `load_task`.
        images: an image, several images, or a folder data set.
        count: number of captions per image; of a search the best first.
        beams: beam width; by default the recipe's.
        temperature: sampling temperature.
        top_p: sample from the most likely tokens that together have this probability.
        top_k: sample from the k most likely tokens.
        seed: the same seed samples the same captions for an image of the same name.
        split: train, val or test, of a folder data set.
        fault_budget: how many images may be unreadable before the call fails: a number (by default 100), or a share of
            them such as "5%".
        workers: background processes that read images; 0 reads them in this process. By default 0 on a CPU, and one a
            core, at most 8, on a GPU. The result is the same.
        progress: called with (images, total, note).

    Returns:
        The captions, those of one image together. An image is named by its file name in the data set, by its path, or
        by its position in `images`.

    Raises:
        UsageError: the model is of another task, there is no image, or options exclude each other.
        DataError: an image cannot be read.
    """
    with join_processes():
        opened = open_task(model, "caption")
        decoding = _decoding(opened.config.task.decoding, count, beams, temperature, top_p, top_k)
        several = _as_list(images)
        dataset = _dataset(several, split)
        config = image_config(opened.size, fault_budget, workers)
        source = _each(opened, several, progress) if dataset is None else _batches(opened, dataset, config, progress)
        places: list[int] = []
        captions: list[list[Caption]] = []
        for own_places, names, features in source:
            texts = opened.task.caption(features, decoding, count, seed, names)
            captions += [[Caption(name, text) for text in own] for name, own in zip(names, texts, strict=True)]
            places += own_places
        return [Caption(*each) for own in gather_in_order(places, captions) for each in own]


def _as_list(images: ImageLike | Sequence[ImageLike]) -> list[ImageLike]:
    return [images] if isinstance(images, Image.Image | str) or not isinstance(images, Sequence) else list(images)


def reference_captions(model: PathLike | TaskModel, data: PathLike, *, split: str = "test") -> dict[str, list[str]]:
    """Return the captions of a data set's split by file name, those that the captioning task was trained to generate.

    Args:
        model: a model of the task captioning.
        data: a folder data set.
        split: train, val or test.
    """
    opened = open_task(model, "caption")
    references: dict[str, list[str]] = {}
    for name, text in collect_examples(type(opened.task), opened.config.task, FolderDataset(Path(data), split)):
        references.setdefault(name, []).append(text)
    return references


def _decoding(
    usual: DecodingConfig,
    count: int,
    beams: int | None,
    temperature: float | None,
    top_p: float | None,
    top_k: int | None,
) -> DecodingConfig:
    """Return how captions are decoded: as the recipe says, unless the call says otherwise."""
    truncated = temperature is None and (top_p is not None or top_k is not None)
    sampled = truncated or bool(usual.temperature if temperature is None and beams is None else temperature)
    settings: dict[str, Any]
    if sampled:
        settings = {
            "beams": beams or 1,
            "temperature": temperature or usual.temperature or 1.0,
            "top_p": top_p or usual.top_p,
            "top_k": top_k or usual.top_k,
        }
    else:
        settings = {"beams": beams or max(usual.beams, count), "temperature": 0.0, "top_p": top_p, "top_k": top_k}
    return build(DecodingConfig, settings, "The call")


def _dataset(images: Sequence[ImageLike], split: str) -> FolderDataset | None:
    """Return the folder data set that was named instead of images, if one was."""
    if not images:
        raise UsageError("There is no image; give images, or one folder data set.")
    folders = [Path(image) for image in images if not isinstance(image, Image.Image) and is_dataset(Path(image))]
    if folders and len(images) > 1:
        raise UsageError(f"{folders[0]} is a folder; give images, or one folder data set alone.")
    return FolderDataset(folders[0], split) if folders else None


Features = tuple[list[int], list[str], Tensor]
"""Places of images among all, their names, and what the task reads of them."""


def _each(model: TaskModel, images: Sequence[ImageLike], progress: Progress | None) -> Iterator[Features]:
    """Yield each image of this process, which has every n-th of n processes."""
    for position in range(rank(), len(images), world_size()):
        image = images[position]
        name = str(position) if isinstance(image, Image.Image) else str(image)
        yield [position], [name], _features_of(model, image)
        if progress is not None:
            progress(min(position + world_size(), len(images)), len(images), "")


def _batches(
    model: TaskModel, dataset: FolderDataset, config: DataConfig, progress: Progress | None
) -> Iterator[Features]:
    """Yield the images of a data set that can be read, a batch at a time, each process every n-th batch."""
    loader = EvaluationLoader(dataset, config, BATCH, rank=rank(), world=world_size())
    place_of = {record.file_name: place for place, record in enumerate(dataset)}
    done = 0
    for batch in loader:
        images = batch.images.to(default_device())
        features = extract_features(model.tokenizer, model.config.layout, model.config.task.image, images)
        yield [place_of[key] for key in batch.keys], list(batch.keys), features
        done += len(batch.keys)
        if progress is not None:
            progress(min(done * world_size(), len(dataset)), len(dataset), "")
    loader.join_faults()
    warn_of_faults(select_faults(loader.faults))


def _features_of(model: TaskModel, image: ImageLike) -> Tensor:
    square = read_square(image, model.size).to(default_device())
    return extract_features(model.tokenizer, model.config.layout, model.config.task.image, square)


def _warn_all(notes: Sequence[str]) -> None:
    for note in notes:
        warn(note)
