"""What tasks say of an image before and after an edit: captions, answers, missing words, completions."""

from collections.abc import Callable
from typing import get_args

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.explore.answers.base import Missing
from tavq.explore.answers.edits import TaskReply, TaskText
from tavq.explore.edits import Codes
from tavq.explore.errors import BadRequest, NotFound
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.pages.editing import read_share
from tavq.explore.pixels import as_uri, encode
from tavq.explore.requests import Mask, QuestionRequest
from tavq.inspection.pixels import as_bytes
from tavq.tasks.base import Prompt, Sampling
from tavq.tasks.completion import check_completion, hidden_tokens, named_mask
from tavq.tasks.model_folder import TaskModel
from tavq.tasks.understanding import lookup_quantized

SHOWN = 5
"""Answers, and words of a gap."""

UNCHANGED = {"features": "the encoder's features", "none": "no image"}
"""What tasks read of an image that no edit changes, by the source in their settings."""

Features = Float[Tensor, "1 n d"]


def ask_task(explorer: Explorer, request: QuestionRequest) -> TaskReply:
    """Ask a task of the edit's model about the image before and after the edit."""
    model, _, before, after = read_share(explorer, request.share)
    if request.task not in model.sources.tasks:
        known = ", ".join(sorted(model.sources.tasks)) or "none"
        raise NotFound(f"No task {request.task!r} on {model.id}; there are: {known}. Add its model to the command.")
    task = model.sources.tasks[request.task]
    if "complete" in task.task.commands:
        return _complete(model, task, request, before, after)
    asked = next((ask for command, ask in ASKED.items() if command in task.task.commands), None)
    if asked is None:
        raise BadRequest(f"The task {request.task!r} says nothing of an image; captioning, vqa and masked-words do.")
    return _ask(model, task, request, [before, after], asked)


def list_askable(model: ExploredModel) -> list[str]:
    """The names of the tasks of a model that can be asked about an edited image."""
    answering = {name for name, each in model.sources.tasks.items() if each.task.commands & ASKED.keys()}
    return sorted(answering | list_masks(model).keys())


def list_masks(model: ExploredModel) -> dict[str, list[str]]:
    """The hidden parts that each task can complete, of those that can complete any."""
    found = {}
    for name, task in model.sources.tasks.items():
        if masks := [mask for mask in get_args(Mask) if _completes(task, mask)]:
            found[name] = masks
    return found


def _completes(task: TaskModel, mask: str) -> bool:
    if "complete" not in task.task.commands:
        return False
    try:
        check_completion(task, _kept_tokens(task, mask))
    except UsageError:
        return False
    return True


def _kept_tokens(task: TaskModel, mask: str) -> Bool[Tensor, "1 n"]:
    return ~hidden_tokens(named_mask(mask, task.size)[None], task.config.layout)


def _ask(
    model: ExploredModel,
    task: TaskModel,
    request: QuestionRequest,
    grids: list[Codes],
    asked: Callable[[TaskModel, Features, QuestionRequest], list[TaskText]],
) -> TaskReply:
    missing, notes = [], []
    source = task.config.task.image.source
    if source != "codes":
        reason = f"The task reads {UNCHANGED[source]} and not the codes, so it cannot see an edit."
        missing.append(Missing(part="task", reason=reason))
        texts: list[list[TaskText]] = [[], []]
    else:
        if asked is not _caption:
            notes = list(task.task.check_text(_question_of(request)))
        layout = task.config.layout
        indices = [model.to_indices(grid) for grid in grids]
        with model.working():
            features = [lookup_quantized(task.tokenizer, layout, layout.to_tokens(own)) for own in indices]
            texts = [asked(task, own, request) for own in features]
    return TaskReply(
        task=request.task, question=request.question, before=texts[0], after=texts[1], before_images=[],
        after_images=[], notes=notes, missing=missing,
    )  # fmt: skip


def _question_of(request: QuestionRequest) -> str:
    if not request.question or not request.question.strip():
        raise BadRequest(
            f"The task {request.task!r} needs a question; for masked-words a caption with ___ for each gap."
        )
    return request.question


def _caption(task: TaskModel, features: Features, request: QuestionRequest) -> list[TaskText]:
    [captions] = task.task.caption(features, None, 1, request.seed, ["image"])
    return [TaskText(text=text) for text in captions]


def _answer(task: TaskModel, features: Features, request: QuestionRequest) -> list[TaskText]:
    [answers] = task.task.answer(features, [_question_of(request)])
    return [TaskText(text=text, probability=probability) for text, probability in answers[:SHOWN]]


def _fill(task: TaskModel, features: Features, request: QuestionRequest) -> list[TaskText]:
    [gaps] = task.task.fill(features, [_question_of(request)])
    return [
        TaskText(text=text, probability=probability, gap=number)
        for number, words in enumerate(gaps)
        for text, probability in words[:SHOWN]
    ]


ASKED = {"caption": _caption, "ask": _answer, "fill": _fill}
"""How a task answers in texts, by its command."""


def _complete(
    model: ExploredModel, task: TaskModel, request: QuestionRequest, before: Codes, after: Codes
) -> TaskReply:
    layout = task.config.layout
    keep = _kept_tokens(task, request.mask).to(model.device)
    images = []
    try:
        check_completion(task, keep)
    except UsageError as error:
        raise BadRequest(str(error)) from error
    for codes in (before, after):
        known = layout.to_tokens(model.to_indices(codes))
        generator = torch.Generator(model.device).manual_seed(request.seed)
        with model.working():
            tokens = task.task.sample(Prompt(1, known, keep), Sampling(), generator)
            images.append(as_uri(encode(as_bytes(task.decode(tokens, layout)[0]))))
    return TaskReply(
        task=request.task, question=request.mask, before=[], after=[], before_images=images[:1],
        after_images=images[1:], notes=[], missing=[],
    )  # fmt: skip
