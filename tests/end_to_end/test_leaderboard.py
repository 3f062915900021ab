"""`tavq leaderboard`: several tokenizers, one protocol, one page."""

import json
from pathlib import Path

import pytest

from tavq.api.leaderboards import name_models
from tavq.core.errors import UsageError
from tavq.text.store import TextStore

from .conftest import Tavq


def test_tokenizers_are_measured_by_one_protocol(tavq: Tavq, home: Path, tmp_path: Path) -> None:
    before = {path: path.read_bytes() for path in home.rglob("*.json")}
    out = tmp_path / "board"
    done = tavq("leaderboard", home / "plain", home / "aligned" / "model", "--data", home / "data", "--out", out)
    assert done.code == 0, done.err
    assert {path: path.read_bytes() for path in home.rglob("*.json")} == before  # runs are left as they are
    found = json.loads((out / "leaderboard.json").read_text())["tokenizers"]
    assert {entry["name"] for entry in found} == {"plain", "aligned"}
    assert found[0]["metrics"]["fd_scenes"]["value"] <= found[1]["metrics"]["fd_scenes"]["value"]
    assert found[0]["protocol"]["images"] == found[1]["protocol"]["images"]
    by_name = {entry["name"]: entry["metrics"] for entry in found}
    for metrics in by_name.values():
        assert metrics["perturbed/fd_scenes"]["value"] != metrics["fd_scenes"]["value"]
        assert metrics["bits"]["value"] == metrics["tokens"]["value"] * 4  # 16 entries
    assert "zero_shot_words" in by_name["aligned"]
    assert "zero_shot_words" not in by_name["plain"]
    page, table = (out / "leaderboard.html").read_text(), (out / "leaderboard.md").read_text()
    assert page.count("<figure>") >= 3
    assert "trained on different data" not in page
    assert "Measured on 3 images of 32 × 32 px of the split “test” of data" in table
    assert "Measured on 3 images" in done.err
    assert [line for line in table.splitlines() if line.startswith("- ") and "biased" in line]  # few images
    assert table.count("\n| ") == 4


def test_sizes_that_differ_ask_for_one(tavq: Tavq, home: Path, tmp_path: Path, small: list[str]) -> None:
    other = tmp_path / "other"
    settings = [*small, "--data.size", 64, "--train.steps", 1]
    assert tavq("train", "vqgan-tiny", "--data", home / "data", "--out", other, *settings).code == 0
    call = ["leaderboard", home / "plain", other, "--data", home / "data", "--out", tmp_path / "board"]
    done = tavq(*call)
    assert done.code == 2
    assert "plain: 32, other: 64" in done.err
    assert "--size" in done.err
    assert tavq(*call, "--size", 32).code == 0
    assert "which these were not trained at: other (64 px)" in (tmp_path / "board/leaderboard.html").read_text()


def test_text_of_another_encoder_is_left_out(
    tavq: Tavq, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def check_encoder(self: TextStore, trained_with: object) -> None:
        if trained_with is not None:
            raise UsageError("another encoder")

    monkeypatch.setattr(TextStore, "check_encoder", check_encoder)
    done = tavq("leaderboard", home / "plain", home / "aligned", "--data", home / "data", "--out", tmp_path / "board")
    assert done.code == 0, done.err
    found = json.loads((tmp_path / "board/leaderboard.json").read_text())["tokenizers"]
    entries = {entry["name"]: entry for entry in found}
    assert "zero_shot_words" not in entries["aligned"]["metrics"]
    assert (entries["aligned"]["images_with_text"], entries["plain"]["images_with_text"]) == (0, 3)
    assert "aligned is measured without text: another encoder" in done.err


@pytest.mark.parametrize("models", [[], ["one"], ["one", "one"], ["a/model", "a"]])
def test_too_few_or_equal_models_are_refused(models: list[str]) -> None:
    with pytest.raises(UsageError, match=r"two or more|given twice"):
        name_models(models)


def test_names_are_as_short_as_they_can_be() -> None:
    assert list(name_models(["x/vqgan/seed-0", "x/ta/seed-0/model"])) == ["vqgan/seed-0", "ta/seed-0"]
    assert list(name_models(["x/vqgan", "org/name"])) == ["vqgan", "name"]
