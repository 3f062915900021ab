"""Pages about tasks that read: what each says of images, beside what is true."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tavq.core.config import build
from tavq.data.folder import FolderDataset
from tavq.evaluation.task import evaluate_task
from tavq.metrics.record import evaluation_as_json
from tavq.recipes.schema import TaskRecipe
from tavq.report.page import write_comparison, write_report
from tavq.report.run import read_run
from tavq.report.task.understanding_sections import render_answers
from tavq.report.task.understanding_view import UnderstandingView, answer_images
from tavq.tasks.masked_words import BLANK, hide_word
from tavq.tasks.model_folder import load_task
from tavq.tasks.samples import Answer, AnsweredImage
from tavq.training.task.tokens import FrozenTokenizer
from tavq.training.task.trainer import TaskTrainer

TRAIN = {"steps": 2, "batch": 4, "log_every": 1, "checkpoint_every": 2}
SIZES = {"layers": 1, "heads": 2, "width": 16, "dropout": 0.0}
TASKS: dict[str, dict[str, Any]] = {
    "vqa": {"language": SIZES, "hidden": 16},
    "captioning": {"language": SIZES, "max_length": 16},
    "grounding": SIZES,
    "masked-words": SIZES,
    "retrieval": {**SIZES, "space": 8},
}


@pytest.fixture(scope="module")
def data(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The images of the other pages, with questions and boxes; the last one has nothing that can be asked."""
    folder = Path(shutil.copytree(runs.data, tmp_path_factory.mktemp("reading") / "images"))
    lines = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
    for line in lines[:-1]:
        colour = line["captions"][0].split()[1]
        line["questions"] = [{"question": "what is the color of the wall", "answer": colour, "type": "color"}]
        line["objects"] = [{"box": [0, 0, 8, 16], "name": "wall", "phrases": [f"the {colour} wall"]}]
    lines[-1]["captions"] = []
    (folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def trained(runs: Any, data: Path) -> Callable[..., Path]:
    """A run folder of each task."""

    def make(name: str, source: str = "codes") -> Path:
        run = data.parent / f"{name}-{source}"
        if not run.exists():
            image = {"source": source, "hidden": 16}
            values = {"task": {"name": name, "image": image, **TASKS[name]}, "train": TRAIN}
            TaskTrainer(build(TaskRecipe, values, "test"), runs.plain, FolderDataset(data, "train"), run).run()
            found = evaluate_task(load_task(run), FolderDataset(data, "test"))
            stored = evaluation_as_json(replace(found, details={"split": "test", "data": "images"}))
            (run / "evaluation.json").write_text(json.dumps(stored))
        return run

    return make


def view(run: Path, data: Path) -> UnderstandingView:
    return answer_images(read_run(run), data, 512, lambda done: None)


def test_answers_stand_beside_the_questions(trained: Callable[..., Path], data: Path) -> None:
    shown = view(trained("vqa"), data)
    assert shown.split == "test"
    [read] = shown.answered  # the other image of the split has no question
    [told] = read.answers
    assert (told.question, told.truth) == ("what is the color of the wall", "red")
    answer = told.answer.split(" (")[0]
    assert answer in ("red", "blue")
    assert told.correct == (answer == "red")
    assert re.fullmatch(r"(red|blue) \(\d+%\)", told.answer)
    assert [image.shape for _, image in read.images] == [(16, 16, 3)]


def test_captions_stand_beside_the_true_ones(trained: Callable[..., Path], data: Path) -> None:
    [read] = view(trained("captioning"), data).answered
    [told] = read.answers
    assert (told.truth, told.correct) == ("A red wall stands beside a grey floor.", None)


def test_a_phrase_has_its_true_box_and_the_found_one(trained: Callable[..., Path], data: Path) -> None:
    [read] = view(trained("grounding"), data).answered
    assert [name for name, _ in read.images] == ["true", "predicted, and attention"]
    true, found = (image for _, image in read.images)
    assert found.shape[1] > 2 * true.shape[1] - 1  # the heat map stands beside it
    assert (true[0, : true.shape[1] // 2] == 255).all()  # the rim of the left half
    [told] = read.answers
    assert told.question == "the red wall"
    assert told.correct == (float(told.answer.removeprefix("IoU ")) > 0.5)
    page = render_answers(view(trained("grounding"), data)) or ""
    assert 'class="answered wide uneven"' in page
    [blind] = view(trained("grounding", "none"), data).answered
    assert [name for name, _ in blind.images] == ["true", "predicted"]


def test_a_gap_is_filled(trained: Callable[..., Path], data: Path) -> None:
    [read] = view(trained("masked-words"), data).answered
    [told] = read.answers
    assert told.truth == "A red wall stands beside a grey floor."
    before, after = told.question.split(BLANK)
    missing = told.truth[len(before) : len(told.truth) - len(after)]
    assert missing in ("red", "wall", "stands", "grey", "floor")
    assert told.answer.startswith(before)
    filled = re.sub(r" \(\d+%\)$", "", told.answer)[len(before) :].removesuffix(after)
    assert told.correct == (filled == missing)


def test_a_image_finds_texts(trained: Callable[..., Path], data: Path) -> None:
    [read] = view(trained("retrieval"), data).answered
    [told] = read.answers
    assert (told.answer, told.correct) == ("A red wall stands beside a grey floor.", True)  # there is no other one
    assert told.question == "1. among 1 texts"


def test_the_missing_word_is_a_content_word_that_is_known() -> None:
    caption = "A red barn, beside the lake."
    found = {hide_word(caption, f"{number}.png", lambda word: word != "red") for number in range(40)}
    assert found == {("A red ___, beside the lake.", "barn"), ("A red barn, beside the ___.", "lake")}
    assert hide_word("beside the", "a", lambda word: True) is None
    assert hide_word(caption, "a", lambda word: False) is None


@pytest.mark.parametrize("name", TASKS)
def test_a_page_has_everything_and_loads_nothing(trained: Callable[..., Path], name: str) -> None:
    page = write_report(trained(name)).read_text()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    for part in ("input of the task", "plain &lt;run&gt;", "examples", "Answers", 'href="#answers"'):
        assert part in page, part
    assert "Generated images" not in page
    assert "Held-out images, evenly spaced over the split" in page
    baseline = "chance" if name == "retrieval" else "constant answer"
    assert baseline in page


def test_a_page_without_its_data_says_so(trained: Callable[..., Path], tmp_path: Path) -> None:
    run = Path(shutil.copytree(trained("vqa"), tmp_path / "vqa"))
    told = json.loads((run / "provenance.json").read_text())
    (run / "provenance.json").write_text(json.dumps({**told, "data_folder": str(tmp_path / "gone")}))
    page = write_report(run).read_text()
    assert "was not found; give it with --data" in page
    assert 'id="answers"' not in page


def test_what_is_seen_is_compared(trained: Callable[..., Path], tmp_path: Path) -> None:
    runs = [trained("grounding"), trained("grounding", "none")]
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    for part in ("plain &lt;run&gt;: codes", "no image at all", "Accuracy at IoU 0.5 ↑", "Mean IoU ↑"):
        assert part in page


def test_nothing_that_is_said_is_markup() -> None:
    images = (("", np.zeros((2, 2, 3), np.uint8)),)
    page = render_answers(
        UnderstandingView("test", (AnsweredImage("<a>", (Answer("<q>", "<s>", "<t>", False),), images),))
    )
    assert page is not None
    assert not re.search("<[aqst]>", page)
    assert "&lt;q&gt;" in page
    assert "true: &lt;t&gt;" in page
    assert render_answers(UnderstandingView("", ())) is None


def test_a_run_keeps_the_name_of_its_tokenizers_folder(runs: Any) -> None:
    device = torch.device("cpu")
    for folder in (runs.plain, runs.plain / "model"):
        assert FrozenTokenizer.load(folder, None, device).name == "plain <run>"
