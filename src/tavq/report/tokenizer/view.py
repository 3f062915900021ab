"""What a run's model makes of images, gathered in one pass for a page."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import Int, UInt8

from tavq.data.config import DataConfig
from tavq.data.folder import FolderDataset
from tavq.data.loader import EvaluationLoader
from tavq.report.html.images import as_bytes, colours_of
from tavq.report.run import Run
from tavq.report.tokenizer.code_cards import CodeCard, Lexicon, Survey, decode_alone

BATCH = 32
HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2}
MOST_TILES = 1024
"""Entries that a sheet shows, the most used first."""


@runtime_checkable
class Progress(Protocol):
    """Who is told how far the work is."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


class Silence:
    """A Progress that says nothing."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        pass


@dataclass(frozen=True)
class Pair:
    """An image and what comes back from its codes."""

    key: str
    original: UInt8[np.ndarray, "y x 3"]
    reconstruction: UInt8[np.ndarray, "y x 3"]


@dataclass(frozen=True)
class View:
    """Everything that a page shows of a model."""

    splits: dict[str, int]  # images read, by split
    pairs: tuple[Pair, ...]
    pairs_split: str
    counts: Int[np.ndarray, " k"]
    perplexity: float  # of the counts, NaN where no image could be read
    order: tuple[int, ...]  # entries, the most used first
    tiles: tuple[UInt8[np.ndarray, "y x 3"], ...]  # decoded alone, in that order, at most MOST_TILES
    colours: UInt8[np.ndarray, "k 3"]
    cards: tuple[CodeCard, ...]
    aligned: bool
    with_text: int

    @property
    def images(self) -> int:
        """Images read."""
        return sum(self.splits.values())


def held_out_first(folder: Path, limit: int) -> FolderDataset:
    """At most `limit` images of a data set: those of test, then of val, then of train."""
    dataset = FolderDataset(folder)
    dataset = dataset.subset(sorted(dataset.records, key=lambda record: HELD_OUT_FIRST[record.split])[:limit])
    return dataset


def spread(dataset: FolderDataset, count: int) -> list[str]:
    """Names of `count` images of the first split, evenly spread over it."""
    names = [record.file_name for record in dataset if record.split == dataset[0].split]
    return [names[place * len(names) // count] for place in range(count)] if count < len(names) else names


@torch.no_grad()
def look(
    run: Run, dataset: FolderDataset, store: Lexicon | None, pairs: Sequence[str], top: int, progress: Progress
) -> View:
    """One pass of a run's model over a data set.

    Args:
        run: whose model encodes, at the size it was trained at.
        dataset: the images.
        store: their text.
        pairs: names of the images to show with their reconstruction.
        top: codes to explain.
        progress: told the number of images read.
    """
    survey = Survey(run.tokenizer, store)
    found: dict[str, Pair] = {}
    config = DataConfig(size=run.size, flip=0, fault_budget=len(dataset))
    for batch in EvaluationLoader(dataset, config, BATCH, None):
        indices = survey.update(batch)
        wanted = [row for row, key in enumerate(batch.keys) if key in pairs]
        if wanted:
            images = run.tokenizer.decode(indices[wanted])
            for row, image in zip(wanted, images, strict=True):
                key = batch.keys[row]
                found[key] = Pair(key, as_bytes(batch.images[row]), as_bytes(image))
        progress(len(survey.keys), len(dataset), f"{run.name}: reading images")
    read = set(survey.keys)
    splits: dict[str, int] = {}
    for record in dataset:
        if record.file_name in read:
            splits[record.split] = splits.get(record.split, 0) + 1
    progress(len(survey.keys), len(dataset), f"{run.name}: explaining codes")
    return View(
        splits,
        tuple(found[key] for key in pairs if key in found),
        dataset[0].split,
        survey.counts,
        survey.usage.perplexity or math.nan,
        tuple(survey.order),
        tuple(decode_alone(run.tokenizer, survey.order[:MOST_TILES])),
        colours_of(run.tokenizer.lookup_entries()),
        tuple(survey.cards(dataset, top)),
        run.tokenizer.aligner is not None,
        len(survey.presence.codes),
    )
