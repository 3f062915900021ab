"""Pages about tasks: what they show of each kind, what their figures are called, and what cannot be compared."""

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

from tavq.core.config import build
from tavq.core.errors import UsageError
from tavq.data.folder import FolderDataset
from tavq.data.images import save_png
from tavq.recipes.schema import TaskRecipe
from tavq.report.page import write_comparison, write_report
from tavq.report.run import read_run
from tavq.report.task.comparison import differences
from tavq.report.task.generation_view import look_at_task
from tavq.report.task.tables import tables_of
from tavq.report.task_measures import KINDS, cell, is_main, kinds_of, measure_of, place_of, places, title_of
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
EVALUATION: dict[str, Any] = {
    "images": 2,
    "training_images": 16,
    "split": "test",
    "data": "images",
    "seed": 0,
    "sampling": {"temperature": 1.0},
    "loss/task/masked": 4.25,
    "untrained/loss/task/masked": 5.5,
    "drawn/fd_scenes": 120.0,
    "drawn/kid_scenes": 6.0,
    "drawn/kid_scenes_standard_error": 0.5,
    "drawn/fd_scenes_warning": "2 images for 160 features.",
    "codes/fd_scenes": 30.0,
    "completed/right/psnr": 15.8,
    "completed/right/psnr_mean_colour": 14.4,
    "completed/right/distance_scenes_nearest": 0.75,
    "novelty/nearest_distance_scenes": 8.5,
    "novelty/nearest_distance_scenes_held_out": 7.5,
    "novelty/data_copying_scenes": 0.125,
    "novelty_warning": None,
    "drawn/text_r_precision": None,
    "intervals": {"completed/right/psnr": [15.1, 16.4]},
}


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


# --- figures --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "group", "row", "kind"),
    [
        ("loss/prior/nll", "loss", "prior/nll", "drawn"),
        ("untrained/loss/prior/nll", "loss", "prior/nll", "untrained"),
        ("drawn/fd_scenes", "sets", "fd_scenes", "drawn"),
        ("mixed/kid_scenes", "sets", "kid_scenes", "mixed"),
        ("shuffled/text_recall@5", "text", "text_recall@5", "shuffled"),
        ("completed/right/psnr", "completed/right", "psnr", "drawn"),
        ("completed/centre/ssim_mean_colour", "completed/centre", "ssim", "mean_colour"),
        ("completed/bottom/distance_scenes_nearest", "completed/bottom", "distance_scenes", "nearest"),
        ("completed/right/lpips_vgg", "completed/right", "lpips_vgg", "drawn"),
        ("novelty/nearest_distance_scenes_held_out", "novelty", "nearest_distance_scenes", "held_out"),
        ("novelty/data_copying_scenes", "novelty", "data_copying_scenes", "drawn"),
        ("drawn/answers", "asked", "answers", "drawn"),
        ("images/answers/color", "asked", "answers/color", "images"),
        ("shuffled/answers/color", "asked", "answers/color", "shuffled"),
        ("captions/CIDEr-D", "other", "captions/CIDEr-D", "drawn"),
        ("accuracy", "answers", "accuracy", "drawn"),
        ("what/else/accuracy", "answers", "what/else/accuracy", "drawn"),
        ("constant/color/WUPS@0.9", "answers", "color/WUPS@0.9", "constant"),
        ("constant/name/accuracy", "answers", "name/accuracy", "constant"),
        ("constant/name/accuracy@0.5", "boxes", "accuracy@0.5", "constant/name"),
        ("constant/mean_iou", "boxes", "mean_iou", "constant"),
        ("shuffled/CIDEr-D", "captions", "CIDEr-D", "others"),
        ("BLEU-4", "captions", "BLEU-4", "drawn"),
        ("masked-3/content/recall@5", "words", "masked-3/content/recall@5", "drawn"),
        ("constant/previous/masked-1/recall@1", "words", "masked-1/recall@1", "constant/previous"),
        ("chance/text_to_image/median_rank", "ranks", "text_to_image/median_rank", "chance"),
    ],
)
def test_every_figure_has_its_place(key: str, group: str, row: str, kind: str) -> None:
    place = place_of(key)
    assert (place.group, place.row, place.kind) == (group, row, kind)
    assert title_of(group)
    assert measure_of(group, row).name


def test_tables_have_what_is_a_number_in_the_order_of_the_page() -> None:
    found = places([EVALUATION, {"drawn/text_recall@1": 0.5, "untrained/fd_scenes": 1.0}])
    assert list(found) == ["sets", "text", "completed/right", "novelty", "loss"]
    assert list(found["sets"]) == ["fd_scenes", "kid_scenes"]
    assert list(found["text"]) == ["text_recall@1"]
    assert kinds_of(found["sets"]) == ["drawn", "untrained", "codes"]
    assert found["completed/right"]["psnr"] == {
        "drawn": "completed/right/psnr",
        "mean_colour": "completed/right/psnr_mean_colour",
    }
    printed = {key for rows in found.values() for row in rows.values() for key in row.values()}
    assert not printed & {"images", "seed", "training_images", "drawn/kid_scenes_standard_error"}


def test_measures_know_which_way_is_better() -> None:
    better = {
        ("completed/right", "psnr"): 1, ("completed/right", "ssim"): 1, ("completed/right", "distance_scenes"): -1,
        ("sets", "fd_scenes"): -1, ("text", "text_recall@10"): 1, ("text", "text_r_precision"): 1,
        ("novelty", "data_copying_scenes"): 0, ("loss", "prior/nll"): -1, ("other", "accuracy"): 0,
    }  # fmt: skip
    assert {key: measure_of(*key).better for key in better} == better
    assert measure_of("completed/right", "lpips_vgg").name == "LPIPS (vgg)"
    assert measure_of("completed/right", "distance_scenes").name == "Perceptual distance (scenes)"
    assert measure_of("sets", "fid").name == "FID"


@pytest.mark.parametrize(
    ("group", "row", "name", "better"),
    [
        ("asked", "answers", "Right answers", 1),
        ("asked", "answers/color", "Right answers: color", 1),
        ("answers", "how many/accuracy", "Right answers: how many", 1),
        ("answers", "color/WUPS@0.9", "WUPS@0.9: color", 1),
        ("captions", "CIDEr-D", "CIDEr-D", 1),
        ("boxes", "mean_iou", "Mean IoU", 1),
        ("words", "masked-3/content/recall@1", "3 missing, content words, right", 1),
        ("words", "masked-1/recall@5", "1 missing, all words, among the first 5", 1),
        ("ranks", "image_to_text/recall@10", "Text of an image, R@10", 1),
        ("ranks", "text_to_image/median_rank", "Image of a text, median rank", -1),
    ],
)
def test_figures_of_reading_in_words(group: str, row: str, name: str, better: int) -> None:
    measure = measure_of(group, row)
    assert (measure.name, measure.better) == (name, better)
    assert measure.meaning


def test_a_comparison_shows_a_few_figures_first() -> None:
    main = {
        "answers": ["accuracy", "color/accuracy"], "captions": ["CIDEr-D", "BLEU-4"],
        "boxes": ["accuracy@0.5", "mean_iou"], "words": ["masked-1/content/recall@1"],
        "ranks": ["text_to_image/recall@1", "image_to_text/median_rank"], "sets": ["fd_scenes", "fid"],
        "text": ["text_recall@1"], "asked": ["answers/color"], "completed/centre": ["psnr"],
    }  # fmt: skip
    other = {
        "answers": ["WUPS@0.9"], "captions": ["BLEU-1"], "words": ["masked-1/recall@1", "masked-1/content/recall@5"],
        "ranks": ["text_to_image/recall@5"], "sets": ["kid_scenes"], "text": ["text_recall@5"],
        "completed/centre": ["ssim"], "loss": ["prior/nll"], "novelty": ["data_copying_scenes"], "other": ["psnr"],
    }  # fmt: skip
    for rows, wanted in ((main, True), (other, False)):
        assert {(group, row): is_main(group, row) for group in rows for row in rows[group]} == {
            (group, row): wanted for group in rows for row in rows[group]
        }


def test_a_cell_holds_a_figure_and_its_interval() -> None:
    measure = measure_of("completed/right", "psnr")
    assert cell(measure, EVALUATION, "completed/right/psnr") == ("15.80", "15.10 – 16.40")
    assert cell(measure, EVALUATION, "completed/right/psnr_mean_colour") == ("14.40", "")
    assert cell(measure, EVALUATION, None) == ("–", "")
    assert cell(measure, EVALUATION, "drawn/text_r_precision") == ("–", "")


# --- pages ----------------------------------------------------------------------------------------------------------


def test_a_page_says_what_was_trained_and_shows_the_figures_beside_the_baselines(tasks: Callable[..., Path]) -> None:
    run = tasks("completion")
    before = write_report(run).read_text()
    assert "not evaluated yet. Run: tavq task evaluate RUN --data DATA" in before
    (run / "evaluation.json").write_text(json.dumps(EVALUATION))
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
    for title in ("Drawn images beside real ones", "Completion, the right half hidden", "Is anything copied?"):
        assert title in page
    for kind in ("drawn", "untrained", "mean_colour", "nearest", "codes", "held_out"):
        assert KINDS[kind][0] in page
        assert html.escape(KINDS[kind][1]) in page
    assert "<b>15.80</b>" in page
    assert "15.10 – 16.40" in page
    assert "12.5%" in page
    assert "2 images for 160 features." in page
    assert "Measured on 2 images of the split “test” of images; 16 training images to copy from." in page
    assert "Task: masked" in page  # the curve
    assert "step 2" in page  # the samples
    assert images(page) == [
        *(["original", "right hidden", "completed"]), *(["original", "centre hidden", "completed"]), "step 1", "step 2",
    ]  # fmt: skip
    for link in ("figures", "curves", "images", "progress"):
        assert f'href="#{link}"' in page


def test_text_stands_under_its_images(tasks: Callable[..., Path]) -> None:
    page = write_report(tasks("text")).read_text()
    assert images(page)[:4] == ["real", "drawn"] * 2
    assert page.count('<figcaption class="said">A red wall stands beside a grey floor.') == 1
    assert page.count('<figcaption class="said">A blue wall stands beside a grey floor.') == 1
    assert "letters" in page  # the encoder
    assert "drawn for them." in page


def test_maps_stand_beside_what_was_drawn_after_them(tasks: Callable[..., Path]) -> None:
    run = read_run(tasks("maps"))
    view = look_at_task(run, Path(run.provenance["data_folder"]), None, 512, lambda done: None)
    assert [[name for name, _ in shown.images] for shown in view.conditioned] == [["map", "real", "drawn"]] * 2
    assert (view.completed, view.alone, view.split) == ((), (), "test")
    [first, second] = (shown.images[0][1] for shown in view.conditioned)
    assert (first == [128, 0, 0]).all()  # the palette's class 1
    assert (second == [0, 128, 0]).all()
    assert "tokenizer of the maps" in write_report(tasks("maps")).read_text()


def test_a_task_without_a_condition_draws_of_its_own_accord(tasks: Callable[..., Path], tmp_path: Path) -> None:
    run = read_run(tasks("unconditional"))
    data = Path(run.provenance["data_folder"])
    view = look_at_task(run, data, None, 512, lambda done: None)
    assert len(view.alone) == 12
    for shown in view.completed:
        original, hidden, completed = (image for _, image in shown.images)
        assert (original[:8] == completed[:8]).all()
        assert (hidden[8:] == 128).all()
        assert (original[:8] == hidden[:8]).all()
        assert (original[8:] != completed[8:]).any()
    again = look_at_task(run, data, None, 512, lambda done: None)
    assert all((a == b).all() for a, b in zip(view.alone, again.alone, strict=True))
    assert len(look_at_task(run, None, None, 512, lambda done: None).alone) == 12


def test_without_its_data_a_page_says_so(
    tasks: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tasks("text")
    told = (run / "provenance.json").read_text()
    (run / "provenance.json").write_text(json.dumps({**json.loads(told), "data_folder": str(tmp_path / "gone")}))
    page = write_report(run).read_text()
    (run / "provenance.json").write_text(told)
    assert "was not found; give it with --data" in page
    assert "What it draws" not in page


# --- side by side ---------------------------------------------------------------------------------------------------


def test_two_seeds_of_a_task_are_one_row(tasks: Callable[..., Path], tmp_path: Path) -> None:
    runs = [tasks("completion"), tasks("completion", seed=1)]
    better = {**EVALUATION, "completed/right/psnr": 17.25, "intervals": {"completed/right/psnr": [17.0, 17.5]}}
    for run, evaluation in zip(runs, (EVALUATION, better), strict=True):
        (run / "evaluation.json").write_text(json.dumps(evaluation))
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    for run in runs:
        (run / "evaluation.json").unlink()
    assert "completion-0 against completion-1" in page
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
    assert "Not evaluated yet: text-0, unconditional-0. Run: tavq task evaluate RUN --data DATA" in page
    assert "These are different tasks, with a table each: diffusion, prior." in page
    assert "real" not in images(page)
    found = [read_run(run) for run in (runs[0], runs[0])]
    told = differences(found, tables_of(found))
    assert told[0].startswith("Not evaluated yet")
    assert told[1] == "text-0 repeats text-0 with its seed 0, and is left out."


def test_a_task_and_a_tokenizer_are_not_compared(tasks: Callable[..., Path], runs: Any, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="text-0 is a run of a task and aligned one of a tokenizer"):
        write_comparison([runs.aligned, tasks("text")], tmp_path / "page.html")
    assert not (tmp_path / "page.html").exists()
