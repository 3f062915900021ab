"""Questions about generated images, with a reader that distinguishes bright from dark."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.data.records import Question, Record
from tavq.evaluation import text_questions
from tavq.evaluation.generation import REAL
from tavq.evaluation.text_questions import QuestionScores, open_reader
from tavq.tasks.model_folder import TaskModel

BRIGHT, DARK = torch.ones(3, 4, 4), -torch.ones(3, 4, 4)
RECORDS = [
    Record("a.png", questions=(Question("is it bright", "yes", "light"), Question("is it a cow", "yes", "object"))),
    Record("b.png", questions=(Question("is it bright", "no", "light"),)),
    Record("c.png"),
]


def answer(rows: Tensor, questions: list[str]) -> list[list[tuple[str, float]]]:
    assert len(rows) == len(questions)
    bright = ["yes" if value > 0 else "no" for value in rows.mean(dim=(1, 2)).tolist()]
    guesses = [guess if "bright" in question else "yes" for guess, question in zip(bright, questions, strict=True)]
    return [[(guess, 0.8), ("maybe", 0.2)] for guess in guesses]


@pytest.fixture
def answers(monkeypatch: pytest.MonkeyPatch) -> QuestionScores:
    monkeypatch.setattr(text_questions, "extract_features", lambda tokenizer, layout, image, images: images.flatten(2))
    config = SimpleNamespace(layout=None, task=SimpleNamespace(image=None))
    task = SimpleNamespace(answer=answer)
    return QuestionScores(model(tokenizer=None, config=config, task=task), RECORDS)


def values(answers: QuestionScores) -> dict[str, float]:
    return {metric.key: metric.value for metric in answers.compute()}


def test_questions_are_asked_about_the_images_of_each_baseline(answers: QuestionScores) -> None:
    real, drawn = torch.stack([BRIGHT, DARK, DARK]), torch.stack([DARK, DARK, BRIGHT])
    answers.update(["a.png", "b.png", "c.png"], {REAL: real, None: drawn})
    assert values(answers) == pytest.approx(
        {
            "images/answers": 1.0,
            "images/answers/light": 1.0,
            "images/answers/object": 1.0,
            "answers": 2 / 3,
            "answers/light": 0.5,
            "answers/object": 1.0,
            # the drawn images each one place on: bright, dark, dark
            "shuffled/answers": 1.0,
            "shuffled/answers/light": 1.0,
            "shuffled/answers/object": 1.0,
        }
    )


def test_batches_add_up_and_images_without_questions_are_left_out(answers: QuestionScores) -> None:
    answers.update(["c.png"], {None: BRIGHT[None]})
    assert answers.compute() == []
    answers.update(["a.png", "c.png"], {None: torch.stack([BRIGHT, BRIGHT])})
    answers.update(["b.png", "c.png"], {None: torch.stack([BRIGHT, BRIGHT])})
    assert values(answers)["answers/light"] == 0.5


def test_a_single_image_has_no_shuffled_baseline(answers: QuestionScores) -> None:
    answers.update(["a.png"], {None: BRIGHT[None]})
    assert set(values(answers)) == {"answers", "answers/light", "answers/object"}


def model(**parts: Any) -> TaskModel:
    """A stand-in for a model with only the attributes that are used."""
    made = object.__new__(TaskModel)
    for name, value in parts.items():
        object.__setattr__(made, name, value)
    return made


def sized(size: int, source: str = "codes") -> TaskModel:
    return model(
        config=SimpleNamespace(task=SimpleNamespace(image=SimpleNamespace(source=source))), metadata={"size": size}
    )


def test_readers_that_do_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    readers = {"good": sized(64), "blind": sized(64, "none"), "small": sized(32)}
    monkeypatch.setattr(text_questions, "load_task", lambda name, command: readers[name])
    assert open_reader("good", sized(64)) is readers["good"]
    for name, says in (("blind", "without an image"), ("small", "32 px and this task generates 64 px")):
        with pytest.raises(UsageError, match=says):
            open_reader(name, sized(64))


def test_a_model_that_does_not_answer_questions_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="There is no model"):
        open_reader(str(tmp_path / "none"), sized(64))
