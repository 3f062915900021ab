"""Answers to questions about images: accuracy and WUPS against one true answer, VQA accuracy against ten."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any

from tavq.core.errors import DataError
from tavq.metrics import intervals
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.record import Group, Metric
from tavq.metrics.vqa import vqa_accuracy
from tavq.metrics.wups import THRESHOLDS

WordSimilarity = Callable[[str, str, float], float]
"""`Wups`: maps an answer, the truth and a threshold to a score."""


ANSWERS = Group("answers", "Answers to questions", "Over all questions, and over those of each type.")

ACCURACY = Metric(
    "accuracy",
    "Accuracy",
    ANSWERS,
    better=1,
    meaning="Fraction of the questions answered exactly as in the data set.",
    percent=True,
    main=True,
)
VQA_ACCURACY = Metric(
    "vqa_accuracy",
    "VQA accuracy",
    ANSWERS,
    better=1,
    meaning="Agreement with several human answers, as in the VQA challenge.",
    percent=True,
    main=True,
)
WUPS = Metric(
    "WUPS",
    "WUPS",
    ANSWERS,
    better=1,
    meaning="Mean WordNet similarity of predicted and true answers; similarities below the threshold count a tenth.",
    percent=True,
)
WUPS_AT = {threshold: replace(WUPS, name=f"WUPS@{threshold}", title=f"WUPS@{threshold}") for threshold in THRESHOLDS}


class AnswerScores(KeyedMetric):
    """Scores of one answer a question, over all questions and over those of each type (`accuracy/color`).

    A question with one true answer (COCO-QA) gives `accuracy` (the fraction that is equal to it, in lower case and
    without surrounding spaces) and, where `wups` is given, `WUPS@0.9` and `WUPS@0.0`. A question that several people
    answered (VQA) gives `vqa_accuracy`. All are fractions. One kind at a time.
    """

    def __init__(self, wups: WordSimilarity | None = None) -> None:
        super().__init__()
        self.wups = wups

    def add(self, key: str, answer: str, truth: str | Sequence[str], kind: str = "", image: str | None = None) -> None:
        """Adds a question.

        Args:
            key: the question's.
            answer: the answer to score.
            truth: the true answer, or those of several people.
            kind: the question's type; "" for none.
            image: the image that it is about: where all questions name one, intervals are over images.
        """
        if kind == intervals.ALL:
            raise DataError(f"{key!r} has the type {intervals.ALL!r}, which stands for all questions; rename it.")
        self._add(key, [answer, truth if isinstance(truth, str) else list(truth), kind, image])

    def compute(self) -> dict[str, Any]:
        """`metrics` of all questions and of each type, `per_question`, and the counts of what was scored."""
        records = self.ordered()
        if not records:
            raise DataError("No answers were given to score.")
        if len({isinstance(truth, str) for _, (_, truth, _, _) in records}) > 1:
            raise DataError("Some questions have one true answer and others several people's; score them separately.")
        each = [self._scores(answer, truth) for _, (answer, truth, _, _) in records]
        kinds = [kind for _, (_, _, kind, _) in records]
        images = [image for _, (_, _, _, image) in records]
        by_image = None not in images
        units = images if by_image else [key for key, _ in records]
        metrics = [metric for metric in (ACCURACY, VQA_ACCURACY, *WUPS_AT.values()) if metric.name in each[0]]
        groups = intervals.score_groups(metrics, each, kinds, units)
        return {
            "metrics": [of_type(metric, kind) for kind, found in groups.items() for metric in found],
            "per_question": {key: scored for (key, _), scored in zip(records, each, strict=True)},
            "questions": len(records),
            "empty_answers": sum(not answer.strip() for _, (answer, _, _, _) in records),
            "intervals": {**intervals.ABOUT, "over": "images" if by_image else "questions"},
        }

    def _scores(self, answer: str, truth: str | list[str]) -> dict[str, float]:
        if not isinstance(truth, str):
            agreement = vqa_accuracy(answer, truth)  # also checks the truth
            return {VQA_ACCURACY.name: agreement if answer.strip() else 0.0}
        answer, truth = answer.strip().lower(), truth.strip().lower()
        scores = {ACCURACY.name: float(answer == truth)}
        if self.wups is not None:
            scores |= {metric.name: self.wups(answer, truth, threshold) for threshold, metric in WUPS_AT.items()}
        if not answer:  # it would equal what is left of a truth like "a" or ","
            return dict.fromkeys(scores, 0.0)
        return scores


def of_type(metric: Metric, kind: str) -> Metric:
    """The metric of the questions of one type; `intervals.ALL` for all of them."""
    if kind == intervals.ALL:
        return metric
    return replace(metric, name=f"{metric.name}/{kind}", title=f"{metric.title}: {kind}")
