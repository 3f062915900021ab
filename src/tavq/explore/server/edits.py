"""Routes of edits, questions to tasks, and the guessing game."""

from typing import Annotated

from fastapi import APIRouter, Path, Response

from tavq.explore.answers.base import Level
from tavq.explore.answers.edits import EditResult, GameScore, Puzzle, TaskReply, Verdict
from tavq.explore.pages.asking import ask_task
from tavq.explore.pages.editing import edit_image, open_share
from tavq.explore.pages.game import check_guess, make_puzzle, show_score
from tavq.explore.requests import MAX_SHARE, EditRequest, GuessRequest, QuestionRequest, ShareRequest
from tavq.explore.server.asked import Model, Shown
from tavq.explore.server.lanes import EDITS

router = APIRouter()


@router.post("/models/{model}/edits", response_model=EditResult)
async def edit(explorer: Shown, model: Model, request: EditRequest) -> Response:
    """Change codes of an image and decode it."""
    return await EDITS.answer(lambda: edit_image(explorer, model, request))


@router.post("/edits/open", response_model=EditResult)
async def open_edit(explorer: Shown, request: ShareRequest) -> Response:
    """The edit that a share string holds."""
    return await EDITS.answer(lambda: open_share(explorer, request.share))


@router.post("/edits/ask", response_model=TaskReply)
async def ask(explorer: Shown, request: QuestionRequest) -> Response:
    """Ask a task about an image before and after an edit."""
    return await EDITS.answer(lambda: ask_task(explorer, request))


@router.get("/edits/{share}", response_model=EditResult)
async def shared_edit(explorer: Shown, share: Annotated[str, Path(max_length=MAX_SHARE)]) -> Response:
    """The edit that a share string holds."""
    return await EDITS.answer(lambda: open_share(explorer, share))


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
