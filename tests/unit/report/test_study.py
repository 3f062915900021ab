"""The table of a study: which runs count, means over seeds, intervals, and what is printed."""

import json
from pathlib import Path
from typing import Any

import pytest

from tavq.core.config import write_yaml
from tavq.metrics.intervals import student_interval
from tavq.metrics.record import Evaluation, Group, Metric, evaluation_as_json
from tavq.model_folder import FORMAT
from tavq.recipes.study import Study, StudyConfig, run_folder
from tavq.report.study import as_json, as_markdown, tabulate

PSNR = Metric("psnr", "PSNR", Group("images", "Images"), better=1, decimals=2, unit="dB")


@pytest.fixture
def study() -> Study:
    rows = {
        "plain": {
            "recipe": "vqgan-tiny",
            "title": "a | b",
            "published": [{"metric": "psnr", "value": 22.5, "source": "P"}],
        },
        "aligned": {"recipe": "ta-vqgan-tiny", "settings": {"train.steps": 50}},
    }
    config = {"seeds": [0, 1, 2], "metrics": ["psnr", "seconds_per_epoch"], "rows": rows, "description": "About it."}
    return Study("mine", StudyConfig.model_validate(config))


def write_run(
    out: Path,
    study: Study,
    row: str,
    seed: int,
    psnr: float,
    first: int | None = None,
    data: str = "here",
    **other: Any,
) -> None:
    """A run folder with what a table reads."""
    recipe = study.recipe(row, seed).model_dump(mode="json")
    recipe["model"]["text_width"] = 384  # training fills it in
    folder = run_folder(out, row, seed)
    (folder / "model").mkdir(parents=True)
    for name, value in {**recipe["train"], **other}.items():
        recipe["train"][name] = value
    config = {"kind": "tokenizer", "format": FORMAT, "model": {}, "step": study.recipe(row, seed).train.steps}
    (folder / "recipe.yaml").write_text(write_yaml(recipe))
    (folder / "model" / "config.json").write_text(json.dumps(config))
    lines = [
        {"step": step, "seconds_per_step": seconds} for step, seconds in ((10, 99.0), (20, 0.5), (30, 0.25), (40, 4.0))
    ]
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (folder / "provenance.json").write_text(json.dumps({"images": 160}))
    details = {"protocol": {"data": {"first": first}, "model": {}}, "data_sha256": data}
    found = Evaluation((PSNR.measured(psnr, (psnr - 1, psnr + 1)),), details)
    (folder / "evaluation.json").write_text(json.dumps(evaluation_as_json(found)))


def cells(study: Study, out: Path, limit: int | None = None) -> dict[str, Any]:
    rows = as_json(tabulate(study, out, limit))["rows"]
    return {name: row["metrics"].get("psnr", {"each": []}) for name, row in rows.items()}


def test_means_and_intervals_are_over_seeds(study: Study, tmp_path: Path) -> None:
    for seed, psnr in enumerate((20.0, 21.0, 23.0)):
        write_run(tmp_path, study, "plain", seed, psnr)
    write_run(tmp_path, study, "aligned", 1, 25.0)
    found = cells(study, tmp_path)
    assert found["plain"]["each"] == [20.0, 21.0, 23.0]
    assert found["plain"]["mean"] == pytest.approx(64 / 3)
    assert found["plain"]["interval"] == student_interval([20.0, 21.0, 23.0])
    assert found["aligned"]["interval"] == [24.0, 26.0]  # of one seed: over images
    text = as_markdown(tabulate(study, tmp_path))
    assert "a \\| b" in text
    assert "psnr 22.5 (P)" in text
    assert "another seed may lie outside it" in text
    # the median without the first line, times 160 images in batches of 16
    assert as_json(tabulate(study, tmp_path))["rows"]["plain"]["metrics"]["seconds_per_epoch"]["mean"] == 5.0


@pytest.mark.parametrize("other", [{"batch": 8}, {"l2": 1.0}, {"steps": 10}])
def test_runs_with_other_settings_are_left_out(study: Study, tmp_path: Path, other: dict[str, Any]) -> None:
    write_run(tmp_path, study, "plain", 0, 20.0)
    write_run(tmp_path, study, "plain", 1, 30.0, **other)
    assert cells(study, tmp_path)["plain"]["each"] == [20.0]


def test_settings_that_change_no_weight_do_not_count(study: Study, tmp_path: Path) -> None:
    write_run(tmp_path, study, "plain", 0, 20.0, log_every=7)
    assert cells(study, tmp_path)["plain"]["each"] == [20.0]


def test_runs_measured_on_another_number_of_images_are_left_out(study: Study, tmp_path: Path) -> None:
    write_run(tmp_path, study, "plain", 0, 20.0)
    write_run(tmp_path, study, "plain", 1, 30.0, first=5)
    assert cells(study, tmp_path)["plain"]["each"] == [20.0]
    assert cells(study, tmp_path, limit=5)["plain"]["each"] == [30.0]


def test_runs_measured_on_another_data_set_are_left_out(study: Study, tmp_path: Path) -> None:
    write_run(tmp_path, study, "plain", 0, 20.0)
    write_run(tmp_path, study, "plain", 1, 30.0, data="elsewhere")
    row = as_json(tabulate(study, tmp_path, fingerprint="here"))["rows"]["plain"]
    assert row["metrics"]["psnr"]["each"] == [20.0]
    assert cells(study, tmp_path)["plain"]["each"] == [20.0, 30.0]


def test_nothing_yet(study: Study, tmp_path: Path) -> None:
    table = tabulate(study, tmp_path)
    assert table.columns == ()
    assert [line.seeds for line in table.lines] == [(), ()]
    assert "| aligned | 0 |" in as_markdown(table)
