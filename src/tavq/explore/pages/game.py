"""A guessing game: which word goes with a code, by its patches on images that were kept apart; guesses are logged."""

import hmac
import random
import secrets
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from tavq.core.files import append_json_line, read_json_lines
from tavq.explore.answers.edits import GameScore, Puzzle, Verdict
from tavq.explore.errors import BadRequest, NotFound
from tavq.explore.explorer import Explorer
from tavq.explore.model import ExploredModel
from tavq.explore.pages.links import code_fields, patch
from tavq.explore.requests import GuessRequest
from tavq.explore.statistics.tables import wilson_interval

LOG = "guesses.jsonl"
CHOICES, PATCHES = 4, 6
SECRET = secrets.token_bytes(16)
"""Signs puzzles, so that the server keeps none."""

_lock = threading.Lock()
_guesses: dict[str, str] = {}
"""The guess that was logged for each puzzle."""


def make_puzzle(explorer: Explorer, model: ExploredModel, level: str) -> Puzzle:
    """A code with a held-out label, patches of images kept apart, and words to choose from."""
    statistics = model.level(level)
    columns = statistics.columns
    tested = np.isfinite(columns.held_lift)
    labels = np.unique(columns.label[tested]).tolist()
    codes = np.flatnonzero(tested & (columns.held_images >= 3))
    if len(codes) == 0 or len(labels) < 2:
        raise NotFound(f"Level {level} of {model.id} has too few codes with a label to guess.")
    choice = random.SystemRandom()
    code = int(choice.choice(codes))
    label = int(columns.label[code])
    others = choice.sample([other for other in labels if other != label], min(CHOICES, len(labels)) - 1)
    offered = choice.sample([label, *others], len(others) + 1)
    places = statistics.locate(statistics.positions[code])
    held = [place for place in places if model.held_out[place[0]]]
    shown = choice.sample(held, min(PATCHES, len(held)))
    return Puzzle(
        puzzle=_sign(model, level, code, offered), level=statistics.shape.name, code=code,
        tile=code_fields(model, level, code)["tile"], patches=[patch(explorer, model, level, place) for place in shown],
        choices=[model.unit("words", word) for word in offered],
    )  # fmt: skip


def _sign(model: ExploredModel, level: str, code: int, offered: list[int]) -> str:
    text = f"{level}:{code}:{','.join(map(str, offered))}:{secrets.token_hex(8)}"
    return f"{text}:{_signature(model, text)}"


def _signature(model: ExploredModel, text: str) -> str:
    signed = f"{model.store.manifest.source.model}:{text}"
    return hmac.new(SECRET, signed.encode(), "sha256").hexdigest()[:32]


def _read_puzzle(model: ExploredModel, puzzle: str) -> tuple[str, int, list[int]]:
    """Level, code and the words that were offered; BadRequest unless this server made the puzzle of this model."""
    text, _, signature = puzzle.rpartition(":")
    if not hmac.compare_digest(_signature(model, text).encode(), signature.encode()):
        raise BadRequest("The puzzle is not one of this server; ask for a new one.")
    level, code, offered, _ = text.split(":")
    return level, int(code), [int(word) for word in offered.split(",")]


def check_guess(explorer: Explorer, model: ExploredModel, request: GuessRequest) -> Verdict:
    """Say whether a guess is right, and log it; of a puzzle the first guess counts, whatever is sent again."""
    level, code, offered = _read_puzzle(model, request.puzzle)
    choices = [model.unit("words", word) for word in offered]
    if request.choice not in choices:
        raise BadRequest(f"The choice must be one of those offered: {', '.join(choices)}; got {request.choice!r:.80}.")
    answer = model.unit("words", int(model.check_code(level, code).columns.label[code]))
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "model": model.store.manifest.source.model,
        "level": level, "code": code, "choice": request.choice, "answer": answer, "right": answer == request.choice,
        "choices": len(choices), "seconds": request.seconds,
    }  # fmt: skip
    with _lock:
        counted = _guesses.get(request.puzzle)
        if counted is None:
            append_json_line(explorer.folder / LOG, line)
            counted = _guesses[request.puzzle] = request.choice
    return Verdict(right=answer == counted, answer=answer, choice=counted, score=show_score(explorer, model))


def show_score(explorer: Explorer, model: ExploredModel) -> GameScore:
    """The guesses about a model that were logged."""
    guesses = [line for line in _read(explorer.folder / LOG) if line.get("model") == model.store.manifest.source.model]
    right = sum(line.get("right") is True for line in guesses)
    counts = [line["choices"] for line in guesses if isinstance(line.get("choices"), int) and line["choices"] > 0]
    chance = sum(1 / count for count in counts) / len(counts) if counts else 1 / CHOICES
    interval = wilson_interval(right, len(guesses)) if guesses else None
    return GameScore(model=model.id, guesses=len(guesses), right=right, chance=chance, interval=interval, log=LOG)


def _read(path: Path) -> list[dict[str, Any]]:
    with _lock:
        lines = read_json_lines(path) if path.is_file() else []
        return [line for line in lines if isinstance(line, dict)]
