"""The evaluation before the first step: what `tavq evaluate` gives for the model that a run starts from."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import pytest

import tavq
from tavq.core.errors import UsageError
from tavq.core.files import read_json
from tavq.metrics.record import evaluation_from_json
from tavq.model_folder import find_model
from tavq.tokenizer import Tokenizer

NET = {"channels": 8, "multipliers": [1, 2, 2], "blocks": 1, "attention": "none"}
FIRST = {
    "model.net": NET, "model.codebook.entries": 16, "model.codebook.width": 8, "data.size": 32, "train.steps": 3,
    "train.batch": 4, "train.adversarial": None, "train.warmup": 0,
}  # fmt: skip
FEW = {"train.steps": 2, "train.batch": 4, "train.warmup": 0, "train.adversarial.discriminator.channels": 8}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data") / "scenes"
    tavq.make_scenes(folder, images=40, size=32)
    return folder


@pytest.fixture(scope="module")
def model(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return find_model(tavq.train("vqgan-tiny", data=data, out=tmp_path_factory.mktemp("first"), settings=FIRST))


def values(run: Path) -> dict[str, float | None]:
    path = run / "evaluation_start.json"
    return {metric.key: metric.value for metric in evaluation_from_json(read_json(path), str(path)).metrics}


def tune(model: Path, data: Path, out: Path, **changes: Any) -> Path:
    settings = {"train.start_from": str(model), **FEW, **changes.pop("settings", {})}
    return tavq.train("finetune-decoder", data=data, out=out, settings=settings, **changes)


def test_it_is_the_evaluation_of_the_model(
    model: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """To the last bit, although training has its weights in another order in memory."""
    with caplog.at_level(logging.INFO, "tavq"):
        run = tune(model, data, tmp_path / "run")
    expected = tavq.evaluate(model, data=data)
    found = values(run)
    assert found == {metric.key: metric.value for metric in expected.metrics}
    assert found["psnr"] is not None
    stored = read_json(run / "evaluation_start.json")
    assert stored["protocol"]["images"]["sha256"] == expected.details["protocol"]["images"]["sha256"]
    [said] = [line for line in caplog.messages if line.startswith("Before step 1, on ")]
    assert "PSNR" in said
    titles = [part.rsplit(" ", 2)[0] for part in said.partition(": ")[2].split(", ")]
    assert len(set(titles)) == len(titles)  # no baseline under the title of its metric
    assert tavq.evaluate(run, data=data)["psnr"].value != found["psnr"]


def test_only_the_first_images(model: Path, data: Path, tmp_path: Path) -> None:
    run = tune(model, data, tmp_path / "run", settings={"train.evaluate_first": 2})
    expected = tavq.evaluate(model, data=data, limit=2)
    assert values(run)["psnr"] == expected["psnr"].value
    assert read_json(run / "evaluation_start.json")["images"] == 2


def test_it_changes_no_weight_and_is_not_made_again(model: Path, data: Path, tmp_path: Path) -> None:
    measured = tune(model, data, tmp_path / "measured")
    silent = tune(model, data, tmp_path / "silent", settings={"train.evaluate_first": 0})
    assert not (silent / "evaluation_start.json").exists()
    weights = [(run / "model/model.safetensors").read_bytes() for run in (measured, silent)]
    assert weights[0] == weights[1]
    path = measured / "evaluation_start.json"
    before = (path.read_bytes(), path.stat().st_mtime_ns)
    tune(model, data, measured, settings={"train.steps": 3}, resume=True)
    assert (path.read_bytes(), path.stat().st_mtime_ns) == before
    tune(model, data, silent, settings={"train.steps": 3}, resume=True)  # its weights are no start any more
    assert not (silent / "evaluation_start.json").exists()


def test_the_report_shows_it_beside_the_result(model: Path, data: Path, tmp_path: Path) -> None:
    run = tune(model, data, tmp_path / "run")
    text = tavq.write_report(run).read_text()
    assert "Before the first step" in text
    assert "The run has not been evaluated since." in text
    tavq.evaluate(run, data=data)
    assert "Both were measured on the same pixels." in tavq.write_report(run).read_text()
    tavq.evaluate(run, data=data, limit=2)
    assert "They were measured on other images" in tavq.write_report(run).read_text()


def test_data_without_held_out_images_is_trained_on(
    model: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    copy = tmp_path / "data"
    shutil.copytree(data / "images", copy / "images")
    (copy / "metadata.jsonl").write_text("\n".join(json.dumps({**line, "split": "train"}) for line in lines))
    run = tune(model, copy, tmp_path / "run")
    assert not (run / "evaluation_start.json").exists()
    assert any("neither a test nor a validation split" in line for line in caplog.messages)


def test_without_a_model_there_is_nothing_to_measure(data: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"evaluate_first measures the model of train\.start_from, which is null"):
        tavq.train("vqgan-tiny", data=data, out=tmp_path / "run", settings={**FIRST, "train.evaluate_first": 5})


def test_a_lost_aligner_is_announced(model: Path, data: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = {"train.start_from": str(model), "train.steps": 1, "train.warmup": 0, "train.evaluate_first": 0}
    aligned = tavq.train("align-frozen", data=data, out=tmp_path / "aligned", settings=settings)
    assert "is left out" not in caplog.text
    tune(aligned, data, tmp_path / "tuned", settings={"train.evaluate_first": 0})
    assert f"The aligner of {aligned} is left out: the recipe has no model.align." in caplog.text


@pytest.mark.parametrize("recipe", ["finetune-decoder", "finetune-all", "align-frozen", "align-finetune"])
def test_every_recipe_trains_a_model(recipe: str, model: Path, data: Path, tmp_path: Path) -> None:
    """And what should stay, stays."""
    few = {key: value for key, value in FEW.items() if recipe != "align-frozen" or "adversarial" not in key}
    settings = {"train.start_from": str(model), **few, "train.evaluate_first": 2}
    run = tavq.train(recipe, data=data, out=tmp_path / "run", settings=settings)
    before, after = (Tokenizer.from_pretrained(folder).state_dict() for folder in (model, run))
    moved = {name.split(".")[0] for name in before if not before[name].equal(after[name])}
    expected = {"finetune-decoder": {"decoder"}, "align-frozen": set()}
    assert moved == expected.get(recipe, {"encoder", "decoder", "codebook"})
    assert any(name.startswith("aligner") for name in after) == recipe.startswith("align")
    assert values(run)["psnr"] == tavq.evaluate(model, data=data, limit=2)["psnr"].value
