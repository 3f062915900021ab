"""Pages about tasks: what they show of each kind, what their figures are called, and what cannot be compared."""

import copy
import html
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from evaluation_files import BASELINES, GENERATION, evaluation

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.metrics.record import evaluation_as_json
from tavq.recipes.schema import TaskRecipe
from tavq.report.metric_tables import arrange_metrics, cell_text
from tavq.report.page import write_comparison, write_report
from tavq.report.run import read_run
from tavq.report.task.comparison import find_differences
from tavq.report.task.generation_view import build_task_view
from tavq.report.task.tables import make_task_tables
from tavq.text.store import TextStore
from tavq.training.task.tokens import FrozenTokenizer
from tavq.training.task.trainer import TaskTrainer

TRAIN = {"steps": 2, "batch": 4, "log_every": 1, "checkpoint_every": 2, "sample_every": 1}
SMALL = {"layers": 1, "heads": 2, "width": 16}
TASKS: dict[str, dict[str, Any]] = {
    "unconditional": {"name": "prior", **SMALL},
    "completion": {"name": "masked", **SMALL, "steps": 2},
    "text": {"name": "diffusion", **SMALL, "steps": 2},
    "maps": {"name": "prior", **SMALL, "segmentation": True},
}
EVALUATION = evaluation(
    {
        "fd_scenes": 120.0,
        "kid_scenes": 6.0,
        "codes/fd_scenes": 30.0,
        "text_r_precision": None,
        "completed/right/psnr": 15.8,
        "mean_colour/completed/right/psnr": 14.4,
        "nearest/completed/right/distance_scenes": 0.75,
        "nearest_distance_scenes": 8.5,
        "held_out/nearest_distance_scenes": 7.5,
        "data_copying_scenes": 0.125,
        "loss/task/masked": 4.25,
        "untrained/loss/task/masked": 5.5,
    },
    {"completed/right/psnr": [15.1, 16.4]},
    GENERATION,
    images=2,
    training_images=16,
    split="test",
    data="images",
    seed=0,
    sampling={"temperature": 1.0},
)
WARNING = "2 images for 160 features."
STORED = evaluation_as_json(EVALUATION)
STORED["metrics"]["fd_scenes"]["warning"] = WARNING


@pytest.fixture(scope="module")
def tasks(runs: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """A run folder of each task, on the plain tokenizer of the other pages; the data set has maps too."""
    root = tmp_path_factory.mktemp("tasks")
    data = Path(shutil.copytree(runs.data, root / "images"))
    lines = [json.loads(line) for line in (data / "metadata.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines):
        line["segmentation"] = f"maps/{number}.png"
        save_png(data / line["segmentation"], np.full((16, 16), 1 + number % 2, np.uint8))
    (data / "metadata.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    made: dict[tuple[str, int], Path] = {}

    def make(name: str, seed: int = 0) -> Path:
        if (name, seed) not in made:
            values = {"task": TASKS[name], "train": {**TRAIN, "seed": seed}}
            made[name, seed] = root / f"{name}-{seed}"
            TaskTrainer(
                build(TaskRecipe, values, "test"),
                runs.plain,
                FolderDataset(data, "train"),
                made[name, seed],
                TextStore.open(data / "text"),
                segmentation_tokenizer=runs.aligned,
            ).run()
        return made[name, seed]

    return make


@pytest.fixture(autouse=True)
def any_tokenizer_of_maps(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runs of the other pages are of images; a page does not mind."""
    load = FrozenTokenizer.load

    def unasked(*arguments: Any) -> FrozenTokenizer:
        found = load(*arguments)
        return replace(found, stored={**found.stored, "kind_of_images": None})

    monkeypatch.setattr(FrozenTokenizer, "load", unasked)


def images(page: str) -> list[str]:
    """The names under the images, in their order."""
    return re.findall(r"<figcaption>([^<]*)</figcaption>", page)


# --- tables ---------------------------------------------------------------------------------------------------------


def test_tables_have_what_was_measured_by_group_and_baseline() -> None:
    other = evaluation({"untrained/fd_scenes": 1.0, "text_r_precision": None}, metrics=GENERATION)
    found = arrange_metrics([EVALUATION, other])
    groups = ["sets", "completed/right", "memorization", "loss"]
    assert [table.group.name for table in found] == groups  # nothing was measured of the others
    rows = {table.group.name: table.rows for table in found}
    assert [row.metric.name for row in rows["sets"]] == ["fd_scenes", "kid_scenes"]
    assert list(found[0].baselines) == [None, "codes", "untrained"]
    [psnr, distance] = rows["completed/right"]
    assert {name: psnr.key(name) for name in (None, "mean_colour", "nearest")} == {
        None: "completed/right/psnr",
        "mean_colour": "mean_colour/completed/right/psnr",
        "nearest": None,
    }
    assert list(distance.metrics) == ["nearest"]


def test_a_cell_holds_a_value_and_its_interval() -> None:
    metric = EVALUATION["completed/right/psnr"]
    assert cell_text(metric, metric) == ("15.80", "15.10 – 16.40")
    assert cell_text(metric, EVALUATION["mean_colour/completed/right/psnr"]) == ("14.40", "")
    assert cell_text(metric, None) == ("–", "")
    assert cell_text(metric, EVALUATION["text_r_precision"]) == ("–", "")


# --- pages ----------------------------------------------------------------------------------------------------------


def test_a_page_says_what_was_trained_and_shows_the_metrics_beside_the_baselines(tasks: Callable[..., Path]) -> None:
    run = tasks("completion")
    before = write_report(run).read_text()
    assert "not been evaluated yet. Evaluate it with: tavq task evaluate RUN --data DATA" in before
    (run / "evaluation.json").write_text(json.dumps(STORED))
    page = write_report(run).read_text()
    (run / "evaluation.json").unlink()
    assert "<script" not in page
    assert not re.search(r'(src|href)="(?!data:|#)', page)
    told = json.loads((run / "provenance.json").read_text())
    for part in (
        told["tokenizer"][:12],
        "masked",
        "data, 16 images to train on",
        "16 × 16 px",
        "4 × 4 positions",
    ):
        assert part in page, part
    for title in (
        "Generated images next to real ones",
        "Completion, the right half hidden",
        "Are training images copied?",
    ):
        assert title in page
    assert "this task" in page
    for name in ("untrained", "mean_colour", "nearest", "codes", "held_out"):
        assert html.escape(BASELINES[name].title) in page
        assert html.escape(BASELINES[name].meaning) in page
    assert "<b>15.80</b>" in page
    assert "15.10 – 16.40" in page
    assert "12.5%" in page
    assert WARNING in page
    assert "Measured on 2 images of the split “test” of images; 16 training images to compare with." in page
    assert "Task: masked" in page  # the curve
    assert "step 2" in page  # the samples
    assert images(page) == [
        *(["original", "right hidden", "completed"]), *(["original", "centre hidden", "completed"]), "step 1", "step 2",
    ]  # fmt: skip
    for link in ("metrics", "curves", "images", "progress"):
        assert f'href="#{link}"' in page


def test_text_stands_under_its_images(tasks: Callable[..., Path]) -> None:
    page = write_report(tasks("text")).read_text()
    assert images(page)[:4] == ["real", "generated"] * 2
    assert page.count('<figcaption class="said">A red wall stands beside a grey floor.') == 1
    assert page.count('<figcaption class="said">A blue wall stands beside a grey floor.') == 1
    assert "letters" in page  # the encoder
    assert "what the task generated." in page


def test_maps_stand_beside_what_was_drawn_after_them(tasks: Callable[..., Path]) -> None:
    run = read_run(tasks("maps"))
    view = build_task_view(run, Path(run.provenance["data_folder"]), None, 512, lambda done: None)
    assert [[name for name, _ in shown.images] for shown in view.conditioned] == [["map", "real", "generated"]] * 2
    assert (view.completed, view.alone, view.split) == ((), (), "test")
    [first, second] = (shown.images[0][1] for shown in view.conditioned)
    assert (first == [128, 0, 0]).all()  # the palette's class 1
    assert (second == [0, 128, 0]).all()
    assert "tokenizer of its segmentation maps" in write_report(tasks("maps")).read_text()


def test_a_task_without_a_condition_draws_of_its_own_accord(tasks: Callable[..., Path], tmp_path: Path) -> None:
    run = read_run(tasks("unconditional"))
    data = Path(run.provenance["data_folder"])
    view = build_task_view(run, data, None, 512, lambda done: None)
    assert len(view.alone) == 12
    for shown in view.completed:
        original, hidden, completed = (image for _, image in shown.images)
        assert (original[:8] == completed[:8]).all()
        assert (hidden[8:] == 128).all()
        assert (original[:8] == hidden[:8]).all()
        assert (original[8:] != completed[8:]).any()
    again = build_task_view(run, data, None, 512, lambda done: None)
    assert all((a == b).all() for a, b in zip(view.alone, again.alone, strict=True))
    assert len(build_task_view(run, None, None, 512, lambda done: None).alone) == 12


def test_without_its_data_a_page_says_so(
    tasks: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tasks("text")
    told = (run / "provenance.json").read_text()
    (run / "provenance.json").write_text(json.dumps({**json.loads(told), "data_folder": str(tmp_path / "gone")}))
    page = write_report(run).read_text()
    (run / "provenance.json").write_text(told)
    assert "was not found; give it with --data" in page
    assert "Generated images" not in page


# --- side by side ---------------------------------------------------------------------------------------------------


def test_two_seeds_of_a_task_are_one_row(tasks: Callable[..., Path], tmp_path: Path) -> None:
    runs = [tasks("completion"), tasks("completion", seed=1)]
    better = copy.deepcopy(STORED)
    better["metrics"]["completed/right/psnr"] |= {"value": 17.25, "interval": [17.0, 17.5]}
    for run, stored in zip(runs, (STORED, better), strict=True):
        (run / "evaluation.json").write_text(json.dumps(stored))
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    for run in runs:
        (run / "evaluation.json").unlink()
    assert "completion-0 vs completion-1" in page
    assert "different seeds" not in page
    assert "2 seeds" in page
    # their mean is 16.525, they are 1.45 apart, and t of one degree of freedom is 12.7062
    assert '<td class="number">16.52<small class="ends">7.31 – 25.74</small></td>' in page
    assert page.count("number best") == 0  # there is no other row
    assert '15.80<small class="ends">15.10 – 16.40</small>' in page  # of every run
    assert "<i>… mean colour</i>" in page
    assert images(page)[:4] == ["original", "right hidden", "completion-0", "completion-1"]
    assert "None: the recipes are the same." in page


def test_tasks_of_different_kinds_have_a_table_each(tasks: Callable[..., Path], tmp_path: Path) -> None:
    runs = [tasks("text"), tasks("unconditional")]
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    assert "Not evaluated yet: text-0, unconditional-0. Evaluate with: tavq task evaluate RUN --data DATA" in page
    assert "These are different tasks, with a table each: diffusion, prior." in page
    assert "real" not in images(page)
    found = [read_run(run) for run in (runs[0], runs[0])]
    told = find_differences(found, make_task_tables(found))
    assert told[0].startswith("Not evaluated yet")
    assert told[1] == "text-0 repeats text-0 with its seed 0, and is left out."


def test_a_task_and_a_tokenizer_are_not_compared(tasks: Callable[..., Path], runs: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="text-0 is a task's run and aligned a tokenizer's"):
        write_comparison([runs.aligned, tasks("text")], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
