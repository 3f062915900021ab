"""Accuracy of answers by type, and VQA accuracy equal to the challenge's."""

import pytest

from tavq.core.errors import DataError
from tavq.metrics.answers import AnswerScores
from tavq.metrics.record import Evaluation
from tavq.metrics.vqa import normalize_answer, vqa_accuracy


def test_accuracy_by_hand() -> None:
    scores = AnswerScores()
    for key, (answer, truth, kind, image) in {
        "1": (" Dog", "dog", "object", "a"),
        "2": ("cat", "dog", "object", "a"),
        "3": ("red", "red ", "color", "b"),
        "4": ("two dogs", "two  dogs", "", "c"),
    }.items():
        scores.add(key, answer, truth, kind, image)
    result = scores.compute()
    assert {metric.key: (metric.count, metric.value) for metric in result["metrics"]} == {
        "accuracy": (4, 2 / 4),
        "accuracy/color": (1, 1.0),
        "accuracy/object": (2, 0.5),
    }
    assert result["per_question"]["4"] == {"accuracy": 0.0}
    assert (result["questions"], result["intervals"]["over"]) == (4, "images")
    found = Evaluation(tuple(result["metrics"]), {})
    assert found["accuracy"].interval is not None
    assert found["accuracy/object"].interval is None  # both on one image
    assert found["accuracy/color"].title == "Accuracy: color"


def test_wups_is_computed_next_to_accuracy() -> None:
    scores = AnswerScores(lambda answer, truth, threshold: threshold)
    scores.add("1", "dog", "cat")
    result = scores.compute()
    assert {metric.key: metric.value for metric in result["metrics"]} == {
        "accuracy": 0.0,
        "WUPS@0.9": 0.9,
        "WUPS@0.0": 0.0,
    }
    assert result["intervals"]["over"] == "questions"


def test_wups_receives_answer_and_truth_in_lower_case() -> None:
    asked = []
    scores = AnswerScores(lambda *arguments: asked.append(arguments) or 0.0)
    scores.add("1", "Dog ", " CAT")
    scores.compute()
    assert asked == [("dog", "cat", 0.9), ("dog", "cat", 0.0)]


def test_invalid_input_is_refused() -> None:
    scores = AnswerScores()
    with pytest.raises(DataError, match="No answers were given"):
        scores.compute()
    with pytest.raises(DataError, match="type 'all'"):
        scores.add("1", "dog", "dog", "all")
    scores.add("1", "dog", "dog")
    scores.add("2", "dog", ["dog"] * 10)
    with pytest.raises(DataError, match="score them separately"):
        scores.compute()


# Values of PythonEvaluationTools/vqaEvaluation/vqaEval.py (GT-Vision-Lab/VQA), with which these functions also agreed
# on 40,000 random answers made of its own contractions, articles, numbers and punctuation.
@pytest.mark.parametrize(
    ("answer", "words"),
    [
        ("The Dog", "dog"),
        ("two dogs", "2 dogs"),
        ("none", "0"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("yall'd've", "y'all'd've"),
        ("black/white", "black white"),
        ("black/ white", "black white"),
        ("t-shirt", "t shirt"),
        ("1,000", "1000"),
        ("red,blue", "red blue"),
        ("7.30", "7.30"),
        ("st.", "st"),
        ("p.m.", "pm"),
        ("somebody'd", "somebodyd"),
    ],
)
def test_normalized_answers(answer: str, words: str) -> None:
    assert normalize_answer(answer) == words


@pytest.mark.parametrize(
    ("answer", "people", "accuracy"),
    [
        ("yes", ["yes"] * 10, 1.0),
        ("Yes", ["yes"] * 10, 0.0),  # nothing is normalised where all say the same
        ("Yes", ["yes"] * 9 + ["no"], 1.0),
        ("a dog", ["dog"] + ["cat"] * 9, 0.3),  # nine draws of nine people have one dog, one has none
        ("dog", ["dog"] * 2 + ["cat"] * 8, 0.6),
        ("dog", ["dog"] * 3 + ["cat"] * 7, 0.9),
        ("dog", ["dog"] * 4 + ["cat"] * 6, 1.0),
        ("cow", ["dog"] * 4 + ["cat"] * 6, 0.0),
        ("two\n", ["2"] * 4 + ["3"] * 6, 1.0),
    ],
)
def test_vqa_accuracy_by_hand(answer: str, people: list[str], accuracy: float) -> None:
    assert vqa_accuracy(answer, people) == pytest.approx(accuracy)
    scores = AnswerScores()
    scores.add("1", answer, people, "other")
    result = scores.compute()
    assert [metric.key for metric in result["metrics"]] == ["vqa_accuracy", "vqa_accuracy/other"]
    assert result["metrics"][1].value == pytest.approx(accuracy)
