"""Visual question answering: the codes of an image, then a question, then one of the answers of the training set.

Source: LG-VQ (arXiv 2405.14206), section 4.4 and appendix A.1: the codes through an adapter as the prefix of GPT-2, the
question after them, and the last hidden state through two layers to an answer.
Differs from the paper: GPT-2 may be a small one trained from nothing, with the words of the training questions.
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
from tavq.core.errors import FileError
from tavq.data.records import Question, Record
from tavq.interfaces import Loss, Losses
from tavq.metrics.answers import AnswerScores
from tavq.metrics.record import CONSTANT, Baseline, Metric, for_baseline
from tavq.nets.language import LanguageConfig, LanguageModel, padded
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.text_tokenizer import TextTokenizer
from tavq.tasks.understanding import (
    Adapter,
    ExampleBatch,
    ShapeReader,
    UnderstandingBatch,
    UnderstandingConfig,
    UnderstandingTask,
)

ANSWERS = "answers.json"
"""A file of the model folder: the answers by their number."""


class VqaConfig(UnderstandingConfig):
    """The language model, and how many answers there are."""

    RENAMED: ClassVar = {**UnderstandingConfig.RENAMED, "longest": "max_length", "most_answers": "max_answers"}

    name: Literal["vqa"] = "vqa"
    language: LanguageConfig = LanguageConfig()
    max_length: int = Field(48, ge=4, le=1024)
    """Words of a question that are read; of a longer one the first."""
    hidden: int = Field(512, ge=8, le=8192)
    """Width of the answer head's inner layer."""
    max_answers: int = Field(3_000, ge=1, le=100_000)
    """The most frequent answers of the training set that can be given."""
    answers: int | None = Field(None, ge=1, le=100_000)
    """How many can be given; null for those of the training set."""


@dataclass(frozen=True)
class QuestionBatch:
    """Questions as words, and the number of the answer; -1 for one that cannot be given."""

    ids: Int[Tensor, "b m"]
    mask: Bool[Tensor, "b m"]
    answers: Int[Tensor, " b"]


@tasks.register("vqa")
class Vqa(UnderstandingTask):
    """Answers a question about an image with one of the training set's answers."""

    Config = VqaConfig
    commands = frozenset({"ask"})

    def __init__(self, config: VqaConfig, layout: TokenLayout, width: int) -> None:
        super().__init__()
        self.config, self.layout = config, layout
        assert config.answers is not None, "the settings were not fitted"
        self.adapter = Adapter(config.image, layout, width, config.language.width)
        self.language = LanguageModel(config.language)
        self.head = nn.Sequential(
            nn.Linear(config.language.width, config.hidden), nn.ReLU(), nn.Linear(config.hidden, config.answers)
        )
        self.text_tokenizer: TextTokenizer | None = None
        self.answers: list[str] = []

    # --- learning -----------------------------------------------------------------------------------------------

    @classmethod
    def extract_examples(cls, config: Any, record: Record, shape: ShapeReader) -> Sequence[Question]:
        return record.questions

    @classmethod
    def describe_requirement(cls, config: Any) -> str:
        return "questions"

    @classmethod
    def resolve_config(cls, config: Any, layout: TokenLayout, examples: Sequence[Question]) -> VqaConfig:
        places = config.image.token_count(layout) + config.max_length
        language = config.language.resolve(_words(config, examples).size, places)
        answers = min(len({example.answer for example in examples}), config.max_answers)
        return config.model_copy(update={"language": language, "answers": answers})

    def prepare(self, examples: Sequence[Question]) -> None:
        self.language.load_pretrained()
        self.text_tokenizer = _words(self.config, examples)
        counts = Counter(example.answer for example in examples)
        self.answers = sorted(counts, key=lambda answer: (-counts[answer], answer))[: self.config.answers]

    def write_files(self, folder: Path) -> None:
        assert self.text_tokenizer is not None
        self.text_tokenizer.write(folder)
        files.write_json(folder / ANSWERS, self.answers)

    def read_files(self, folder: Path) -> None:
        self.text_tokenizer = TextTokenizer.read(folder, self.config.language.vocabulary)
        stored = files.read_json(folder / ANSWERS)
        if (
            not isinstance(stored, list)
            or len(stored) != self.config.answers
            or not all(type(a) is str for a in stored)
        ):
            raise FileError(f"{folder / ANSWERS} must hold {self.config.answers} answers as a list of texts.")
        self.answers = stored

    def collate(self, examples: Sequence[Question]) -> QuestionBatch:
        numbers = {answer: number for number, answer in enumerate(self.answers)}
        found = [numbers.get(example.answer, -1) for example in examples]
        return QuestionBatch(*self._questions([example.question for example in examples]), torch.tensor(found))

    def _questions(self, questions: Sequence[str]) -> tuple[Tensor, Tensor]:
        assert self.text_tokenizer is not None
        ids = [
            [*ids[: self.config.max_length - 1], self.text_tokenizer.end] for ids in self.text_tokenizer.ids(questions)
        ]
        return padded(ids, self.text_tokenizer.pad)

    def loss(self, batch: UnderstandingBatch) -> Losses:
        """The cross-entropy of the answer, over the questions whose answer can be given."""
        logits = self._logits(batch.features, batch.examples.ids, batch.examples.mask)
        wanted = batch.examples.answers
        value = F.cross_entropy(logits, wanted, ignore_index=-1, reduction="sum") / (wanted >= 0).sum().clamp(min=1)
        return {"vqa/answer": Loss(value, 1.0)}

    def _logits(
        self, rows: Float[Tensor, "b n d"], ids: Int[Tensor, "b m"], mask: Bool[Tensor, "b m"]
    ) -> Float[Tensor, "b a"]:
        image = self.adapter(rows)
        seen = torch.ones(image.shape[:2], dtype=torch.bool, device=mask.device)
        read = self.language(torch.cat([image, self.language.embed(ids)], dim=1), torch.cat([seen, mask], dim=1))
        last = image.shape[1] + mask.sum(dim=1) - 1  # the end of the question; what follows is padding
        return self.head(read[torch.arange(len(read), device=read.device), last])

    # --- use ----------------------------------------------------------------------------------------------------

    def check_text(self, question: str) -> list[str]:
        """What to tell of a question, a line each; UsageError where it is empty or none of its words is known."""
        assert self.text_tokenizer is not None
        return self.text_tokenizer.check_text("question", question, self.config.max_length - 1)  # the end is read too

    @torch.no_grad()
    def answer(self, rows: Float[Tensor, "b n d"], questions: Sequence[str]) -> list[list[tuple[str, float]]]:
        """For each image and its question the answers and their probabilities, the likeliest first."""
        ids, mask = (table.to(rows.device) for table in self._questions(questions))
        shares = self._logits(rows, ids, mask).float().softmax(dim=1)
        ordered = shares.sort(dim=1, descending=True)
        return [
            [(self.answers[number], share) for share, number in zip(row, numbers, strict=True)]
            for row, numbers in zip(ordered.values.tolist(), ordered.indices.tolist(), strict=True)
        ]

    def compute_metrics(
        self,
        batches: Iterable[ExampleBatch],
        training: Sequence[tuple[str, Any]],
    ) -> list[Metric]:
        """`accuracy` of all and of each type, and `constant/…`, the commonest answer of each type in training."""
        commonest = _commonest(example for _, example in training)
        scores: dict[Baseline | None, AnswerScores] = {None: AnswerScores()}
        if training:
            scores[CONSTANT] = AnswerScores()
        count = 0
        for rows, keys, examples in batches:
            found = self.answer(rows, [example.question for example in examples])
            for key, example, answers in zip(keys, examples, found, strict=True):
                given = {None: answers[0][0], CONSTANT: commonest.get(example.type) or commonest.get("", "")}
                for baseline, score in scores.items():
                    score.add(f"{count}", given[baseline], example.answer, example.type, key)
                count += 1
        metrics: list[Metric] = scores[None].compute()["metrics"]
        if training:
            metrics += for_baseline(CONSTANT, scores[CONSTANT].compute()["metrics"])
        return metrics


def _words(config: VqaConfig, examples: Sequence[Question]) -> TextTokenizer:
    return TextTokenizer.for_model(config.language, (example.question for example in examples))


def _commonest(examples: Iterable[Question]) -> dict[str, str]:
    """The commonest answer of each type, and of all under ""."""
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for example in examples:
        for kind in {example.type, ""}:
            counts[kind][example.answer] += 1
    return {kind: min(found, key=lambda answer: (-found[answer], answer)) for kind, found in counts.items()}
