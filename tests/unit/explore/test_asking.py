"""Tasks asked again after an edit: what a trained task says follows the codes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from starlette.testclient import TestClient
from torch import Tensor

import tavq
from tavq.data.records import Question
from tavq.explore.server.app import make_api
from tavq.interfaces import sum_losses
from tavq.model_folder import read_model_config
from tavq.tasks.base import TokenLayout, tasks
from tavq.tasks.model_folder import TaskConfig, save_task
from tavq.tasks.understanding import UnderstandingBatch, lookup_quantized
from tavq.tokenizer import Tokenizer

from .conftest import COLOURS, SIZE

ASK = "/api/v1/edits/ask"
STEPS = 150
SMALL = {"layers": 1, "heads": 2, "width": 16, "dropout": 0.0}
QUESTION, CAPTION = "What color is the wall?", "A ___ wall next to a ___ floor."


def train(
    name: str,
    folder: Path,
    tokenizer: Tokenizer,
    images: Tensor,
    examples: Sequence[Any],
    steps: int = STEPS,
    of: str | None = None,
    **own: Any,
) -> Path:
    """A tiny task trained on the codes of images, each with one example, in its model folder; `of` is its tokenizer."""
    tokens = tokenizer.encode(images)
    layout = TokenLayout(height=tokens.shape[1], width=tokens.shape[2], sizes=tuple(tokenizer.codebook.sizes))
    features = lookup_quantized(tokenizer, layout, layout.to_tokens(tokens))
    settings = {"name": name, "max_length": 12, "image": {"hidden": 16}, **own}
    resolved = tasks[name].resolve_config(tasks[name].Config.model_validate(settings), layout, examples)
    config = TaskConfig(task=resolved.model_dump(), layout=layout, feature_width=features.shape[2])
    torch.manual_seed(0)
    task: Any = config.make()
    task.prepare(examples)
    task.adapter.fit(features)
    batch = UnderstandingBatch(features, tuple(map(str, range(len(images)))), task.collate(examples))
    optimizer = torch.optim.Adam(task.parameters(), 0.01)
    for _ in range(steps):
        optimizer.zero_grad()
        sum_losses(task.loss(batch)).backward()
        optimizer.step()
    save_task(folder, config, task.eval(), tokenizer, None, "", {"size": SIZE, "tokenizer": of})
    return folder


@pytest.fixture(scope="module")
def client(data: Path, plain: Path, pixels: Tensor, stores: Path, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A server of `plain` with a task of questions and one of missing words, and with one that reads no image."""
    folder = tmp_path_factory.mktemp("tasks")
    tokenizer = Tokenizer.from_pretrained(plain)
    colours = [list(COLOURS)[number % 3] for number in range(len(pixels))]
    questions = [Question(QUESTION, colour, "color") for colour in colours]
    captions = [f"A {colour} wall next to a grey floor." for colour in colours]
    models = [
        train("vqa", folder / "vqa", tokenizer, pixels, questions, language=SMALL, hidden=16),
        train("masked-words", folder / "masked-words", tokenizer, pixels, captions, **SMALL),
    ]
    return TestClient(make_api(tavq.open_explorer([plain, *models], data=data, store=stores)))


def edit_colour(client: TestClient, image: int, other: int) -> str:
    """The share string of an image that got the codes of another one."""
    info = client.get("/api/v1/overview").json()["models"][0]
    level = info["levels"][-1]
    copy = {"op": "copy", "image": str(other), "row": 0, "column": 0, "height": level["height"],
            "width": level["width"], "to_row": 0, "to_column": 0}  # fmt: skip
    answer = client.post(f"/api/v1/models/{info['id']}/edits", json={"image": str(image), "operations": [copy]})
    assert answer.status_code == 200, answer.text
    return answer.json()["share"]


@pytest.mark.parametrize(("task", "question", "gaps"), [("vqa", QUESTION, {None}), ("masked-words", CAPTION, {0, 1})])
def test_an_answer_follows_the_codes(client: TestClient, task: str, question: str, gaps: set[int | None]) -> None:
    red, blue = 0, 1
    body = {"share": edit_colour(client, red, blue), "task": task, "question": question}
    reply = client.post(ASK, json=body).json()
    assert [reply[side][0]["text"] for side in ("before", "after")] == ["red", "blue"]
    assert {text["gap"] for text in reply["after"]} == gaps
    assert all(0 <= text["probability"] <= 1 for text in reply["after"])
    if task == "masked-words":
        second = [next(text["text"] for text in reply[side] if text["gap"] == 1) for side in ("before", "after")]
        assert second == ["grey", "grey"]


def test_a_question_is_needed_and_what_is_not_known_is_said(client: TestClient) -> None:
    share = edit_colour(client, 0, 1)
    for task in ("vqa", "masked-words"):
        refused = client.post(ASK, json={"share": share, "task": task, "question": " "})
        assert refused.status_code == 400
        assert "needs a question" in refused.json()["error"]["message"]
    reply = client.post(ASK, json={"share": share, "task": "vqa", "question": "What zebra is the wall?"}).json()
    assert any("zebra" in note for note in reply["notes"])
    no_gap = client.post(ASK, json={"share": share, "task": "masked-words", "question": "A red wall."})
    assert no_gap.status_code == 400


def test_a_task_joins_its_tokenizer_with_the_aligner(
    data: Path, aligned: Path, pixels: Tensor, stores: Path, tmp_path: Path
) -> None:
    tokenizer = Tokenizer.from_pretrained(aligned)
    captions, sha256 = [CAPTION] * len(pixels), str(read_model_config(aligned)["sha256"])
    task = train("masked-words", tmp_path / "task", tokenizer.without_alignment(), pixels, captions, 0, sha256, **SMALL)
    [model] = tavq.open_explorer([task, aligned], data=data, store=stores).models
    assert model.scores_text
    assert list(model.sources.tasks) == ["masked-words"]
    [alone] = tavq.open_explorer([task], data=data, store=stores).models
    assert [part.reason for part in alone.missing] == ["A task keeps its tokenizer without aligner."]
