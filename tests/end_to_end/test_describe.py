"""`tavq describe` as a person uses it: a model in the process, and one behind a server."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from caption_server import Reply, Request, serving, truth
from tiny_llava import build

Tavq = Callable[..., Any]


@pytest.fixture
def bare(image_folder: Path) -> Path:
    """The image_folder without their long texts."""
    lines = [json.loads(line) for line in (image_folder / "metadata.jsonl").read_text().splitlines()]
    for line in lines:
        del line["long_text"]
    (image_folder / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return image_folder


def read(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "long_text.jsonl").read_text().splitlines()]


def test_in_process(tavq: Tavq, bare: Path, tmp_path: Path) -> None:
    model, facts = build(tmp_path / "tiny"), tmp_path / "facts.json"
    command = ("describe", bare, "--model", model, "--batch", 4, "--max-tokens", 24, "--json", facts)
    done = tavq(*command, "--limit", 5)
    assert done.code == 0, done.err
    assert "tavq text" in done.err
    first = read(bare)
    assert len(first) == 5
    assert {line["model"].partition("@")[0] for line in first} == {"tiny"}
    assert tavq(*command).code == 0
    lines = read(bare)
    assert lines[:5] == first
    assert len({line["file_name"] for line in lines}) == len(lines) == 16
    counts = json.loads(facts.read_text())
    assert counts["described_before"] == 5
    assert counts["described"] + counts["failed"] == 11
    assert len(counts["faults"]) == counts["faults_total"] == counts["failed"]
    assert counts["stopped"] == ""


def test_by_a_server_and_then_to_a_text_store(tavq: Tavq, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TAVQ_API_KEY", "secret-key")
    (bare / "images/3.png").write_bytes(b"broken")

    def answer(request: Request) -> Reply:
        return Reply(429, b"", {"Retry-After": "0"}) if request.number % 5 == 4 else truth(request)

    command = ("describe", bare, "--model", "big", "--endpoint")
    with serving(answer) as (url, server):
        done = tavq(*command, url, "--concurrency", 1, "--split", "train")
        assert done.code == 0, done.err
        assert "images/3.png: it is not an image" in done.err
        assert "--retry-faults" in done.err
    assert server.requests[0].body["messages"][0]["content"][1]["text"].startswith("Analyze the image in a comprehen")
    assert server.requests[0].headers["authorization"] == "Bearer secret-key"
    lines = read(bare)
    assert len(lines) == 10
    assert [line["file_name"] for line in lines if "fault" in line] == ["images/3.png"]
    assert "secret" not in (bare / "long_text.jsonl").read_text() + done.out + done.err
    done = tavq("text", bare)
    assert done.code == 0, done.err
    assert "mean colour" in str([line.get("text") for line in lines])


def test_the_last_lines_say_what_to_do_next(tavq: Tavq, image_folder: Path, tmp_path: Path) -> None:
    facts = tmp_path / "facts.json"
    with serving(lambda request: Reply(400, b"no")) as (url, _):
        command = ("describe", image_folder, "--model", "m", "--concurrency", 1, "--json", facts, "--endpoint", url)
        done = tavq(*command)
        assert done.code == 0
        assert "All 16 images have a long text of their own in metadata.jsonl; nothing to describe." in done.err
        assert "long_text" not in done.err
        (image_folder / "metadata.jsonl").write_text('{"file_name": "images/0.png"}\n{"file_name": "images/1.png"}\n')
        done = tavq(*command, "--shard", "1/1", "--limit", 1)
        assert json.loads(facts.read_text())["remaining"] == 1
        (image_folder / "long_text-1-of-2.jsonl").write_text("")
        tavq(*command)
        done = tavq(*command)
    assert json.loads(facts.read_text())["failed_before"] == 2
    assert "add --retry-faults" in done.err
    assert "Found descriptions of other shards (long_text-1-of-2.jsonl)" in done.err
    assert "Next" not in done.err


def test_a_server_that_is_not_there(tavq: Tavq, bare: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tavq.describe.rate_limit.RetryPolicy.wait", lambda self, failures: 0.0)
    with serving() as (url, _):
        pass
    done = tavq("describe", bare, "--model", "m", "--endpoint", url)
    assert done.code == 1
    assert "answered none of the last 3 images" in done.err
    assert "run the same command to resume" in done.err
    assert read(bare) == []


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("--model", "m", "--endpoint", "localhost"), "is not a URL"),
        (("--model", "m", "--endpoint", "http://a/v1", "--batch", 2), "--batch is for a model in this process only"),
        (("--model", "m", "--timeout", 2), "--timeout is for a model behind --endpoint only"),
        (("--model", "m", "--shard", "3/2"), "--shard must be i/n with i from 1 to n, such as 1/8; got '3/2'"),
        (("--model", "m", "--split", "dev"), "Unknown split 'dev'"),
        (("--model", "./no/such/model"), "There is no model folder"),
        (("--model", ""), "--model is empty; give a model folder, a hub name"),
        (("--model", "."), ". is not a model folder: it has no config.json"),
        (("--endpoint", "http://a/v1"), "--model"),
    ],
)
def test_wrong_calls(tavq: Tavq, bare: Path, arguments: tuple[object, ...], reason: str) -> None:
    done = tavq("describe", bare, *arguments)
    assert done.code == 2
    assert reason in done.err
    assert not (bare / "long_text.jsonl").exists()
