"""What a report shows of an understanding task: sample images with the task's answers next to the true ones."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from torch import Tensor

from tavq.data.folder import FolderDataset

PER_IMAGE = 4
"""Questions, captions or phrases that are shown of one image."""


@dataclass(frozen=True)
class SampleImages:
    """Some images of a split, as the task reads them.

    Attributes:
        dataset: the split.
        keys: file names of the images.
        features: of the images.
        examples: the examples of each image, one or more.
        split_examples: those of all images of the split, for tasks that choose among them.
    """

    dataset: FolderDataset
    keys: Sequence[str]
    features: Float[Tensor, "b n d"]
    examples: Sequence[Sequence[Any]]
    split_examples: Sequence[Any]


@dataclass(frozen=True)
class Answer:
    """One answer of the task.

    Attributes:
        question: what was asked; empty where the image alone is the question.
        answer: what the task predicts.
        truth: shown where the answer is not right.
        correct: None where an answer is neither right nor wrong.
    """

    question: str
    answer: str
    truth: str = ""
    correct: bool | None = None


@dataclass(frozen=True)
class AnsweredImage:
    """The answers about one image.

    Attributes:
        key: its file name.
        answers: in the order of the page.
        images: shown with their titles; empty for the square that the task sees.
    """

    key: str
    answers: tuple[Answer, ...]
    images: tuple[tuple[str, UInt8[np.ndarray, "_ _ 3"]], ...] = ()
