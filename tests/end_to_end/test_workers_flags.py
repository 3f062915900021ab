"""Every command that reads images takes `--workers`, whose number changes no result."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]

NAMES = ["encode", "evaluate", "export", "images", "pairs", "search index", "leaderboard"]


def command(name: str, home: Path, out: Path) -> tuple[list[Any], Path]:
    """The command, and the file that holds its result."""
    data = home / "data"
    commands: dict[str, tuple[list[Any], str]] = {
        "encode": (["encode", home / "plain", data, "--out", out / "tokens"], "tokens"),
        "evaluate": (["evaluate", home / "aligned", "--data", data, "--json", out / "e.json"], "e.json"),
        "export": (["export", home / "plain", "--to", "tokens", "--data", data, "--out", out / "x"], "x/manifest.json"),
        "images": (["metrics", "images", data, "--size", "32", data, "--json", out / "i.json"], "i.json"),
        "pairs": (["metrics", "images", data, data, "--size", "32", "--paired", "--json", out / "p.json"], "p.json"),
        "search index": (["search", "index", home / "aligned", "--data", data, "--out", out / "ix"], "ix/index.json"),
        "leaderboard": (
            ["leaderboard", home / "plain", home / "aligned", "--data", data, "--out", out / "b"], "b/leaderboard.json"
        ),
    }  # fmt: skip
    words, result = commands[name]
    return words, out / result


def without_speed(value: Any) -> Any:
    """A result without what depends on the clock."""
    if isinstance(value, dict):
        return {key: without_speed(each) for key, each in value.items() if "second" not in key}
    if isinstance(value, list):
        return [without_speed(each) for each in value if "second" not in str(each)]
    return value


@pytest.mark.parametrize("name", NAMES)
def test_the_number_of_workers_changes_no_result(tavq: Tavq, home: Path, tmp_path: Path, name: str) -> None:
    results = []
    for workers in (0, 2):
        words, result = command(name, home, tmp_path / str(workers))
        done = tavq(*words, "--workers", workers)
        assert done.code == 0, done.err
        data = result.read_bytes()
        results.append(without_speed(json.loads(data)) if result.suffix == ".json" else data)
    assert results[0] == results[1]


def test_a_number_of_workers_that_cannot_be(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    for workers in ("-1", "65", "some"):
        done = tavq(*command("encode", home, tmp_path)[0], "--workers", workers)
        assert done.code == 2
        assert "--workers" in done.err
