"""`tavq study`: trains what is missing, keeps what is finished, tabulates means over seeds."""

import json
import multiprocessing
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tavq import recipes
from tavq.api.studies import run_study
from tavq.core.errors import StoppedError
from tavq.recipes.study import STUDIES, load_study
from tavq.text.store import TextStore

from .conftest import Tavq

STUDY = """
description: Two methods.
seeds: [0, 1]
metrics: [psnr, perplexity_*, code_text_gap, seconds_per_epoch, unheard_of]
rows:
  plain: {recipe: vqgan-tiny, title: VQ-GAN, published: [{metric: fid, value: 5.51, source: a table}]}
  aligned: {recipe: ta-vqgan-tiny, settings: {model.align.iterations: 5}}
tasks:
  words: {recipe: masked-words-tiny, settings: {train.steps: 2, train.batch: 4}}
"""


@pytest.fixture(scope="module", autouse=True)
def _forked_jobs() -> Iterator[None]:
    """Jobs are forked from a process that has imported what they need; a spawned one takes seconds to do so."""
    forked, get_context = multiprocessing.get_context("forkserver"), multiprocessing.get_context
    forked.set_forkserver_preload(["tavq.api.studies", "torch._dynamo"])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            multiprocessing, "get_context", lambda kind=None: forked if kind == "spawn" else get_context(kind)
        )
        yield


@pytest.fixture(scope="module")
def data(shared_images: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study") / "data"
    shutil.copytree(shared_images, folder, ignore=shutil.ignore_patterns("text"))
    return folder


@pytest.fixture
def study(tmp_path: Path) -> Path:
    path = tmp_path / "mine.yaml"
    path.write_text(STUDY)
    return path


def weights(out: Path) -> dict[str, bytes]:
    return {str(path.relative_to(out)): path.read_bytes() for path in out.rglob("model.safetensors")}


@pytest.mark.slow  # starts processes
def test_a_study_trains_evaluates_tabulates_and_continues(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, small: list[str]
) -> None:
    out = tmp_path / "out"
    call = ["study", study, "--data", data, "--out", out, *small]
    done = tavq(*call, "--jobs", 2)
    assert done.code == 0, done.err
    found = json.loads((out / "study.json").read_text())
    assert list(found["rows"]) == ["plain", "aligned"]
    psnr = found["rows"]["aligned"]["metrics"]["psnr"]
    each = [json.loads((out / f"aligned/seed-{seed}/evaluation.json").read_text()) for seed in (0, 1)]
    assert psnr["each"] == [one["metrics"]["psnr"]["value"] for one in each]
    assert psnr["each"][0] != psnr["each"][1]
    assert psnr["mean"] == pytest.approx(sum(psnr["each"]) / 2)
    assert psnr["interval"][0] < psnr["mean"] < psnr["interval"][1]
    # a metric that a row lacks is empty, and the task is measured on the tokenizer of each row
    assert found["rows"]["plain"]["metrics"]["code_text_gap"]["each"] == []
    assert "perplexity_low" in found["rows"]["aligned"]["metrics"]
    assert any(key.startswith("words/") for key in found["rows"]["plain"]["metrics"])
    assert found["rows"]["plain"]["metrics"]["seconds_per_epoch"]["mean"] > 0
    table = (out / "study.md").read_text()
    assert "| VQ-GAN | 2 |" in table
    assert "fid 5.51 (a table)" in table
    # one seed more: what is finished is kept, and only the new one is trained
    before, marks = weights(out), {path: path.stat().st_mtime_ns for path in out.rglob("evaluation.json")}
    done = tavq(*call, "--rows", "plain", "--seeds", 0, 1, 2)
    assert done.code == 0, done.err
    after = weights(out)
    assert {name: after[name] for name in before} == before
    assert "plain/seed-2/model/model.safetensors" in after
    assert {path: path.stat().st_mtime_ns for path in marks} == marks
    rows = json.loads((out / "study.json").read_text())["rows"]
    assert {name: len(row["metrics"]["psnr"]["each"]) for name, row in rows.items()} == {"plain": 3, "aligned": 2}


def test_a_stopped_training_goes_on_and_other_settings_are_refused(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, small: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = ["study", study, "--data", data, *small, "--rows", "plain", "--seeds", 0]
    whole, cut = tmp_path / "whole", tmp_path / "cut"
    assert tavq(*call, "--out", whole).code == 0
    run = cut / "plain" / "seed-0"
    shutil.copytree(whole / "plain" / "seed-0", run)
    shutil.rmtree(run / "model")  # as if it had been stopped after its last checkpoint
    (run / "evaluation.json").unlink()
    assert tavq(*call, "--out", cut).code == 0
    assert weights(cut) == weights(whole)
    changed = tavq(*call, "--out", cut, "--train.batch", 2)
    assert changed.code == 1
    assert "plain, seed 0" in changed.err
    assert "train.batch was 4, now 2" in changed.err


def test_a_row_that_fails_does_not_stop_the_others(tavq: Tavq, data: Path, study: Path, tmp_path: Path) -> None:
    study.write_text(
        "rows:\n  bad: {recipe: vqgan-tiny, settings: {train.perceptual: {network: lpips, weights: nowhere.pth}}}\n"
        "  good: {recipe: vqgan-tiny}\nmetrics: [psnr]\nsettings: {train.steps: 2, train.batch: 2, data.size: 32}"
    )
    done = tavq("study", study, "--data", data, "--out", tmp_path / "out")
    assert done.code == 1
    assert "bad, seed 0: " in done.err
    assert "nowhere.pth" in done.err
    rows = json.loads((tmp_path / "out" / "study.json").read_text())["rows"]
    assert rows["bad"]["metrics"]["psnr"]["each"] == []
    assert len(rows["good"]["metrics"]["psnr"]["each"]) == 1


def test_a_signal_stops_the_whole_study(data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from tavq.api import studies

    started = []

    def stop(recipe: Any, **others: Any) -> None:
        started.append(others["out"])
        raise StoppedError("Stopped by a signal.")

    monkeypatch.setattr(studies, "train", stop)
    call = studies._Call(load_study("ta-vq-table-2-tiny"), data, tmp_path, None, None, ())
    with pytest.raises(StoppedError):
        studies._run_units(call, [("none", 0), ("word", 0)], lambda done, total=None, note="": None)
    assert len(started) == 1


def test_a_stopped_study_says_how_to_go_on(
    tavq: Tavq, data: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    from tavq.api import studies

    def stop(*jobs: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(studies, "run_in_parallel", stop)
    done = tavq("study", "ta-vq-table-2-tiny", "--rows", "none", "--data", data, "--out", tmp_path / "out")
    assert done.code == 1
    assert "the same command continues the study" in done.err


def test_a_row_may_read_a_text_store_of_its_own(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, small: list[str]
) -> None:
    assert tavq("text", data, "--full-text", "--out", data / "text-full").code == 0
    study.write_text("metrics: [psnr]\nrows: {lg: {recipe: lg-vqgan-tiny, text: {store: text-full}}}")
    done = tavq("study", study, "--data", data, "--out", tmp_path / "out", *small)
    assert done.code == 0, done.err
    provenance = json.loads((tmp_path / "out" / "lg" / "seed-0" / "provenance.json").read_text())
    assert provenance["text"]["full_text"] is True


def test_a_changed_text_is_not_passed_over(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, small: list[str]
) -> None:
    study.write_text("metrics: [psnr]\nrows: {ta: {recipe: ta-vqgan-tiny, settings: {model.align.iterations: 5}}}")
    call = ["study", study, "--data", data, "--out", tmp_path / "out", *small]
    assert tavq(*call).code == 0
    assert tavq("text", data, "--each-caption", "--out", data / "other").code == 0
    done = tavq(*call, "--text", data / "other")
    assert done.code == 1
    assert "The text store changed since" in done.err


def test_an_evaluation_with_another_text_is_made_again(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, small: list[str]
) -> None:
    study.write_text("metrics: [psnr]\nrows: {ta: {recipe: ta-vqgan-tiny, settings: {model.align.iterations: 5}}}")
    out = tmp_path / "out"
    call = ["study", study, "--data", data, "--out", out, *small, "--seeds", 0]
    assert tavq(*call).code == 0
    run = out / "ta" / "seed-0"
    before = weights(out)
    texts = [json.loads((run / "evaluation.json").read_text())["protocol"]["text"]["sha256"]]
    assert tavq("text", data, "--each-caption", "--out", tmp_path / "other").code == 0
    assert tavq("evaluate", run, "--data", data, "--text", tmp_path / "other").code == 0
    texts.append(json.loads((run / "evaluation.json").read_text())["protocol"]["text"]["sha256"])
    assert tavq(*call).code == 0
    texts.append(json.loads((run / "evaluation.json").read_text())["protocol"]["text"]["sha256"])
    assert texts[0] != texts[1]
    assert texts[0] == texts[2]
    assert weights(out) == before


def test_what_another_data_set_gave_is_not_in_the_table(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, small: list[str]
) -> None:
    study.write_text("metrics: [psnr]\nrows: {one: {recipe: vqgan-tiny}, two: {recipe: vqgan-tiny}}")
    out, other = tmp_path / "out", tmp_path / "other"
    call = ["study", study, "--data", data, "--out", out, *small, "--seeds", 0]
    assert tavq(*call).code == 0
    assert tavq("data", "scenes", other, "--images", 20, "--size", 32).code == 0
    assert tavq("evaluate", out / "one/seed-0", "--data", other).code == 0
    assert tavq(*call, "--rows", "two").code == 0
    rows = json.loads((out / "study.json").read_text())["rows"]
    assert {name: row["seeds"] for name, row in rows.items()} == {"one": [], "two": [0]}
    assert tavq(*call).code == 0  # measures the first row again
    rows = json.loads((out / "study.json").read_text())["rows"]
    assert {name: row["seeds"] for name, row in rows.items()} == {"one": [0], "two": [0]}


def test_a_store_that_lacks_something_is_extended_once_for_all_rows(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, small: list[str]
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder, ignore=shutil.ignore_patterns("text*", "other"))
    assert tavq("text", folder).code == 0
    tiny = "{train.steps: 1, train.batch: 2, data.size: 32}"
    study.write_text(
        f"metrics: [psnr]\nsettings: {tiny}\nrows: {{lg: {{recipe: lg-vqgan-tiny}}, vqct: {{recipe: vqct-tiny}}}}"
    )
    done = tavq("study", study, "--data", folder, "--out", tmp_path / "out", "--jobs", 2)
    assert done.code == 0, done.err
    store = TextStore.open(folder / "text")
    assert store.manifest.full_text
    assert store.has_word_graph


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("rows: {}", "rows"),
        ("rows: {a b: {recipe: vqgan-tiny}}", "a b"),
        ("rows: {../up: {recipe: vqgan-tiny}}", "../up"),
        ("rows: {a: {recipe: vqgon-tiny}}", "Did you mean 'vqgan-tiny'?"),
        ("rows: {a: {recipe: vqgan-tiny, settings: {train.stepz: 3}}}", "stepz"),
        ("rows: {a: {recipe: vqgan-tiny}}\nseeds: [1, 1]", "repeats"),
        ("rows: {a: {recipe: vqgan-tiny}}\ntasks: {t: {recipe: nothing}}", "nothing"),
    ],
)
def test_a_wrong_study_is_refused_before_any_training(
    tavq: Tavq, data: Path, study: Path, tmp_path: Path, text: str, words: str
) -> None:
    study.write_text(text)
    done = tavq("study", study, "--data", data, "--out", tmp_path / "out")
    assert done.code == 2
    assert words in done.err
    assert not (tmp_path / "out").exists()


def test_unknown_names_get_a_suggestion(tavq: Tavq, data: Path, tmp_path: Path) -> None:
    wrong = tavq("study", "ta-vq-table-2-tinny", "--data", data, "--out", tmp_path / "out")
    assert (wrong.code, "Did you mean 'ta-vq-table-2-tiny'?" in wrong.err) == (2, True)
    row = tavq("study", "ta-vq-table-2-tiny", "--rows", "wrd", "--data", data, "--out", tmp_path / "out")
    assert (row.code, "Did you mean 'word'?" in row.err) == (2, True)


def test_a_study_may_be_called_from_python(data: Path, study: Path, tmp_path: Path) -> None:
    study.write_text("rows: {a: {recipe: vqgan-tiny}}\nsettings: {train.steps: 1, train.batch: 2, data.size: 32}")
    result = run_study(str(study), data=data, out=tmp_path / "out", limit=2)
    assert result.failures == ()
    assert [line.name for line in result.table.lines] == ["a"]
    # the interval of one seed is over images
    assert "another seed may lie outside" in (tmp_path / "out" / "study.md").read_text()


def test_every_ablation_table_of_the_papers_has_a_study_with_its_numbers() -> None:
    published = {
        name: sum(bool(study.published(row)) for row in study.rows)
        for name in recipes.names(STUDIES)
        if (study := load_study(name)).config.source
    }
    # TA-VQ's copy has lost which pair of granularities its three pairs are
    assert published == {
        "lg-vq-table-13": 2, "lg-vq-table-2-cub200": 6, "lg-vq-table-2-textcaps": 6,
        "lg-vq-table-3-celeba-hq": 1, "lg-vq-table-3-cub200": 1, "lg-vq-table-4": 2,
        "lg-vq-vqvae-celeba-hq": 2, "lg-vq-vqvae-coco": 2, "lg-vq-vqvae-cub200": 2, "lg-vq-vqvae-textcaps": 2,
        "ta-vq-samples": 5, "ta-vq-table-2": 3, "ta-vq-table-3": 2, "ta-vq-table-4": 2, "ta-vq-table-5": 2,
        "vqct-table-2": 3, "vqct-table-3": 6, "vqct-table-4": 4, "vqct-table-5": 3,
    }  # fmt: skip


@pytest.mark.parametrize("name", recipes.names(STUDIES))
def test_shipped_studies_load(name: str) -> None:
    study = load_study(name)
    assert study.config.description
    for row in study.rows:
        recipe = study.recipe(row, 7)
        assert recipe.train.seed == 7
        assert all(number.source for number in study.published(row))


def test_a_study_can_be_printed(tavq: Tavq) -> None:
    done = tavq("recipes", "show", "ta-vq-table-2")
    assert done.code == 0
    assert "4.89" in done.out
