"""`tavq metrics` on files of predictions: a table, metrics in JSON, one line for what does not fit."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import nltk
import pytest

from tavq.metrics.wordnet import open_wordnet

Tavq = Callable[..., Any]


@pytest.fixture(autouse=True)
def _neither_java_nor_wordnet(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "which", lambda name: None)
    monkeypatch.setattr(nltk.data, "path", [])
    open_wordnet.cache_clear()


@pytest.fixture
def write(tmp_path: Path) -> Any:
    def written(name: str, content: Any) -> Path:
        path = tmp_path / name
        path.write_text(json.dumps(content))
        return path

    return written


COCO = {
    "annotations": [
        {"image_id": number, "caption": caption}
        for number, captions in enumerate(
            (("A dog runs.", "The dog is fast."), ("Two cats", "Cats sit here, (asleep)"))
        )
        for caption in captions
    ]
}


def test_captions(tavq: Tavq, write: Any, tmp_path: Path) -> None:
    predictions = write("p.json", [{"image_id": 0, "caption": "a dog runs"}, {"image_id": 1, "caption": "..."}])
    references, out = write("r.json", COCO), tmp_path / "out.json"
    done = tavq("metrics", "captions", "--predictions", predictions, "--references", references, "--json", out)
    assert done.code == 0, done.err
    assert "2 captions against 4 references" in done.out
    assert [name for name in ("BLEU-1", "BLEU-4", "ROUGE-L", "CIDEr-D") if name not in done.out] == []
    assert "METEOR" not in done.out
    assert "METEOR is left out: Java and the package pycocoevalcap are not both installed" in done.err
    assert "1 captions consist of punctuation only and score 0" in done.err
    found = json.loads(out.read_text())
    assert found["per_image"]["0"]["ROUGE-L"] == 1
    rouge = found["metrics"]["ROUGE-L"]
    assert (rouge["value"], rouge["interval"]) == (0.5, [0, 1])
    assert (found["images"], found["references"], found["tokenizer"]) == (2, 4, "tavq-ptb-1")
    assert found["intervals"]["resamples"] == 1000
    assert found["meteor"] is None
    assert {"tavq", "numpy", "torch", "nltk"} <= found["versions"].keys()
    assert len(found["sources"]["predictions"]["sha256"]) == 64


def test_answers_by_type(tavq: Tavq, write: Any, tmp_path: Path) -> None:
    truths = [{"question_id": n, "answer": "red", "type": "color" if n else "object", "image_id": n} for n in range(3)]
    predictions, references = write("p.json", {"0": "blue", "1": "Red", "2": "red"}), write("r.json", truths)
    out = tmp_path / "out.json"
    done = tavq("metrics", "vqa", "--predictions", predictions, "--references", references, "--json", out)
    assert done.code == 0, done.err
    assert "WUPS is left out: WordNet was not found" in done.err
    found = json.loads(out.read_text())
    assert {key: (metric["value"], metric["count"]) for key, metric in found["metrics"].items()} == {
        "accuracy": (pytest.approx(2 / 3), 3),
        "accuracy/color": (1, 2),
        "accuracy/object": (0, 1),
    }
    assert [line.split("│")[1].strip() for line in done.out.splitlines() if line.startswith("│")] == [
        "Accuracy ↑",
        "Accuracy: color ↑",
        "Accuracy: object ↑",
    ]


def test_answers_of_ten_people(tavq: Tavq, write: Any, tmp_path: Path) -> None:
    people = [{"answer": "yes" if n < 2 else "no", "answer_id": n} for n in range(10)]
    rows = [{"question_id": 1, "image_id": 1, "answer_type": "yes/no", "answers": people}]
    predictions, references = write("p.json", {"1": "Yes!"}), write("r.json", {"annotations": rows})
    out = tmp_path / "out.json"
    done = tavq("metrics", "vqa", "--predictions", predictions, "--references", references, "--json", out)
    assert done.code == 0, done.err
    assert "WUPS" not in done.err
    assert json.loads(out.read_text())["metrics"]["vqa_accuracy/yes/no"]["value"] == pytest.approx(0.6)


def test_boxes(tavq: Tavq, write: Any, tmp_path: Path) -> None:
    truths = [{"id": n, "box": [n, n, n + 10, n + 10], "image_id": n} for n in range(20)]
    given = [{"id": n, "box": [n, n, n + 10, n + 10 if n else n]} for n in range(20)]
    files = ("--predictions", write("p.json", given), "--references", write("r.json", truths))
    out = tmp_path / "out.json"
    done = tavq("metrics", "grounding", *files, "--corners", "--json", out)
    assert done.code == 0, done.err
    assert json.loads(out.read_text())["metrics"]["accuracy@0.5"]["value"] == 19 / 20
    assert "1 boxes are missing or have no area and count as wrong" in done.err
    assert "--corners" not in done.err
    done = tavq("metrics", "grounding", *files)
    assert "could be [x1, y1, x2, y2]; if so, score again with --corners" in done.err


def test_a_model_that_says_nothing_scores_0_and_is_counted(tavq: Tavq, write: Any, tmp_path: Path) -> None:
    out = tmp_path / "out.json"
    for command, field, counted in (("captions", "caption", "empty_captions"), ("vqa", "answer", "empty_answers")):
        name = "image_id" if command == "captions" else "question_id"
        given = write("p.json", [{name: 0, field: ""}, {name: 1, field: None}, {name: 2, field: "a dog"}])
        truths = write("r.json", [{name: number, field: "a dog"} for number in range(3)])
        done = tavq("metrics", command, "--predictions", given, "--references", truths, "--json", out)
        assert done.code == 0, done.err
        assert f"2 {field}s are empty and score 0." in done.err
        found = json.loads(out.read_text())
        assert found[counted] == 2
        each = found["per_image"] if command == "captions" else found["per_question"]
        assert all(max(each[key].values()) < 1e-9 < max(each["2"].values()) for key in "01")


@pytest.mark.parametrize(
    ("command", "content", "message"),
    [
        ("captions", {"0": "dog"}, "lacks 1 of 2 ids of"),
        ("captions", {"0": "dog", "1": 5, "2": "x"}, "the text of '1' is 5"),
        ("captions", {"0": "dog", "1": "x", "2": "x"}, "lacks 1 of 3 ids of"),
        ("captions", [{"image_id": 0, "caption": "x"}] * 2, "has '0' twice"),
        ("vqa", {"0": "dog"}, "it needs 'question_id' and 'answer'"),
        ("grounding", {"0": "dog"}, "the box of '0' is 'dog'"),
    ],
)
def test_what_does_not_fit_is_one_line(tavq: Tavq, write: Any, command: str, content: Any, message: str) -> None:
    predictions, references = write("p.json", content), write("r.json", COCO)
    done = tavq("metrics", command, "--predictions", predictions, "--references", references)
    assert done.code == 1
    assert message in done.err
    assert done.err.startswith("tavq: ")
    assert len(done.err.splitlines()) == 1
    assert done.out == ""


def test_wrong_calls(tavq: Tavq, write: Any, tmp_path: Path) -> None:
    predictions, references = write("p.json", {"0": "dog", "1": "cat"}), write("r.json", COCO)
    assert tavq("metrics", "captions", "--predictions", predictions).code == 2
    assert tavq("metrics", "caption").code == 2
    files = ("--predictions", predictions, "--references", references)
    assert tavq("metrics", "captions", "--predictions", tmp_path / "none", "--references", references).code == 1
    done = tavq("metrics", "captions", *files, "--nltk-data", tmp_path)
    assert done.code == 1
    assert "WordNet was not found in" in done.err
