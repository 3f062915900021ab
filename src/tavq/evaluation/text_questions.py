"""Text faithfulness: a model that answers questions is asked the data set's questions about drawn images."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.records import Record
from tavq.evaluation.text_retrieval import SHUFFLED
from tavq.metrics.answers import AnswerScores
from tavq.tasks.model_folder import TaskModel, load_task
from tavq.tasks.understanding import extract_features


def open_reader(name: str, model: TaskModel) -> TaskModel:
    """The model of the task `vqa` that looks at what was drawn.

    Raises:
        UsageError: it is another task, sees no images, or was trained on images of another size.
    """
    reader = load_task(name, "ask")
    if reader.config.task.image.source == "none":
        raise UsageError(f"The model {name} was trained to answer without an image; give one that sees images.")
    size, own = model.metadata.get("size"), reader.metadata.get("size")
    if own != size:
        raise UsageError(f"The model {name} reads images of {own} px and this task draws {size} px; give one alike.")
    return reader


class Answers:
    """The share of questions answered right about images, by who made the images and by the question's type.

    Source: TIFA (arXiv 2303.11897): an image is true to its text as far as questions about the text are answered right
    from the image. Differs from the paper: the questions are the data set's own, so some may ask for what the text
    does not say; the figure of the split's own images tells how well the reader reads, and that of images drawn for
    other texts what it gets right by guessing.
    """

    def __init__(self, reader: TaskModel, records: Iterable[Record]) -> None:
        self.reader = reader
        self.asked = {record.file_name: record.questions for record in records}
        self.scores: dict[str, AnswerScores] = {}

    @torch.no_grad()
    def update(self, keys: Sequence[str], made: Mapping[str, Float[Tensor, "b 3 y x"]]) -> None:
        """Counts a batch: the images' names, and images of each kind in their place."""
        # Of a batch of one there is no other image, and its questions are not asked of one.
        others = {SHUFFLED: made["drawn"].roll(len(keys) // 2, dims=0)} if len(keys) > 1 else {}
        rows = [row for row, key in enumerate(keys) for _ in self.asked[key]]
        questions = [question for key in keys for question in self.asked[key]]
        if not questions:
            return
        for kind, images in {**made, **others}.items():
            config = self.reader.config
            seen = extract_features(self.reader.tokenizer, config.layout, config.task.image, images)[rows]
            answers = self.reader.task.answer(seen, [question.question for question in questions])
            scores = self.scores.setdefault(kind, AnswerScores())
            for row, question, [(answer, _), *_] in zip(rows, questions, answers, strict=True):
                number = f"{len(scores.records)}"
                scores.add(number, answer, question.answer, question.type, keys[row])

    def compute(self) -> dict[str, dict[str, Any]]:
        """`KIND/answers` and `KIND/answers/TYPE`, each with its interval over images."""
        found = {}
        for kind, scores in self.scores.items():
            computed = scores.compute()
            found[f"{kind}/answers"] = computed["scores"]["accuracy"]
            for name, group in computed["by_type"].items():
                found[f"{kind}/answers/{name}"] = group["scores"]["accuracy"]
        return found
