"""Every command that reads a data set takes the limit on unreadable images, as a number or a share."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Tavq = Callable[..., Any]

SMALL = "--task.language.layers 1 --task.language.heads 2 --task.language.width 16 --task.image.hidden 16"
SMALL += " --task.max_length 12 --train.steps 1 --train.batch 4"


@pytest.fixture(scope="module")
def place(tavq: Tavq, tmp_path_factory: pytest.TempPathFactory, home: Path) -> Path:
    """A captioner, and a data set with two of three test images broken, and a broken and badly boxed training image."""
    place = tmp_path_factory.mktemp("budget")
    shutil.copytree(home / "data", place / "data")
    train = ("task", "train", "captioning-tiny", "--tokenizer", home / "plain", "--data", place / "data")
    done = tavq(*train, "--out", place / "captioner", *SMALL.split())
    assert done.code == 0, done.err
    lines = [json.loads(line) for line in (place / "data/metadata.jsonl").read_text().splitlines()]
    for line in [line for line in lines if line["split"] == "test"][:2]:
        (place / "data" / line["file_name"]).write_bytes(b"broken")
    (place / "data" / lines[0]["file_name"]).write_bytes(b"broken")
    lines[1]["objects"] = [{"box": [1, 1, 0, 5], "name": "x"}] * 101
    (place / "data/metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return place


def commands(place: Path, home: Path, out: Path) -> dict[str, list[Any]]:
    data = place / "data"
    return {
        "encode": ["encode", home / "plain", data, "--split", "test", "--out", out / "tokens"],
        "evaluate": ["evaluate", home / "aligned", "--data", data, "--empty-features", "--json", out / "e.json"],
        "caption": ["caption", place / "captioner", data, "--json", out / "c.json"],
        "task evaluate": ["task", "evaluate", place / "captioner", "--data", data, "--json", out / "t.json"],
        "search index": ["search", "index", home / "aligned", "--data", data, "--split", "test", "--out", out / "ix"],
    }


@pytest.mark.parametrize("name", ["encode", "evaluate", "caption", "task evaluate", "search index"])
def test_a_command_takes_the_limit(tavq: Tavq, place: Path, home: Path, tmp_path: Path, name: str) -> None:
    command = commands(place, home, tmp_path)[name]
    for budget in ("0", "1", "20%"):
        done = tavq(*command, "--fault-budget", budget)
        assert done.code == 1, done.out
        assert "of 3 images" in done.err
        assert "--fault-budget of other commands" in " ".join(done.err.split())
    for budget in ("2", "67%", "0.67"):
        done = tavq(*command, "--fault-budget", budget)
        assert done.code == 0, done.err
        assert done.err.count("Skipped ") == 2
        assert "images/0.png" not in done.err  # a training image is nothing to a reader of the test split
    done = tavq(*command, "--fault-budget", "many")
    assert done.code == 2
    assert "a number of images such as 200, or a share" in done.err


def test_a_command_reports_what_it_reads(tavq: Tavq, place: Path, home: Path, tmp_path: Path) -> None:
    """Boxes are nothing to commands that read images, and captions nothing to those that read no text."""
    data = tmp_path / "data"
    shutil.copytree(place / "data", data, ignore=shutil.ignore_patterns("text"))
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    readable = [line for line in lines if line["split"] == "test"][2]
    readable["objects"], readable["captions"] = [{"box": [1, 1, 0, 5], "name": "x"}] * 11, ["A dog.", ""]
    (data / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    out = tmp_path / "e.json"
    encode = ("encode", home / "plain", data, "--out", tmp_path / "tokens")
    evaluate = ("evaluate", home / "plain", "--data", data, "--empty-features", "--json", out)
    for command, said in ((encode, False), (evaluate, True)):
        done = tavq(*command)
        assert done.code == 0, done.err
        assert ("captions entry 2 is empty" in done.err) == said
        assert "objects" not in done.err
    assert json.loads(out.read_text())["faults"] == 3


def test_the_result_counts_the_faults_of_its_split(tavq: Tavq, place: Path, home: Path, tmp_path: Path) -> None:
    for name, file in (("evaluate", "e.json"), ("task evaluate", "t.json")):
        done = tavq(*commands(place, home, tmp_path)[name])
        assert done.code == 0, done.err
        assert json.loads((tmp_path / file).read_text())["faults"] == 2
