"""The guessing game: what is asked, what is logged, and what counts."""

import json
from typing import Any

from starlette.testclient import TestClient

from tavq.explore.explorer import Explorer
from tavq.explore.pages.game import LOG

from .conftest import API, get


def test_guesses_are_logged_and_cannot_be_made_up(client: TestClient, explorer: Explorer) -> None:
    puzzle = get(client, "/models/plain/game")
    assert len(puzzle["choices"]) in (2, 3)  # as many as there are labels
    assert all(explorer.models[0].held_out[int(patch["image"])] for patch in puzzle["patches"])
    held = explorer.models[0].levels["deep"].columns.held_label[puzzle["code"]]
    answer = explorer.models[0].unit("words", int(held))
    body = {"puzzle": puzzle["puzzle"], "choice": answer, "seconds": 2.5}
    verdict = client.post(f"{API}/models/plain/game", json=body).json()
    assert verdict["right"]
    assert verdict["score"]["guesses"] == verdict["score"]["right"] == 1
    again = client.post(f"{API}/models/plain/game", json={**body, "choice": _other(puzzle, answer)}).json()
    assert again == verdict  # of a puzzle the first guess counts
    puzzle = get(client, "/models/plain/game")
    label = int(explorer.models[0].levels["deep"].columns.label[puzzle["code"]])
    other = _other(puzzle, explorer.models[0].unit("words", label))
    wrong = client.post(f"{API}/models/plain/game", json={"puzzle": puzzle["puzzle"], "choice": other}).json()
    assert not wrong["right"]
    unasked = client.post(f"{API}/models/plain/game", json={"puzzle": puzzle["puzzle"], "choice": "no such"})
    assert unasked.status_code == 400
    assert "one of those offered" in unasked.json()["error"]["message"]
    assert get(client, "/models/plain/game/score")["guesses"] == 2
    assert get(client, "/models/aligned/game/score")["guesses"] == 0
    lines = (explorer.folder / LOG).read_text().splitlines()
    assert [json.loads(line)["right"] for line in lines] == [True, False]
    forged = client.post(f"{API}/models/plain/game", json={**body, "puzzle": puzzle["puzzle"].replace("deep", "low")})
    assert forged.status_code == 400
    assert client.post(f"{API}/models/aligned/game", json=body).status_code == 400  # of another model


def _other(puzzle: Any, answer: str) -> str:
    return next(choice for choice in puzzle["choices"] if choice != answer)
