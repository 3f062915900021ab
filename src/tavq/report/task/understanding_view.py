"""What a task that reads says of some images, for a page: its answer beside the true one."""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.boxes import box_to_image
from tavq.data.folder import FolderDataset
from tavq.data.images import load_image
from tavq.data.loader import load_image_batch
from tavq.data.records import hash_name
from tavq.metrics.grounding import iou
from tavq.report.html.images import as_bytes
from tavq.report.run import Run
from tavq.report.task.grounding_overlay import grounded_image
from tavq.report.tokenizer.view import held_out_first, spread
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.text_tokenizer import WORD
from tavq.tasks.understanding import collect_record_examples, extract_features
from tavq.text.vocabulary import FUNCTION

SHOWN = 12
ASKED = 4
"""Questions, captions or phrases that are shown of one image."""
NEAREST = 3
"""Texts that an image finds."""
TEXTS = 512
"""Among which it looks for them."""
RIGHT = 0.5
"""A box is right whose intersection over union with the true one is larger."""

GAP = "___"


@dataclass(frozen=True)
class Answer:
    """What was asked, what the task said, what is true, and whether that is right (None: it is no yes or no)."""

    asked: str
    said: str
    true: str = ""
    right: bool | None = None


@dataclass(frozen=True)
class Read:
    """An image, what is drawn of it, and what was said of it."""

    key: str
    images: tuple[tuple[str, UInt8[np.ndarray, "_ _ 3"]], ...]
    told: tuple[Answer, ...]


@dataclass(frozen=True)
class ReadingView:
    """Everything that a page shows of a task that reads."""

    split: str
    read: tuple[Read, ...]


@dataclass(frozen=True)
class _Asked:
    """The images that are shown, as the task sees them, with the examples of their records."""

    model: TaskModel
    dataset: FolderDataset
    keys: Sequence[str]
    images: Float[Tensor, "b 3 y x"]
    rows: Float[Tensor, "b n d"]
    examples: Sequence[Sequence[Any]]
    others: Sequence[str]
    """Texts of other images of the split, where the examples are texts."""


@torch.no_grad()
def look_at_reading(run: Run, folder: Path, limit: int, done: Callable[[int], None]) -> ReadingView:
    """Asks a run's model about images of a data set that have examples, held-out ones first, evenly spread.

    Args:
        run: the run.
        folder: the data set.
        limit: at most so many images of it are looked at.
        done: told how many images were read.
    """
    model, dataset = run.task, held_out_first(folder, limit)
    kind, config = type(model.task), model.config
    found = {record.file_name: collect_record_examples(kind, config.task, dataset, record) for record in dataset}
    dataset = dataset.subset(record for record in dataset if found[record.file_name])
    if not len(dataset):
        return ReadingView("", ())
    keys = spread(dataset, SHOWN)
    images = load_image_batch(dataset, keys, run.size).to(next(model.task.parameters()).device)
    rows = extract_features(model.tokenizer, config.layout, config.task.image, images)
    split = dataset[0].split
    texts = [text for record in dataset if record.split == split for text in found[record.file_name]]
    others = list(dict.fromkeys(texts)) if config.task.name == "retrieval" else []
    reader = _READERS.get(config.task.name)
    if reader is None:
        return ReadingView("", ())
    read = reader(_Asked(model, dataset, keys, images, rows, [found[key] for key in keys], others))
    done(len(read))
    return ReadingView(split, tuple(read))


def _imaged(asked: _Asked, told: Sequence[Sequence[Answer]]) -> list[Read]:
    """The square that the task sees, and what it said of it."""
    return [
        Read(key, (("", as_bytes(image)),), tuple(lines))
        for key, image, lines in zip(asked.keys, asked.images, told, strict=True)
    ]


def _answers(asked: _Asked) -> list[Read]:
    chosen = [(place, question) for place, some in enumerate(asked.examples) for question in some[:ASKED]]
    answers = asked.model.task.answer(asked.rows[[place for place, _ in chosen]], [one.question for _, one in chosen])
    told: list[list[Answer]] = [[] for _ in asked.keys]
    for (place, one), [(answer, share), *_] in zip(chosen, answers, strict=True):
        told[place].append(Answer(one.question, f"{answer} ({share:.0%})", one.answer, answer == one.answer))
    return _imaged(asked, told)


def _captions(asked: _Asked) -> list[Read]:
    written = asked.model.task.caption(asked.rows, names=asked.keys)
    return _imaged(
        asked,
        [[Answer("", own[0], " / ".join(true[:ASKED]))] for own, true in zip(written, asked.examples, strict=True)],
    )


def _boxes(asked: _Asked) -> list[Read]:
    phrases = [some[hash_name(key) % len(some)] for key, some in zip(asked.keys, asked.examples, strict=True)]
    found = asked.model.task.ground(asked.rows, [one.phrase for one in phrases])
    read = []
    for key, one, answer in zip(asked.keys, phrases, found, strict=True):
        image = load_image(asked.dataset.path(key))
        boxes = [box_to_image(box, *image.shape[:2]) for box in (one.box, answer.box)]
        overlap = float(iou(*(torch.tensor([box], dtype=torch.float64) for box in boxes)))
        heat = None if answer.heatmap is None else answer.heatmap.float().cpu().numpy()
        shown = (
            ("true", grounded_image(image, boxes[0], None)),
            ("found" if heat is None else "found, and where it looks", grounded_image(image, boxes[1], heat)),
        )
        read.append(Read(key, shown, (Answer(one.phrase, f"IoU {overlap:.2f}", "", overlap > RIGHT),)))
    return read


def _words(asked: _Asked) -> list[Read]:
    told: list[list[Answer]] = [[] for _ in asked.keys]
    for place, (key, captions) in enumerate(zip(asked.keys, asked.examples, strict=True)):
        for caption in captions[:ASKED]:
            found = hidden_word(caption, key, _known(asked.model.task))
            if found is None:
                continue
            with_gap, word = found
            try:
                [[[(filled, share), *_]]] = asked.model.task.fill(asked.rows[place : place + 1], [with_gap])
            except UsageError:  # the gap lies beyond the words that are read
                continue
            right = filled.casefold() == word.casefold()
            told[place].append(Answer(with_gap, f"{with_gap.replace(GAP, filled)} ({share:.0%})", caption, right))
    return [read for read in _imaged(asked, told) if read.told]


def _known(task: Any) -> Callable[[str], bool]:
    """Whether a word is one that the task can fill in."""
    return lambda word: task.text_tokenizer.encode([word])[0] != [task.text_tokenizer.unknown_id]


def hidden_word(caption: str, key: str, known: Callable[[str], bool]) -> tuple[str, str] | None:
    """A caption with ___ in place of one of its content words, and the word; which follows from the image's name."""
    every = [found for found in re.finditer(WORD, caption) if found[0].isalpha()]
    words = [found for found in every if found[0].casefold() not in FUNCTION and known(found[0])]
    if not words:
        return None
    chosen = words[hash_name(f"{key}\n{caption}") % len(words)]
    return caption[: chosen.start()] + GAP + caption[chosen.end() :], chosen[0]


def _texts(asked: _Asked) -> list[Read]:
    task = asked.model.task
    candidates = list(dict.fromkeys([text for some in asked.examples for text in some] + list(asked.others)))[:TEXTS]
    scores = task.embed_images(asked.rows) @ task.embed_texts(candidates).mT
    told: list[list[Answer]] = []
    for row, own in zip(scores.cpu(), asked.examples, strict=True):
        best = row.topk(min(NEAREST, len(candidates))).indices.tolist()
        ranks = [f"1. among {len(candidates)} texts", *(f"{place}." for place in range(2, len(best) + 1))]
        found = [candidates[number] for number in best]
        told.append([Answer(rank, text, "", text in own) for rank, text in zip(ranks, found, strict=True)])
        if not any(one.right for one in told[-1]):
            told[-1].append(Answer("its own", own[0]))
    return _imaged(asked, told)


_READERS: Mapping[str, Callable[[_Asked], list[Read]]] = {
    "vqa": _answers,
    "captioning": _captions,
    "grounding": _boxes,
    "masked-words": _words,
    "retrieval": _texts,
}
