"""`tavq explore` by command: exports, the server as a process of its own, tasks after an edit, and wrong calls."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]

SMALL = "--task.layers 1 --task.heads 2 --task.width 16 --train.steps 2 --train.batch 4"


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the tests keep stores."""
    return tmp_path_factory.mktemp("stores")


def test_a_bundle_of_two_models(tavq: Tavq, home: Path, stores: Path, tmp_path: Path) -> None:
    done = tavq("explore", home / "plain", home / "aligned", "--data", home / "data", "--store", stores, "--export",
                tmp_path / "part.json")  # fmt: skip
    assert done.code == 0, done.err
    bundle = json.loads((tmp_path / "part.json").read_text())
    assert [model["id"] for model in bundle["answers"]["/api/v1/overview"]["models"]] == ["plain", "aligned"]
    assert (tmp_path / "part.json").stat().st_size < 20_000_000


def test_the_server_answers_its_address_and_ends(home: Path, stores: Path) -> None:
    command = [sys.executable, "-m", "tavq", "explore", home / "plain", "--data", home / "data", "--store", stores]
    source = str(Path(__file__).parents[2] / "src")
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": source}) as run:
        assert run.stderr is not None
        try:
            lines = iter(run.stderr.readline, "")
            address = next(
                found[0] for line in lines if (found := re.search(r"http://127\.0\.0\.1:\d+/\?token=\S+", line))
            )
            base, _, token = address.partition("/?token=")
            request = urllib.request.Request(f"{base}/api/v1/overview", headers={"X-Tavq-Token": token})
            with urllib.request.urlopen(request, timeout=60) as answer:
                assert json.load(answer)["models"][0]["id"] == "plain"
            with pytest.raises(urllib.error.HTTPError, match="403"):
                urllib.request.urlopen(f"{base}/api/v1/overview", timeout=60)
        finally:
            run.send_signal(signal.SIGINT)
            run.stderr.read()
    assert run.returncode == 0


def test_tasks_are_asked_after_an_edit(tavq: Tavq, home: Path, stores: Path, tmp_path: Path) -> None:
    from starlette.testclient import TestClient

    import tavq as package
    from tavq.explore.server.app import make_api

    for recipe, name in (("captioning-tiny", "captions"), ("unconditional-tiny", "prior")):
        small = SMALL.split() if name == "prior" else ["--train.steps", "2", "--train.batch", "4"]
        done = tavq("task", "train", recipe, "--tokenizer", home / "plain", "--data", home / "data", "--out",
                    tmp_path / name, *small)  # fmt: skip
        assert done.code == 0, done.err
    explorer = package.open_explorer([tmp_path / "captions", tmp_path / "prior"], data=home / "data", store=stores)
    assert [sorted(model.sources.tasks) for model in explorer.models] == [["captioning", "prior"]]
    client = TestClient(make_api(explorer))
    base = f"/api/v1/models/{explorer.models[0].id}"
    [model] = client.get("/api/v1/overview").json()["models"]
    assert (model["tasks"], model["masks"]) == (["captioning", "prior"], {"prior": ["bottom"]})
    body = {"image": "0", "operations": [{"op": "replace", "code": 0, "by": 1}]}
    share = client.post(f"{base}/edits", json=body).json()["share"]
    reply = client.post("/api/v1/edits/ask", json={"share": share, "task": "captioning"}).json()
    assert [len(reply[side]) for side in ("before", "after")] == [1, 1]
    reply = client.post("/api/v1/edits/ask", json={"share": share, "task": "prior", "mask": "bottom"}).json()
    assert reply["before_images"][0].startswith("data:image/png")
    refused = client.post("/api/v1/edits/ask", json={"share": share, "task": "prior", "mask": "left"})
    assert refused.status_code == 400
    assert "bottom" in refused.json()["error"]["message"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--data data", "Name one or more models"),
        ("plain plain --data data", "holds the same model"),
        ("nowhere --data data", "There is no model at 'nowhere'"),
        ("plain --data nowhere", "nowhere"),
        ("plain --data data --port 99999", "65535"),
        ("plain --data nowhere --export page.pdf", "must end in .html"),
        ("plain --data nowhere --page #/images", "give both"),
    ],
)
def test_wrong_calls(
    tavq: Tavq, home: Path, stores: Path, arguments: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(home)
    done = tavq("explore", *arguments.split(), "--store", stores)
    assert done.code in (1, 2)
    assert message in done.err
