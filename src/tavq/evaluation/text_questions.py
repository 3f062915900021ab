"""Text faithfulness: a model that answers questions is asked the data set's questions about generated images."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.records import Record
from tavq.evaluation.joining import find_union
from tavq.evaluation.text_retrieval import SHUFFLED
from tavq.metrics.answers import AnswerScores
from tavq.metrics.record import Baseline, Group, Metric
from tavq.ops.gathering import gather_in_order
from tavq.tasks.model_folder import TaskModel, load_task
from tavq.tasks.understanding import extract_features


def open_reader(name: str, model: TaskModel) -> TaskModel:
    """The model of the task `vqa` that sees the generated images.

    Raises:
        UsageError: it is another task, sees no images, or was trained on images of another size.
    """
    reader = load_task(name, "ask")
    if reader.config.task.image.source == "none":
        raise UsageError(f"The model {name} was trained to answer without an image; give one that sees images.")
    size, own = model.metadata.get("size"), reader.metadata.get("size")
    if own != size:
        raise UsageError(
            f"The model {name} reads images of {own} px and this task generates {size} px; choose a reader trained at "
            f"{size} px."
        )
    return reader


QUESTIONS = Group(
    "questions",
    "Are questions about the images answered right?",
    "A task that answers questions is asked the data set's questions about the images of each column.",
)


class QuestionScores:
    """The fraction of questions answered right about images, by who made the images and by the question's type.

    Source: TIFA (arXiv 2303.11897): an image is true to its text as far as questions about the text are answered right
    from the image. Differs from the paper: the questions are the data set's own, so some may ask for what the text
    does not say; the value of the split's own images tells how well the reader reads, and that of images generated for
    other texts what it gets right by guessing.
    """

    def __init__(self, reader: TaskModel, records: Iterable[Record]) -> None:
        self.reader = reader
        self.asked = {record.file_name: record.questions for record in records}
        self.places = {key: place for place, key in enumerate(self.asked)}
        self.answers: dict[Baseline | None, list[list[tuple[str, str, str, str]]]] = {}
        """Answer, truth, type and image of each question, by batch."""
        self.first: dict[Baseline | None, list[int]] = {}
        """The place of the first image of each of these batches."""

    @torch.no_grad()
    def update(self, keys: Sequence[str], images_of: Mapping[Baseline | None, Float[Tensor, "b 3 y x"]]) -> None:
        """Add a batch: the images' names, and the images of the model and of each baseline."""
        # A batch of one has no other image of which its questions could be asked.
        asked = dict(images_of)
        if len(keys) > 1:
            asked[SHUFFLED] = images_of[None].roll(len(keys) // 2, dims=0)
        rows = [row for row, key in enumerate(keys) for _ in self.asked[key]]
        questions = [question for key in keys for question in self.asked[key]]
        if not questions:
            return
        for baseline, images in asked.items():
            config = self.reader.config
            seen = extract_features(self.reader.tokenizer, config.layout, config.task.image, images)[rows]
            answers = self.reader.task.answer(seen, [question.question for question in questions])
            found = [
                (answer, question.answer, question.type, keys[row])
                for row, question, [(answer, _), *_] in zip(rows, questions, answers, strict=True)
            ]
            self.answers.setdefault(baseline, []).append(found)
            self.first.setdefault(baseline, []).append(self.places[keys[0]])

    def join(self, baselines: Sequence[Baseline | None]) -> None:
        """Gather the answers of all processes, in each of them and in the order of the images."""
        self.answers = {
            baseline: gather_in_order(self.first.get(baseline, []), self.answers.get(baseline, []))
            for baseline in find_union(self.answers, baselines)
        }

    def compute(self) -> list[Metric]:
        """`answers` and `answers/TYPE`, each with its interval over images."""
        return [
            _of_images(metric, baseline)
            for baseline, batches in self.answers.items()
            for metric in _score(batches).compute()["metrics"]
        ]


def _score(batches: Sequence[Sequence[tuple[str, str, str, str]]]) -> AnswerScores:
    scores = AnswerScores()
    for number, (answer, truth, kind, image) in enumerate(row for rows in batches for row in rows):
        scores.add(f"{number}", answer, truth, kind, image)
    return scores


def _of_images(accuracy: Metric, baseline: Baseline | None) -> Metric:
    """The accuracy of a reader as a metric of the images it was asked about."""
    return replace(
        accuracy,
        name=accuracy.name.replace("accuracy", "answers", 1),
        title=accuracy.title.replace("Accuracy", "Right answers", 1),
        group=QUESTIONS,
        baseline=baseline,
        meaning="Fraction of the questions; bounded by how well the reader reads.",
    )
