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
from tavq.explore.statistics.codes import NONE
from tavq.explore.statistics.tables import wilson_interval

LOG = "guesses.jsonl"
CHOICES, PATCHES = 4, 6
SECRET = secrets.token_bytes(16)
"""Signs puzzles, so that the server keeps none."""

_lock = threading.Lock()


def make_puzzle(explorer: Explorer, model: ExploredModel, level: str) -> Puzzle:
    """A code with a held-out label, patches of images kept apart, and words to choose from."""
    statistics = model.level(level)
    columns = statistics.columns
    labels = sorted({int(label) for label in columns.held_label if label != NONE})
    codes = np.flatnonzero((columns.held_label != NONE) & (columns.held_images >= 3))
    if len(codes) == 0 or len(labels) < 2:
        raise NotFound(f"Level {level} of {model.id} has too few codes with a label to guess.")
    choice = random.SystemRandom()
    code = int(choice.choice(codes))
    label = int(columns.held_label[code])
    others = choice.sample([other for other in labels if other != label], min(CHOICES, len(labels)) - 1)
    choices = [model.unit("words", word) for word in [label, *others]]
    choice.shuffle(choices)
    places = statistics.locate(statistics.positions[code])
    held = [place for place in places if model.held_out[place[0]]]
    shown = choice.sample(held, min(PATCHES, len(held)))
    return Puzzle(
        puzzle=_sign(level, code, len(choices)), level=statistics.shape.name, code=code,
        tile=code_fields(model, level, code)["tile"], patches=[patch(explorer, model, level, place) for place in shown],
        choices=choices,
    )  # fmt: skip


def _sign(level: str, code: int, choices: int) -> str:
    text = f"{level}:{code}:{choices}"
    return f"{text}:{hmac.new(SECRET, text.encode(), 'sha256').hexdigest()[:32]}"


def check_guess(explorer: Explorer, model: ExploredModel, request: GuessRequest) -> Verdict:
    """Log a guess and say whether it is right."""
    level, _, rest = request.puzzle.partition(":")
    code, _, rest = rest.partition(":")
    choices, _, _ = rest.partition(":")
    known = code.isdigit() and choices.isdigit() and _sign(level, int(code), int(choices))
    if not known or not hmac.compare_digest(str(known).encode(), request.puzzle.encode()):
        raise BadRequest("The puzzle is not one of this server; ask for a new one.")
    statistics = model.check_code(level, int(code))
    answer = model.unit("words", int(statistics.columns.held_label[int(code)]))
    right = answer == request.choice
    line = {
        "time": datetime.now(UTC).isoformat(timespec="seconds"), "model": model.store.manifest.source.model,
        "level": level, "code": int(code), "choice": request.choice, "answer": answer, "right": right,
        "choices": int(choices), "seconds": request.seconds,
    }  # fmt: skip
    with _lock:
        append_json_line(explorer.folder / LOG, line)
    return Verdict(right=right, answer=answer, choice=request.choice, score=show_score(explorer, model))


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
