"""Routes of edits, questions to tasks, and the guessing game."""

from typing import Annotated

from fastapi import APIRouter, Path

from tavq.explore.answers.base import Level
from tavq.explore.answers.edits import EditResult, GameScore, Puzzle, TaskReply, Verdict
from tavq.explore.pages.asking import ask_task
from tavq.explore.pages.editing import edit_image, open_share
from tavq.explore.pages.game import check_guess, make_puzzle, show_score
from tavq.explore.requests import MAX_SHARE, EditRequest, GuessRequest, QuestionRequest, ShareRequest
from tavq.explore.server.asked import Model, Shown

router = APIRouter()


@router.post("/models/{model}/edits")
def edit(explorer: Shown, model: Model, request: EditRequest) -> EditResult:
    """Change codes of an image and decode it."""
    return edit_image(explorer, model, request)


@router.post("/edits/open")
def open_edit(explorer: Shown, request: ShareRequest) -> EditResult:
    """The edit that a share string holds."""
    return open_share(explorer, request.share)


@router.post("/edits/ask")
def ask(explorer: Shown, request: QuestionRequest) -> TaskReply:
    """Ask a task about an image before and after an edit."""
    return ask_task(explorer, request)


@router.get("/edits/{share}")
def shared_edit(explorer: Shown, share: Annotated[str, Path(max_length=MAX_SHARE)]) -> EditResult:
    """The edit that a share string holds."""
    return open_share(explorer, share)


@router.get("/models/{model}/game")
def puzzle(explorer: Shown, model: Model, level: Level = "deep") -> Puzzle:
    """A code whose word is to be guessed."""
    return make_puzzle(explorer, model, level)


@router.post("/models/{model}/game")
def guess(explorer: Shown, model: Model, request: GuessRequest) -> Verdict:
    """Log a guess, and say whether it is right."""
    return check_guess(explorer, model, request)


@router.get("/models/{model}/game/score")
def score(explorer: Shown, model: Model) -> GameScore:
    """The guesses that were logged."""
    return show_score(explorer, model)
