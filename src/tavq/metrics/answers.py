"""Answers to questions about images: accuracy and WUPS against one true answer, VQA accuracy against ten."""

from collections.abc import Callable, Sequence
from typing import Any

from tavq.core.errors import DataError
from tavq.metrics import intervals
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.vqa import vqa_accuracy
from tavq.metrics.wups import THRESHOLDS

WordSimilarity = Callable[[str, str, float], float]
"""`Wups`: from an answer, the truth and a threshold to a score."""


class AnswerScores(KeyedMetric):
    """Scores of one answer a question, over all questions and over those of each type.

    A question with one true answer (COCO-QA) gives `accuracy` (the share that is equal to it, in small letters and
    without spaces around) and, where `wups` is given, `WUPS@0.9` and `WUPS@0.0`. A question that several people
    answered (VQA) gives `vqa_accuracy`. All are shares from 0 to 1. One kind at a time.
    """

    def __init__(self, wups: WordSimilarity | None = None) -> None:
        super().__init__()
        self.wups = wups

    def add(self, key: str, answer: str, truth: str | Sequence[str], kind: str = "", image: str | None = None) -> None:
        """Counts a question.

        Args:
            key: the question's.
            answer: the answer that is scored.
            truth: the true answer, or those of several people.
            kind: the question's type, "" where there is none.
            image: the image that it is about: images are drawn for the intervals, where all questions name one.
        """
        if kind == intervals.ALL:
            raise DataError(
                f"{key!r} has the type {intervals.ALL!r}, under which all questions are counted; give it another."
            )
        self._add(key, [answer, truth if isinstance(truth, str) else list(truth), kind, image])

    def compute(self) -> dict[str, Any]:
        """`scores` of all questions, `by_type`, `per_question`, and the counts of what was scored."""
        records = self.ordered()
        if not records:
            raise DataError("There is no answer to score.")
        if len({isinstance(truth, str) for _, (_, truth, _, _) in records}) > 1:
            raise DataError("Some questions have one true answer and others several people's; score them apart.")
        each = [self._scores(answer, truth) for _, (answer, truth, _, _) in records]
        kinds = [kind for _, (_, _, kind, _) in records]
        images = [image for _, (_, _, _, image) in records]
        by_image = None not in images
        scores = intervals.grouped(each, kinds, images if by_image else [key for key, _ in records])
        return {
            "scores": scores.pop(intervals.ALL)["scores"],
            "by_type": scores,
            "per_question": {key: scored for (key, _), scored in zip(records, each, strict=True)},
            "questions": len(records),
            "intervals": {**intervals.ABOUT, "over": "images" if by_image else "questions"},
        }

    def _scores(self, answer: str, truth: str | list[str]) -> dict[str, float]:
        if not isinstance(truth, str):
            return {"vqa_accuracy": vqa_accuracy(answer, truth)}
        answer, truth = answer.strip().lower(), truth.strip().lower()
        scores = {"accuracy": float(answer == truth)}
        if self.wups is not None:
            scores |= {f"WUPS@{threshold}": self.wups(answer, truth, threshold) for threshold in THRESHOLDS}
        return scores
