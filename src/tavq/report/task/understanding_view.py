"""What an understanding task answers about some images, for a page."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch

from tavq.data.loader import load_image_batch
from tavq.inspection.pixels import as_bytes
from tavq.report.run import Run
from tavq.report.tokenizer.view import choose_evenly, select_held_out_first
from tavq.tasks.samples import AnsweredImage, SampleImages
from tavq.tasks.understanding import collect_record_examples, extract_features

SHOWN = 12


@dataclass(frozen=True)
class UnderstandingView:
    """Everything that a page shows of an understanding task."""

    split: str
    answered: tuple[AnsweredImage, ...]


@torch.no_grad()
def answer_images(run: Run, folder: Path, limit: int, done: Callable[[int], None]) -> UnderstandingView:
    """Ask a run's model about images of a data set that have examples, held-out ones first, evenly spread.

    Args:
        run: the run.
        folder: the data set.
        limit: read at most this number of its images.
        done: called with the number of images that were answered.
    """
    model, dataset = run.task, select_held_out_first(folder, limit)
    kind, config = type(model.task), model.config
    examples = {record.file_name: collect_record_examples(kind, config.task, dataset, record) for record in dataset}
    dataset = dataset.subset(record for record in dataset if examples[record.file_name])
    if not len(dataset):
        return UnderstandingView("", ())
    split, keys = dataset[0].split, choose_evenly(dataset, SHOWN)
    images = load_image_batch(dataset, keys, run.size).to(next(model.task.parameters()).device)
    features = extract_features(model.tokenizer, config.layout, config.task.image, images)
    of_split = [example for record in dataset if record.split == split for example in examples[record.file_name]]
    samples = SampleImages(dataset, keys, features, [examples[key] for key in keys], of_split)
    answered = model.task.answer_samples(samples)
    squares = {key: (("", as_bytes(image)),) for key, image in zip(keys, images, strict=True)}
    done(len(answered))
    shown = (AnsweredImage(one.key, one.answers, one.images or squares[one.key]) for one in answered)
    return UnderstandingView(split, tuple(shown))
