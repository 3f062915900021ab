"""Visual question answering: classify an image's codes and a question into the answers of the training set.

Source: LG-VQ (arXiv 2405.14206), section 4.4 and appendix A.1: GPT-2 reads the adapted codes as its prefix, then the
question; a two-layer MLP classifies the last hidden state.
Differs from the paper: GPT-2 may be a small one trained from scratch on the words of the training questions.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor, nn

from tavq.core import files
from tavq.core.config import require_resolved
from tavq.core.errors import FileError
from tavq.data.records import Question, Record
from tavq.interfaces import Loss, Losses
from tavq.metrics.answers import AnswerScores
from tavq.metrics.record import CONSTANT, Baseline, Metric, for_baseline
from tavq.nets.language import LanguageConfig, LanguageModel
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.samples import PER_IMAGE, Answer, AnsweredImage, SampleImages
from tavq.tasks.text_task import TextBatch, TextTask, rank
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    UnderstandingBatch,
    UnderstandingConfig,
    gather_batches,
)

ANSWERS = "answers.json"
"""A file of the model folder: the answers, by class index."""

IGNORED = -1
"""The class of an answer outside the training set's; the loss leaves it out."""


class VqaConfig(UnderstandingConfig):
    """The language model, and the number of answers."""

    RENAMED: ClassVar = {**UnderstandingConfig.RENAMED, "longest": "max_length", "most_answers": "max_answers"}

    name: Literal["vqa"] = "vqa"
    language: LanguageConfig = LanguageConfig()
    max_length: int = Field(48, ge=4, le=1024)
    """Words of a question that are read; the rest is cut off."""
    hidden: int = Field(512, ge=8, le=8192)
    """Width of the answer head's hidden layer."""
    max_answers: int = Field(3_000, ge=1, le=100_000)
    """Keep the most frequent answers of the training set."""
    answers: int | None = Field(None, ge=1, le=100_000)
    """Number of classes; null for the number of kept answers."""


@dataclass(frozen=True)
class QuestionBatch(TextBatch):
    """Questions as token ids, and the class of each answer (IGNORED if it has none)."""

    answers: Int[Tensor, " b"]


@tasks.register("vqa")
class Vqa(TextTask):
    """Answers a question about an image with one of the training set's answers."""

    Config = VqaConfig
    commands = frozenset({"ask"})

    def __init__(self, config: VqaConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        answers = require_resolved(config.answers, "answers")
        self.adapter = Adapter(config.image, layout, width, config.language.width)
        self.language = LanguageModel(config.language)
        self.head = nn.Sequential(
            nn.Linear(config.language.width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, answers)
        )
        self.answers: list[str] = []

    # --- training -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[Question]:
        return record.questions

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return "questions"

    @classmethod
    def build_text_tokenizer(cls, config: Any, examples: Iterable[Question]) -> TextTokenizer:
        return TextTokenizer.for_language_model(config.language, (example.question for example in examples))

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[Question]) -> VqaConfig:
        positions = config.image.token_count(layout) + config.max_length
        language = config.language.resolve(cls.build_text_tokenizer(config, examples).size, positions)
        answers = min(len({example.answer for example in examples}), config.max_answers)
        return config.model_copy(update={"language": language, "answers": answers})

    @property
    def vocabulary(self) -> int:
        return int(self.config.language.vocabulary)

    def prepare(self, examples: Sequence[Question]) -> None:
        self.language.load_pretrained()
        super().prepare(examples)
        counts = Counter(example.answer for example in examples)
        self.answers = sorted(counts, key=lambda answer: (-counts[answer], answer))[: self.config.answers]

    def write_files(self, folder: Path) -> None:
        super().write_files(folder)
        files.write_json(folder / ANSWERS, self.answers)

    def read_files(self, folder: Path) -> None:
        super().read_files(folder)
        answers = files.read_json(folder / ANSWERS)
        complete = isinstance(answers, list) and len(answers) == self.config.answers
        if not complete or not all(type(answer) is str for answer in answers):
            raise FileError(f"{folder / ANSWERS} must hold {self.config.answers} answers as a list of texts.")
        self.answers = answers

    def truncate(self, ids: list[int]) -> list[int]:
        """A question always ends with the end token, whose hidden state is classified."""
        return [*ids[: self.config.max_length - 1], self.text_tokenizer.end_id]

    def collate(self, examples: Sequence[Question]) -> QuestionBatch:
        classes = {answer: i for i, answer in enumerate(self.answers)}
        answers = torch.tensor([classes.get(example.answer, IGNORED) for example in examples])
        questions = self.tokenize([example.question for example in examples])
        return QuestionBatch(questions.ids, questions.mask, answers)

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The cross-entropy of the answer, the mean over the questions whose answer is a class."""
        logits = self._logits(batch.features, batch.examples.ids, batch.examples.mask)
        answers = batch.examples.answers
        total = F.cross_entropy(logits, answers, ignore_index=IGNORED, reduction="sum")
        # Not reduction="mean": it is NaN if no answer of the batch is a class.
        count = (answers != IGNORED).sum()
        return {"vqa/answer": Loss(total / count.clamp(min=1), 1.0, count)}

    def _logits(
        self, features: Float[Tensor, "b n d"], ids: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b a"]:
        image = self.adapter(features)
        image_mask = torch.ones(image.shape[:2], dtype=torch.bool, device=mask.device)
        embeddings = torch.cat([image, self.language.embed(ids)], dim=1)
        hidden = self.language(embeddings, torch.cat([image_mask, mask], dim=1))
        end = image.shape[1] + mask.sum(dim=1) - 1  # position of the end token, before the padding
        return self.head(hidden[torch.arange(len(hidden), device=hidden.device), end])

    # --- use ----------------------------------------------------------------------------------------------------

    def check_text(self, text: str) -> list[str]:
        """Warnings about a question, one line each; UsageError if nothing of it can be read."""
        return self.text_tokenizer.check_text("question", text, self.config.max_length - 1)  # the end token counts

    @torch.no_grad()
    def answer(self, features: Float[Tensor, "b n d"], questions: Sequence[str]) -> list[list[tuple[str, float]]]:
        """All answers with their probabilities for each image and its question, the most probable first."""
        batch = self.tokenize(questions)
        logits = self._logits(features, batch.ids.to(features.device), batch.mask.to(features.device))
        return rank(logits.float().softmax(dim=1), self.answers)

    def compute_metrics(self, batches: Iterable[ExampleBatch], training: Sequence[tuple[str, Any]]) -> list[Metric]:
        """`accuracy` of all questions and of each type; `constant/…` gives the type's most frequent training answer."""
        constant = _most_frequent_answers(example for _, example in training)
        scores: dict[Baseline | None, AnswerScores] = {None: AnswerScores()}
        if training:
            scores[CONSTANT] = AnswerScores()
        made: list[list[tuple[str, str, str, str]]] = []
        for features, keys, examples in batches:
            answered = self.answer(features, [example.question for example in examples])
            rows = zip(keys, examples, answered, strict=True)
            made.append([(key, answers[0][0], example.answer, example.type) for key, example, answers in rows])
        gathered = (row for rows in gather_batches(batches, made) for row in rows)
        for count, (key, answer, truth, kind) in enumerate(gathered):
            given = {None: answer, CONSTANT: constant.get(kind) or constant.get("", "")}
            for baseline, score in scores.items():
                score.add(f"{count}", given[baseline], truth, kind, key)
        metrics: list[Metric] = scores[None].compute()["metrics"]
        if training:
            metrics += for_baseline(CONSTANT, scores[CONSTANT].compute()["metrics"])
        return metrics

    def answer_samples(self, samples: SampleImages) -> list[AnsweredImage]:
        """The most probable answer to the first questions about each image."""
        shown = [(row, question) for row, some in enumerate(samples.examples) for question in some[:PER_IMAGE]]
        questions = [question.question for _, question in shown]
        ranked = self.answer(samples.features[[row for row, _ in shown]], questions)
        answers: list[list[Answer]] = [[] for _ in samples.keys]
        for (row, question), [(answer, probability), *_] in zip(shown, ranked, strict=True):
            correct = answer == question.answer
            answers[row].append(Answer(question.question, f"{answer} ({probability:.0%})", question.answer, correct))
        return [AnsweredImage(key, tuple(own)) for key, own in zip(samples.keys, answers, strict=True)]


def _most_frequent_answers(examples: Iterable[Question]) -> dict[str, str]:
    """The most frequent answer of each question type, and of all questions under ""; ties go by the alphabet."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        for kind in {example.type, ""}:
            counts[kind][example.answer] += 1
    return {kind: min(found, key=lambda answer: (-found[answer], answer)) for kind, found in counts.items()}
