"""Only the Java tool's score is called METEOR."""

import json
import shutil
import sys
import types
from pathlib import Path
from typing import Any

import pytest
import torch

from tavq.core.errors import FileError
from tavq.metrics import meteor as module
from tavq.metrics.captions import Captioned, CaptionScores
from tavq.metrics.meteor import meteor, meteor_of_counts
from tavq.metrics.record import by_key

# METEOR 1.5 (pycocoevalcap 1.2, -l en -norm): its counts for the six images of test_captions.py, and its scores.
COUNTS = [
    [6, 6, 2, 3, 2, 2, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 3, 5, 5],
    [5, 6, 1, 3, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 3, 3],
    [3, 4, 1, 2, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2],
    [4, 6, 4, 3, 0, 0, 2, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 2, 2],
    [1, 7, 0, 3, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1],
    [13, 7, 7, 4, 3, 3, 4, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 7, 7],
]
SCORES = [0.36512706873895, 0.25737833512566, 0.30573248407643, 0.07407407407407, 0.09090909090909, 0.46815606593925]
CORPUS = 0.2629744943539636
# Its counts and score for "two dogs playing on grass" against "two dogs play in the grass", which has stems.
STEMS = [5, 6, 2, 3, 2, 2, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1, 1, 2, 5, 5]
STEMS_SCORE = 0.39699577301716765

IMAGES = {"1": Captioned("the man rides", ("the man rides a horse", "a rider")), "2": Captioned("sky", ("a kite",))}


def rows(*counts: list[int]) -> torch.Tensor:
    return torch.tensor(counts, dtype=torch.float64)


def test_scores_of_counts_are_those_of_the_tool() -> None:
    assert meteor_of_counts(rows(*COUNTS))[:, 0].tolist() == pytest.approx(SCORES, abs=1e-13)
    assert meteor_of_counts(rows(STEMS)).item() == pytest.approx(STEMS_SCORE, abs=1e-13)
    assert meteor_of_counts(rows(*COUNTS).sum(dim=0, keepdim=True)).item() == pytest.approx(CORPUS, abs=1e-13)
    assert meteor_of_counts(torch.zeros(1, 23, dtype=torch.float64)).item() == 0


@pytest.fixture
def without_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: None)


@pytest.mark.usefixtures("without_the_tool")
def test_without_the_java_tool_the_name_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    no_synonyms = types.SimpleNamespace(synsets=lambda word: [])
    monkeypatch.setattr(module, "open_wordnet", lambda place: no_synonyms)
    result = meteor(IMAGES)
    assert list(by_key(result["metrics"])) == ["meteor_nltk"]
    assert list(result["per_image"]["1"]) == ["meteor_nltk"]
    assert result["tool"] == "nltk.translate.meteor_score"
    # all of 3 words in one run: precision 1, recall 3 / 5, one chunk of three matches
    mean, penalty = 10 * 1 * (3 / 5) / (3 / 5 + 9), 0.5 * (1 / 3) ** 3
    assert result["per_image"]["1"]["meteor_nltk"] == pytest.approx(mean * (1 - penalty))
    assert by_key(result["metrics"])["meteor_nltk"].value == pytest.approx(mean * (1 - penalty) / 2)


@pytest.mark.usefixtures("without_the_tool")
def test_without_tool_and_wordnet_the_error_names_what_is_missing(tmp_path: Path) -> None:
    with pytest.raises(FileError, match=r"WordNet was not found in .*; give a folder with corpora/wordnet"):
        meteor(IMAGES, tmp_path)
    (tmp_path / "corpora/wordnet").mkdir(parents=True)
    with pytest.raises(FileError, match="lacks WordNet's file 'lexnames'"):
        meteor(IMAGES, tmp_path)


def test_java_without_the_package_is_not_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.shutil, "which", lambda name: "java")
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", None)
    monkeypatch.setattr(module, "_nltk", lambda images, place: [0.5, 0.25])
    assert by_key(meteor(IMAGES)["metrics"])["meteor_nltk"].value == 0.375


def test_scores_are_computed_from_the_counts_of_the_tool(monkeypatch: pytest.MonkeyPatch) -> None:
    class Pipe:
        def close(self) -> None:
            pass

        wait = close

    class Tool:
        def __init__(self) -> None:
            self.meteor_p: Any = Pipe()
            self.meteor_p.stdin = self.meteor_p.stdout = self.meteor_p.stderr = Pipe()

        def _stat(self, caption: str, references: list[str]) -> str:
            return " ".join(f"{count}.0" for count in COUNTS[0 if caption == "the man rides" else 4])

    monkeypatch.setattr(module.shutil, "which", lambda name: "java")
    monkeypatch.setitem(sys.modules, "pycocoevalcap.meteor.meteor", types.SimpleNamespace(Meteor=Tool))  # type: ignore[arg-type]
    result = meteor(IMAGES)
    assert result["per_image"] == {
        "1": {"METEOR": pytest.approx(SCORES[0])},
        "2": {"METEOR": pytest.approx(SCORES[4])},
    }
    assert list(by_key(result["metrics"])) == ["METEOR"]


@pytest.mark.real_data
def test_the_reference_case_by_the_tool_itself(real_data: Path) -> None:
    pytest.importorskip("pycocoevalcap")
    if not shutil.which("java"):
        pytest.skip("no Java")
    case = json.loads((real_data / "caption_scores/fakecap_val2017_overlap.json").read_text())
    keys = [str(number) for number in case["image_ids"]]
    scores = CaptionScores()
    for key in keys:
        scores.add(key, case["hypotheses"][key], case["references"][key])
    result = meteor(scores.tokenized())
    assert by_key(result["metrics"])["METEOR"].value == pytest.approx(case["scores"]["METEOR"], abs=1e-9)
    each = [result["per_image"][key]["METEOR"] for key in keys]
    assert each == pytest.approx(case["per_image"]["METEOR"], abs=1e-9)
