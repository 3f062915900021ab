"""What a page shows of a tokenizer: reconstructions, codebook and code cards, gathered in one pass over images."""

import math
from collections import Counter
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
from tavq.inspection.entries import Lexicon, decode_alone
from tavq.inspection.pixels import as_bytes
from tavq.metrics.codes import LEVEL_NAMES
from tavq.report.html.images import colours_of
from tavq.report.run import Run
from tavq.report.tokenizer.code_cards import CodeCard, Survey
from tavq.report.tokenizer.similarity import CodeSimilarity, measure_similarity
from tavq.report.tokenizer.word_cards import WORD_PATCHES, WORDS, WordCard, make_word_cards

BATCH = 32
HELD_OUT_FIRST = {"test": 0, "val": 1, "train": 2}
MAX_TILES = 1024
"""Maximum number of entries on a sheet, most used first."""


@runtime_checkable
class Progress(Protocol):
    """A callback that reports how much work is done."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None: ...


class NoProgress:
    """A Progress that reports nothing."""

    def __call__(self, done: int, total: int | None = None, note: str = "") -> None:
        pass


@dataclass(frozen=True)
class Pair:
    """An image and its reconstruction."""

    key: str
    original: UInt8[np.ndarray, "y x 3"]
    reconstruction: UInt8[np.ndarray, "y x 3"]


@dataclass(frozen=True)
class View:
    """Everything that a page shows of a tokenizer."""

    splits: dict[str, int]  # images read, by split
    pairs: tuple[Pair, ...]
    pairs_split: str
    counts: Int[np.ndarray, " k"]
    perplexity: float  # of the counts; NaN if no image could be read
    order: tuple[int, ...]  # entries, most used first
    tiles: tuple[UInt8[np.ndarray, "y x 3"], ...]  # entries decoded alone, in that order, at most MAX_TILES
    colours: UInt8[np.ndarray, "k 3"]
    cards: tuple[CodeCard, ...]
    word_cards: tuple[WordCard, ...]
    word_level: str  # the level that words are aligned with; empty if none is
    aligned: bool
    with_text: int  # number of images with text
    similarity: CodeSimilarity | None = None  # None for fewer than two codes in use

    @property
    def images(self) -> int:
        """Number of images read."""
        return sum(self.splits.values())


def select_held_out_first(folder: Path, limit: int) -> FolderDataset:
    """At most `limit` images of a data set: those of test, then of val, then of train."""
    dataset = FolderDataset(folder)
    return dataset.subset(sorted(dataset.records, key=lambda record: HELD_OUT_FIRST[record.split])[:limit])


def choose_evenly(dataset: FolderDataset, count: int) -> list[str]:
    """File names of at most `count` evenly spaced images of the first split in `dataset`."""
    names = [record.file_name for record in dataset if record.split == dataset[0].split]
    if count >= len(names):
        return names
    return [names[index * len(names) // count] for index in range(count)]


@torch.no_grad()
def build_view(
    run: Run,
    dataset: FolderDataset,
    store: Lexicon | None,
    pairs: Sequence[str],
    top: int,
    progress: Progress,
    workers: int = 0,
) -> View:
    """Survey a run's tokenizer in one pass over a data set.

    Args:
        run: has the tokenizer and the image size that it was trained at.
        dataset: the images.
        store: their text.
        pairs: file names of the images to show with their reconstruction.
        top: number of codes to explain.
        progress: called with the number of images read.
        workers: processes that read images.
    """
    survey = Survey(run.tokenizer, store)
    aligner = run.tokenizer.aligner
    level = None if aligner is None or store is None else aligner.entry_levels.get(WORDS)
    of_words = None if level is None else Survey(run.tokenizer, store, WORD_PATCHES, level)
    reconstructed: dict[str, Pair] = {}
    config = DataConfig(size=run.size, flip=0, fault_budget=1.0, workers=workers)
    for batch in EvaluationLoader(dataset, config, BATCH, None):
        features = run.tokenizer.features(batch.images)
        indices = survey.update(batch, features)
        if of_words is not None:
            of_words.update(batch, features)
        rows = [row for row, key in enumerate(batch.keys) if key in pairs]
        if rows:
            images = run.tokenizer.decode(indices[rows])
            for row, image in zip(rows, images, strict=True):
                key = batch.keys[row]
                reconstructed[key] = Pair(key, as_bytes(batch.images[row]), as_bytes(image))
        progress(len(survey.keys), len(dataset), f"{run.name}: reading images")
    read = set(survey.keys)
    splits = Counter(record.split for record in dataset if record.file_name in read)
    progress(len(survey.keys), len(dataset), f"{run.name}: explaining codes")
    words = [] if of_words is None or store is None else make_word_cards(of_words, store, dataset)
    return View(
        dict(splits),
        tuple(reconstructed[key] for key in pairs if key in reconstructed),
        dataset[0].split,
        survey.counts,
        survey.usage.perplexity or math.nan,
        tuple(survey.order),
        tuple(decode_alone(run.tokenizer, survey.order[:MAX_TILES])),
        colours_of(run.tokenizer.lookup_entries()),
        tuple(survey.make_cards(dataset, top)),
        tuple(words),
        "" if level is None else LEVEL_NAMES[level],
        run.tokenizer.aligner is not None,
        len(survey.cooccurrences.codes),
        measure_similarity(run.tokenizer.codebook, survey.counts, store),
    )
