"""Results files of other programs: read in their published forms, refused where they do not fit."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tavq.core.errors import DataError, FileError
from tavq.metrics.answers import AnswerScores
from tavq.metrics.captions import CaptionScores
from tavq.metrics.grounding import GroundingScores
from tavq.metrics.predictions import Question, Target, look_like_corners, read_answers, read_boxes, read_captions
from tavq.metrics.vqa import vqa_accuracy


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return written


COCO = {"annotations": [{"image_id": 5, "caption": c, "id": i} for i, c in enumerate(("a dog", "the dog"))]}


def test_captions_in_the_forms_of_coco(write: Any) -> None:
    expected = {"5": ("dog", ["a dog", "the dog"])}
    for predictions in (
        [{"image_id": 5, "caption": "dog"}],
        {"5": "dog"},
        {"5": ["dog"]},
        [{"image_id": "5", "caption": "dog"}],
    ):
        for references in (COCO, COCO["annotations"], {"5": ["a dog", "the dog"]}):
            assert read_captions(write("p.json", predictions), write("r.json", references)) == expected


def test_answers_in_the_forms_of_coco_qa_and_vqa(write: Any) -> None:
    given = write("p.json", [{"question_id": 7, "answer": "dog"}])
    typed = [{"question_id": 7, "answer": "cat", "type": "object", "image_id": 5}]
    assert read_answers(given, write("r.json", typed)) == {"7": ("dog", Question("cat", "object", "5"))}
    assert read_answers(given, write("r.json", {"7": "cat"})) == {"7": ("dog", Question("cat", "", None))}
    people = {
        "annotations": [
            {
                "question_id": 7,
                "image_id": 5,
                "question_type": "what",
                "answer_type": "other",
                "multiple_choice_answer": "cat",
                "answers": [{"answer": "cat", "answer_id": n} for n in range(10)],
            }
        ]
    }
    assert read_answers(given, write("r.json", people)) == {"7": ("dog", Question(["cat"] * 10, "other", "5"))}


def test_boxes_in_both_forms(write: Any) -> None:
    given = write("p.json", {"a": [1, 2, 3, 4]})
    truth = write("r.json", [{"id": "a", "box": [10, 20, 31, 42.5], "image_id": "x.jpg"}])
    assert read_boxes(given, truth) == {"a": ([1, 2, 3, 4], Target([10, 20, 31, 42.5], "x.jpg"))}
    assert read_boxes(given, truth, corners=True) == {"a": ([1, 2, 2, 2], Target([10, 20, 21, 22.5], "x.jpg"))}


def test_a_part_is_scored_only_when_asked_for(write: Any) -> None:
    given, known = write("p.json", {"1": "x"}), write("r.json", {"1": ["x"], "2": ["y"]})
    with pytest.raises(DataError, match=r"p\.json lacks 1 of 2 ids of .*r\.json: 2; predict them too, or .* --subset"):
        read_captions(given, known)
    assert read_captions(given, known, subset=True) == {"1": ("x", ["x"])}


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({"1": "x", "9": "y"}, {"1": ["x"]}, r"r\.json lacks 1 of 2 ids of .*p\.json: 9\."),
        ([{"image_id": 1, "caption": "x"}] * 2, {"1": ["x"]}, r"p\.json has '1' twice"),
        ({"1": 5}, {"1": ["x"]}, r"p\.json: the text of '1' is 5; a string"),
        ({"1": ["x", "y"]}, {"1": ["x"]}, r"p\.json: the text of '1' is \['x', 'y'\]; a string"),
        ({"1": "x"}, {"1": []}, r"r\.json: '1' has no caption"),
        ({"1": "x"}, {"1": ["x", ""]}, r"r\.json: the text of '1' is ''"),
        ([{"image_id": 1}], {"1": ["x"]}, r"p\.json: row 0 is \{'image_id': 1\}; it needs 'image_id' and 'caption'"),
        ([{"image_id": 1.5, "caption": "x"}], {"1": ["x"]}, r"1\.5 is not an id"),
        ([{"image_id": True, "caption": "x"}], {"1": ["x"]}, r"True is not an id"),
        ([], {"1": ["x"]}, r"p\.json must hold a list of rows with 'image_id' and 'caption', or a mapping"),
        ("5", {"1": ["x"]}, r"p\.json must hold a list of rows"),
        (["x"], {"1": ["x"]}, r"row 0 is 'x'"),
    ],
)
def test_mismatched_captions_are_refused(write: Any, predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(DataError) as refused:
        read_captions(write("p.json", predictions), write("r.json", references))
    assert re.search(message, str(refused.value)), refused.value


@pytest.mark.parametrize(
    ("predictions", "references", "message"),
    [
        ({"1": "x"}, [{"question_id": 1, "answer": "x"}] * 2, r"r\.json has '1' twice"),
        ({"1": "x"}, [{"question_id": 1, "answer": "x", "type": 3}], r"the type of '1' is 3; a string"),
        ({"1": "x"}, [{"question_id": 1, "answers": []}], r"r\.json: the text of '1' is None"),
        ({"1": "x"}, [{"question_id": 1, "answers": [{"no": 1}]}], r"r\.json: the text of '1' is None"),
        ({"1": "x"}, {"1": ""}, r"r\.json: the text of '1' is ''"),
        ({"1": True}, {"1": "x"}, r"p\.json: the text of '1' is True"),
    ],
)
def test_mismatched_answers_are_refused(write: Any, predictions: Any, references: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        read_answers(write("p.json", predictions), write("r.json", references))


NOTHING = [None, "", []]


@pytest.mark.parametrize("nothing", [*NOTHING, " ", "\n", [""], [None], [" "], [[]]])
def test_a_model_that_says_nothing_is_read(write: Any, nothing: Any) -> None:
    captions = read_captions(write("p.json", {"1": nothing, "2": "x"}), write("r.json", {"1": ["x"], "2": ["x"]}))
    assert captions == {"1": ("", ["x"]), "2": ("x", ["x"])}
    rows = [{"question_id": 1, "answer": nothing}]
    assert read_answers(write("p.json", rows), write("r.json", {"1": "x"}))["1"][0] == ""
    with pytest.raises(DataError, match=r"r\.json: "):
        read_captions(write("p.json", {"1": "x"}), write("r.json", {"1": [nothing]}))
    with pytest.raises(DataError, match=r"r\.json: "):
        read_answers(write("p.json", {"1": "x"}), write("r.json", {"1": nothing}))


@pytest.mark.parametrize("box", [*NOTHING, [math.nan] * 4, [0, 0, math.inf, 1], [0, 0, 1e300, 1], [1, 1, 0, 0]])
@pytest.mark.parametrize("corners", [True, False])
def test_a_model_that_finds_no_box_scores_nothing(write: Any, box: Any, corners: bool) -> None:
    given, known = write("p.json", {"a": box}), write("r.json", {"a": [1, 1, 5, 5]})
    [(found, target)] = read_boxes(given, known, corners=corners).values()
    scores = GroundingScores()
    scores.add("a", found, target.box)
    result = scores.compute()
    assert [metric.value for metric in result["metrics"]] == [0.0, 0.0]
    assert result["boxes_without_area"] == 1
    if box != [1, 1, 0, 0]:
        with pytest.raises(DataError):
            scores.add("b", [0, 0, 1, 1], read_boxes(known, write("r.json", {"a": box}), corners=corners)["a"][1].box)


@pytest.mark.parametrize("box", [[1, 2, 3], [1, 2, 3, "4"], "1234", [1, 2, 3, True], [[1, 2, 3, 4]]])
def test_invalid_boxes_are_refused(write: Any, box: Any) -> None:
    for pair in (({"a": box}, {"a": [1, 2, 3, 4]}), ({"a": [1, 2, 3, 4]}, {"a": box})):
        with pytest.raises(DataError, match=r"the box of 'a' is .*four numbers are needed"):
            read_boxes(write("p.json", pair[0]), write("r.json", pair[1]))


@given(
    st.sampled_from(["", " ", "\t\n"]),
    st.lists(st.sampled_from(["a", "the", "", ",", ".", "yes", "no dog"]), min_size=4, max_size=10),
    st.sampled_from(["a", "the", ",", ",,", ".", "'", "dog", "a, b"]),
)
def test_an_empty_result_scores_0_whatever_the_truth(empty: str, people: list[str], truth: str) -> None:
    """Even where normalizing or tokenizing leaves nothing of the truth either."""
    many, one = AnswerScores(), AnswerScores(lambda answer, truth, threshold: float(answer == truth.strip(",")))
    many.add("1", empty, people)
    one.add("1", empty, truth)
    captions = CaptionScores()
    captions.add("1", empty, [truth])
    captions.add("2", "a dog", ["a dog"])
    for result, each in (
        (many.compute(), "per_question"),
        (one.compute(), "per_question"),
        (captions.compute(), "per_image"),
    ):
        assert max(result[each]["1"].values()) < 1e-9
        assert result.get("empty_answers", result.get("empty_captions")) == 1


def test_files_that_are_not_json_are_named(write: Any, tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"p\.json is not valid JSON"):
        read_captions(write("p.json", "{"), write("r.json", COCO))
    with pytest.raises(FileError, match=r"none\.json"):
        read_captions(tmp_path / "none.json", write("r.json", COCO))


def test_boxes_that_look_like_corners() -> None:
    assert look_like_corners([[1, 2, 3, 4]] * 20)
    assert not look_like_corners([[1, 2, 3, 4]] * 19)
    assert not look_like_corners([[1, 2, 3, 4]] * 20 + [[90, 2, 30, 4]])


def test_a_field_of_another_task_is_not_read_as_the_prediction(write: Any) -> None:
    predictions = write("p.json", [{"question_id": 1, "answer": "red", "caption": "an image"}])
    references = write("r.json", [{"question_id": 1, "answer": "red"}])
    assert read_answers(predictions, references)["1"][0] == "red"


def test_too_few_answers_and_absurd_coordinates_are_refused() -> None:
    with pytest.raises(DataError, match=r"needs the answers of 4 people or more, as the challenge has ten; got 1\."):
        vqa_accuracy("2", ["2"])
    assert vqa_accuracy("2", ["2"] * 4) == 1
    for number in (10**400, 1e200, -1e9):
        with pytest.raises(DataError, match=r"four numbers below 1e\+09 are needed"):
            GroundingScores().add("a", [0, 0, 1, 1], [0, 0, number, 1])
