"""Understanding tasks by the commands a user would type."""

import json
import shutil
from pathlib import Path

import pytest

from tavq.cli import run

SIZE = 32


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A data set and a tokenizer."""
    place = tmp_path_factory.mktemp("understanding")
    assert run(["data", "scenes", f"{place}/scenes", "--images", "24", "--size", f"{SIZE}"]) == 0
    settings = ["--data.size", f"{SIZE}", "--train.steps", "2", "--train.adversarial.start", "9", "--train.batch", "4"]
    assert run(["train", "vqgan-tiny", "--data", f"{place}/scenes", "--out", f"{place}/vqgan", *settings]) == 0
    return place


def trained(place: Path, task: str, *more: str) -> str:
    out = f"{place}/{task}{len(more)}"
    if not Path(out).exists():
        call = ["task", "train", f"{task}-tiny", "--tokenizer", f"{place}/vqgan", "--data", f"{place}/scenes"]
        assert run([*call, "--out", out, "--train.steps", "3", "--train.batch", "4", *more]) == 0
    return out


@pytest.mark.parametrize("source", ["codes", "features", "none"])
def test_questions(place: Path, source: str, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained(place, "vqa", *(["--task.image.source", source] if source != "codes" else []))
    image = f"{place}/scenes/images/000003.png"
    assert run(["ask", model, image, "what is the color of the zeppelin", "--json", f"{place}/answer.json"]) == 0
    assert "'zeppelin'" in capsys.readouterr().err
    written = json.loads((place / "answer.json").read_text())
    assert len(written["answers"]) == 5
    assert run(["task", "evaluate", model, "--data", f"{place}/scenes", "--json", f"{place}/found.json"]) == 0
    metrics = json.loads((place / "found.json").read_text())["metrics"]
    assert 0 <= metrics["accuracy"]["value"] <= 1
    assert "constant/accuracy" in metrics
    assert metrics["accuracy"]["interval"] is not None


def test_a_resumed_run_has_the_same_weights(place: Path) -> None:
    whole = Path(trained(place, "vqa"))
    call = ["task", "train", "vqa-tiny", "--tokenizer", f"{place}/vqgan", "--data", f"{place}/scenes"]
    call += ["--out", f"{place}/again", "--train.batch", "4", "--train.checkpoint_every", "1", "--train.steps", "3"]
    assert run(call) == 0
    for file in sorted((place / "again" / "checkpoints").iterdir())[1:]:
        [part.unlink() for part in file.iterdir()] if file.is_dir() else file.unlink()
        file.rmdir() if file.is_dir() else None
    assert run([*call, "--resume"]) == 0
    written = json.loads((place / "again" / "provenance.json").read_text())
    assert written["last_process"]["steps"] == 1
    tokenizer = json.loads((place / "vqgan" / "model" / "config.json").read_text())
    assert [written["tokenizer_seed"], written["tokenizer_method_hash"]] == [
        tokenizer["seed"],
        tokenizer["method_hash"],
    ]
    weights = [(folder / "model" / "model.safetensors").read_bytes() for folder in (whole, place / "again")]
    assert weights[0] == weights[1]


@pytest.mark.parametrize(
    ("command", "arguments", "says"),
    [
        ("ask", ["IMAGE", ""], "The question is empty"),
        ("ask", ["IMAGE", "сколько здесь коров"], "no word that the model knows"),
        ("ask", ["nowhere.png", "what is the color"], "nowhere.png"),
        ("generate", [], "is used by: tavq ask"),
        ("complete", ["IMAGE"], "is used by: tavq ask"),
    ],
)
def test_wrong_calls_get_one_line(
    command: str, arguments: list[str], says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = trained(place, "vqa")
    capsys.readouterr()
    image = f"{place}/scenes/images/000003.png"
    assert run([command, model, *(image if part == "IMAGE" else part for part in arguments)]) in (1, 2)
    said = capsys.readouterr().err
    assert says in said
    assert said.count("\n") == 1


def test_a_data_set_without_questions(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "bare").mkdir(exist_ok=True)
    data = (place / "scenes" / "images" / "000003.png").read_bytes()
    (place / "bare" / "a.png").write_bytes(data)
    call = ["task", "train", "vqa-tiny", "--tokenizer", f"{place}/vqgan", "--data", f"{place}/bare"]
    assert run([*call, "--out", f"{place}/no"]) == 2
    assert "learns from questions" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flag", "value", "says"),
    [("--text", "text", "does not use text"), ("--segmentation-tokenizer", "maps", "does not use segmentation")],
)
def test_unused_arguments_are_refused(
    flag: str, value: str, says: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    call = ["task", "train", "vqa-tiny", "--tokenizer", f"{place}/vqgan", "--data", f"{place}/scenes"]
    assert run([*call, "--out", f"{place}/refused", flag, f"{place}/{value}"]) == 2
    assert says in capsys.readouterr().err
    assert not (place / "refused").exists()


def test_an_evaluation_refuses_unused_arguments(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = trained(place, "vqa")
    assert run(["task", "evaluate", model, "--data", f"{place}/scenes", "--text", f"{place}/text"]) == 2
    assert "does not use text" in capsys.readouterr().err


def test_an_unused_text_store_is_not_opened(place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "scenes", tmp_path / "scenes")
    (tmp_path / "scenes" / "text").mkdir()
    (tmp_path / "scenes" / "text" / "manifest.json").write_text("of another version")
    call = ["task", "train", "vqa-tiny", "--tokenizer", f"{place}/vqgan", "--data", f"{tmp_path}/scenes"]
    assert run([*call, "--out", f"{tmp_path}/run", "--train.steps", "1", "--train.batch", "4"]) == 0
