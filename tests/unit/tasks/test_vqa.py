"""VQA: questions and their batches, the loss, the metrics, and damaged model folders."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F

from tavq.core.errors import FileError, UsageError
from tavq.data.records import Question, Record
from tavq.metrics.record import by_key
from tavq.tasks.base import TokenLayout
from tavq.tasks.understanding import UnderstandingBatch
from tavq.tasks.vqa import ANSWERS, Vqa, VqaConfig

LAYOUT = TokenLayout(height=2, width=2, sizes=(5,))
ASKED = [
    Question("what is the color of the barn", "red", "color"),
    Question("what is the color of the barn near the old stone mill", "red", "color"),
    Question("how many barns are there", "two", "number"),
    Question("what is the color of the cow", "brown", "color"),
]


def make_task(questions: list[Question] = ASKED, **changes: Any) -> Vqa:
    settings = {
        "language": {"layers": 1, "heads": 2, "width": 8, "dropout": 0.0},
        "max_length": 16,
        "hidden": 8,
        **changes,
    }
    config = Vqa.resolve_config(VqaConfig.model_validate(settings), LAYOUT, questions)
    torch.manual_seed(0)
    task = Vqa(config, LAYOUT, 3)
    task.prepare(questions)
    return task.eval()


def random_features(b: int) -> torch.Tensor:
    return torch.randn(b, 4, 3, generator=torch.Generator().manual_seed(1))


def test_answers_are_ordered_by_frequency_then_name() -> None:
    task = make_task()
    assert task.answers == ["red", "brown", "two"]
    assert make_task(max_answers=2).answers == ["red", "brown"]
    assert make_task(max_answers=2).config.answers == 2


def test_the_batch_does_not_change_an_answer() -> None:
    task = make_task()
    alone = task.answer(random_features(1), [ASKED[0].question])
    beside = task.answer(random_features(1).expand(2, -1, -1), [ASKED[0].question, ASKED[1].question])
    assert [answer for answer, _ in alone[0]] == [answer for answer, _ in beside[0]]
    assert [share for _, share in alone[0]] == pytest.approx([share for _, share in beside[0]], abs=1e-6)
    assert sum(share for _, share in alone[0]) == pytest.approx(1)
    assert alone[0] == sorted(alone[0], key=lambda pair: -pair[1])


def test_a_question_is_read_up_to_max_length() -> None:
    task = make_task()
    one, other = "what is the color of the barn", "how is the color of the barn"
    assert task.answer(random_features(1), [one]) != task.answer(random_features(1), [other])
    short = make_task(max_length=4)  # three words and the end
    assert short.answer(random_features(1), ["what is the color"]) == short.answer(
        random_features(1), ["what is the barn"]
    )


def test_the_end_token_is_classified() -> None:
    task = make_task()
    questions = task.collate([ASKED[2], ASKED[1]])  # of which the first is padded
    logits = task._logits(random_features(2), questions.ids, questions.mask)
    short = int(questions.mask[0].sum())
    assert short < questions.ids.shape[1]
    for place, length in enumerate((short, questions.ids.shape[1])):
        embeddings = torch.cat(
            [task.adapter(random_features(2)[[place]]), task.language.embed(questions.ids[[place], :length])], dim=1
        )
        read = task.language(embeddings, torch.ones(embeddings.shape[:2], dtype=torch.bool))
        assert torch.allclose(logits[place], task.head(read[0, -1]), atol=1e-6)


def test_truncated_and_unknown_words_are_reported() -> None:
    task = make_task(max_length=6)  # five words and the end
    assert task.check_text("what is the color of") == []
    assert task.check_text("what is the color of zebra") == [
        "The model does not know the word 'zebra'.",
        "The question has 6 words and marks; the model reads the first 5.",
    ]
    assert task.answer(random_features(1), ["what is the color of"]) == task.answer(
        random_features(1), ["what is the color of the barn"]
    )


def test_the_loss_ignores_answers_outside_the_classes() -> None:
    task = make_task(max_answers=2)  # "red" and "brown"
    found = task.collate(ASKED)
    assert found.answers.tolist() == [0, 0, -1, 1]
    loss = task.loss(UnderstandingBatch(random_features(4), tuple("abcd"), found))["vqa/answer"].value.item()
    logits = task._logits(random_features(4), found.ids, found.mask)
    assert loss > 0.1
    assert loss == pytest.approx(F.cross_entropy(logits[[0, 1, 3]], torch.tensor([0, 0, 1])).item())
    none = task.collate(ASKED[2:3])
    assert task.loss(UnderstandingBatch(random_features(1), ("c",), none))["vqa/answer"].value == 0


def test_accuracy_by_type_and_of_the_constant_baseline() -> None:
    task = make_task()
    training = [("t", question) for question in ASKED]
    questions = [
        Question("what is the color of the cow", "red", "color"),
        Question("how many cows are there", "one", "number"),
    ]
    task.answer = lambda features, texts: [[("red", 0.9), ("two", 0.1)] for _ in texts]  # type: ignore[method-assign]
    found = by_key(task.compute_metrics([(random_features(2), ["a", "b"], questions)], training))
    values = {key: metric.value for key, metric in found.items()}
    assert values == {
        "accuracy": 0.5,
        "accuracy/color": 1.0,
        "accuracy/number": 0.0,
        "constant/accuracy": 0.5,
        "constant/accuracy/color": 1.0,
        "constant/accuracy/number": 0.0,  # "two", the commonest of its type
    }


def test_the_baseline_of_an_unseen_type_is_the_most_frequent_answer() -> None:
    task = make_task()
    questions = [Question("where is it", "red", "location")]
    found = by_key(
        task.compute_metrics([(random_features(1), ["a"], questions)], [("t", question) for question in ASKED])
    )
    assert found["constant/accuracy/location"].value == 1.0


def test_examples_are_the_questions_of_a_record() -> None:
    assert Vqa.extract_examples(VqaConfig(), Record("a.png", questions=tuple(ASKED)), lambda: (8, 8)) == tuple(ASKED)
    assert not Vqa.extract_examples(VqaConfig(), Record("a.png"), lambda: (8, 8))


@pytest.mark.parametrize("stored", [["red", "brown"], ["red", "brown", 3], {"red": 0}, "red"])
def test_an_answers_file_that_does_not_fit_is_refused(stored: Any, tmp_path: Path) -> None:
    task = make_task()
    task.write_files(tmp_path)
    (tmp_path / ANSWERS).write_text(json.dumps(stored))
    with pytest.raises(FileError, match="3 answers"):
        make_task().read_files(tmp_path)


def test_a_patch_that_does_not_divide_the_grid_is_refused() -> None:
    with pytest.raises(UsageError, match=r"task\.image\.patch 3 .* 2 x 2"):
        make_task(image={"patch": 3})
