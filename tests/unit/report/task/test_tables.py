"""The table of a comparison of tasks: which runs are one row, what it says, and what it warns of."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from evaluation_files import evaluation_file

from tavq.cli import run as command
from tavq.core.config import apply_overrides
from tavq.report.page import write_comparison
from tavq.report.run import Run, read_run, read_runs
from tavq.report.task.comparison import find_differences
from tavq.report.task.replicates import estimate_mean, group_replicates
from tavq.report.task.tables import format_cells, make_task_tables, table_as_json

EVALUATION: dict[str, Any] = {
    "accuracy": 0.5, "accuracy/color": 0.75, "constant/accuracy": 0.25, "constant/accuracy/color": 0.125,
    "WUPS@0.9": 0.6, "split": "test", "data": "scenes", "data_sha256": "d", "model": "weights",
    "intervals": {"accuracy": [0.4, 0.6], "constant/accuracy": [0.2, 0.3]},
}  # fmt: skip
RECIPE: dict[str, Any] = {
    "description": "A test.",
    "task": {"name": "vqa", "image": {"source": "codes"}, "hidden": 8},
    "train": {"steps": 10, "batch": 4, "seed": 0, "log_every": 1},
}

Make = Callable[..., Path]


@pytest.fixture
def make(tmp_path: Path) -> Make:
    """A run folder of files alone: settings by dotted name, a tokenizer, and an evaluation or none."""

    def made(
        name: str, evaluation: dict[str, Any] | None = EVALUATION, tokenizer: str = "plain", size: int = 16,
        data: str = "d", method: str | None = None, told: str | None = None, **settings: Any,
    ) -> Path:  # fmt: skip
        run = tmp_path / name
        recipe = apply_overrides(RECIPE, {key.replace("__", "."): value for key, value in settings.items()})
        facts = {"tokenizer": f"sha of {tokenizer}", "tokenizer_name": tokenizer, "size": size, "data_sha256": data}
        facts |= {"tokenizer_method_hash": method, "tokenizer_seed": told or tokenizer} if method else {}
        train = recipe["train"]
        model = {"kind": "task", "seed": train["seed"], "step": train["steps"], "size": size}
        (run / "model").mkdir(parents=True)
        (run / "model" / "config.json").write_text(json.dumps({**model, "model": {"task": recipe["task"]}}))
        (run / "recipe.yaml").write_text(json.dumps(recipe))
        (run / "provenance.json").write_text(json.dumps(facts))
        (run / "log.jsonl").write_text('{"step": 1, "vqa/answer": 2.0}\n')
        if evaluation is not None:
            (run / "evaluation.json").write_text(json.dumps(as_file(evaluation)))
        return run

    return made


def as_file(evaluation: dict[str, Any]) -> dict[str, Any]:
    """Values by key, `intervals` and details, which are texts, as a file holds them."""
    details = {key: value for key, value in evaluation.items() if isinstance(value, str)}
    values = {key: value for key, value in evaluation.items() if key not in details and key != "intervals"}
    return evaluation_file(values, evaluation.get("intervals"), **details)


def scored(accuracy: float, **changes: Any) -> dict[str, Any]:
    return {**EVALUATION, "accuracy": accuracy, **changes}


def three(make: Make, **changes: Any) -> list[Path]:
    values = (0.4, 0.5, 0.6)
    return [make(f"seed-{seed}", scored(of), train__seed=seed, **changes) for seed, of in enumerate(values)]


def names(runs: list[Run]) -> list[tuple[str, list[str]]]:
    return [(row.name, [run.name for run in row.runs]) for row in group_replicates(runs)[0]]


# --- which runs are one row -----------------------------------------------------------------------------------------


def test_seeds_are_one_row_and_what_is_seen_makes_another(make: Make) -> None:
    folders = [
        make("a"),
        make("none", task__image__source="none"),
        make("b", train__seed=1, train__log_every=5, description="Otherwise."),
        make("features", task__image__source="features"),
        make("ta", tokenizer="ta"),
    ]
    assert names(read_runs(folders)) == [
        ("plain: codes", ["a", "b"]),
        ("no image at all", ["none"]),
        ("plain: features before quantization", ["features"]),
        ("ta: codes", ["ta"]),
    ]


@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"train__steps": 20}, "plain: codes (train.steps {})"),
        ({"task__hidden": 9}, "plain: codes (task.hidden {})"),
        ({"data": "e"}, "plain: codes ({})"),
        ({"size": 32}, "plain: codes ({})"),
        ({"evaluation": scored(0.5, split="val")}, "plain: codes ({})"),
        ({"evaluation": scored(0.5, data_sha256="e")}, "plain: codes ({})"),
    ],
)
def test_what_differs_otherwise_is_never_averaged(make: Make, changes: dict[str, Any], name: str) -> None:
    found = names(read_runs([make("a"), make("b", train__seed=1, **changes)]))
    values = {"train__steps": (10, 20), "task__hidden": (8, 9)}.get(next(iter(changes)), ("a", "b"))
    assert found == [(name.format(values[0]), ["a"]), (name.format(values[1]), ["b"])]


def test_a_run_twice_counts_once(make: Make) -> None:
    rows, repeated = group_replicates(read_runs([make("a"), make("b", train__seed=1), make("again")]))
    assert [[run.name for run in row.runs] for row in rows] == [["a", "b"]]
    assert repeated == ["again repeats a with its seed 0, and is left out."]


def test_a_run_that_was_not_evaluated_joins_its_row(make: Make) -> None:
    runs = read_runs([make("bare", None), make("a", train__seed=1)])
    assert names(runs) == [("plain: codes", ["bare", "a"])]
    [table] = make_task_tables(runs)
    assert format_cells(table)[0] == ["plain: codes", "1 seed", "50.0%\n40.0% – 60.0%", "75.0%"]


def test_a_run_without_the_name_of_its_tokenizer_has_its_sha256(make: Make) -> None:
    folder = make("a")
    told = json.loads((folder / "provenance.json").read_text())
    del told["tokenizer_name"]
    (folder / "provenance.json").write_text(json.dumps(told))
    assert names([read_run(folder)]) == [("tokenizer sha of p: codes", ["a"])]


def test_tokenizers_of_other_seeds_are_one_row(make: Make) -> None:
    folders = [
        make("a", tokenizer="ta-0", method="ta"),
        make("b", tokenizer="ta-1", method="ta"),  # of the same seed: no repetition, for the tokenizer is another
        make("c", tokenizer="ta-0", method="ta", train__seed=1),
        make("f", tokenizer="ta-9", method="ta", told="ta-0"),  # of a seed that is there, perhaps on another machine
        make("d", tokenizer="plain", method="plain"),
        make("e", tokenizer="ta-2"),  # does not tell how it was made
    ]
    found = names(read_runs(folders))
    assert found == [("ta-0, ta-1: codes", ["a", "b", "c"]), ("plain: codes", ["d"]), ("ta-2: codes", ["e"])]


# --- what a row says ------------------------------------------------------------------------------------------------


def test_seeds_have_students_interval_and_one_seed_its_own(make: Make) -> None:
    several = read_runs(three(make))
    found = estimate_mean(several, "accuracy")
    assert found is not None
    # standard error 0.1 / sqrt(3), t of two degrees of freedom 4.302653
    assert found.value == pytest.approx(0.5)
    assert found.interval == pytest.approx((0.5 - 0.2484138, 0.5 + 0.2484138))
    assert (found.over, found.each) == ("seeds", (0.4, 0.5, 0.6))
    alone = estimate_mean(several[:1], "accuracy")
    assert alone is not None
    assert (alone.value, alone.interval, alone.over) == (0.4, (0.4, 0.6), "images")
    same = estimate_mean(several, "constant/accuracy")  # seeds have no part in it
    assert same is not None
    assert (same.value, same.interval, same.over) == (0.25, (0.2, 0.3), "images")
    bare = estimate_mean(several[:1], "accuracy/color")
    assert bare is not None
    assert (bare.interval, bare.over) == (None, None)
    assert estimate_mean([read_run(make("none", scored(None)))], "accuracy") is None


def test_no_tokenizer_has_a_part_in_what_sees_no_image(make: Make) -> None:
    blind = {"task__image__source": "none"}
    folders = [
        make("a", scored(0.3), tokenizer="ta", **blind),
        make("b", scored(0.4), tokenizer="plain", train__seed=1, **blind),
        make("c", scored(0.3), tokenizer="plain", **blind),
    ]
    rows, repeated = group_replicates(read_runs(folders))
    assert [(row.name, [run.name for run in row.runs]) for row in rows] == [("no image at all", ["a", "b"])]
    assert repeated == ["c repeats a with its seed 0, and is left out."]
    found = estimate_mean(rows[0].runs, "accuracy")
    assert found is not None
    assert (found.over, found.each) == ("seeds", (0.3, 0.4))
    assert table_as_json(make_task_tables(read_runs(folders))[0])["rows"][0]["tokenizers"] == []


def test_tokenizers_whose_means_agree_have_the_interval_of_images(make: Make) -> None:
    told = [("ta-0", 0, 0.25), ("ta-0", 1, 0.5), ("ta-1", 0, 0.25), ("ta-1", 1, 0.5)]
    runs = [
        make(f"{name}-{seed}", scored(value), tokenizer=name, method="ta", train__seed=seed)
        for name, seed, value in told
    ]
    found = estimate_mean(read_runs(runs), "accuracy")
    assert found is not None
    assert (found.value, found.interval, found.over) == (0.375, (0.4, 0.6), "images")


def test_runs_that_were_not_evaluated_name_nothing(make: Make) -> None:
    runs = read_runs([make("a", tokenizer="ta-0", method="ta"), make("b", None, tokenizer="ta-1", method="ta")])
    [table] = make_task_tables(runs)
    row = table_as_json(table)["rows"][0]
    assert (row["name"], row["runs"], row["seeds"], row["not_evaluated"]) == ("ta-0: codes", ["a"], [0], ["b"])
    assert [one["name"] for one in row["tokenizers"]] == ["ta-0"]


def test_a_tokenizer_counts_once_however_many_runs_it_has(make: Make) -> None:
    folders = [
        make("a", scored(0.2), tokenizer="ta-0", method="ta"),
        make("b", scored(0.4), tokenizer="ta-0", method="ta", train__seed=1),
        make("c", scored(0.5), tokenizer="ta-1", method="ta"),
        make("d", scored(0.7), tokenizer="ta-2", method="ta"),
    ]
    [table] = make_task_tables(read_runs(folders))
    found = table.lines[0].estimates[0]
    assert found is not None
    # means 0.3, 0.5, 0.7: standard error 0.2 / sqrt(3), t of two degrees of freedom 4.302653
    assert found.value == pytest.approx(0.5)
    assert found.interval == pytest.approx((0.5 - 0.49682755, 0.5 + 0.49682755), abs=1e-7)
    assert (found.over, found.each) == ("tokenizers", (0.2, 0.4, 0.5, 0.7))
    assert format_cells(table)[0][:2] == ["ta-0, ta-1, ta-2: codes", "3 tokenizers, 4 runs"]
    assert table_as_json(table)["rows"][0]["tokenizers"] == [
        {"name": name, "sha256": f"sha of {name}"} for name in ("ta-0", "ta-1", "ta-2")
    ]


def test_the_table_has_main_metrics_and_baselines_below(make: Make) -> None:
    [table] = make_task_tables(read_runs([*three(make), make("blind", scored(0.25), task__image__source="none")]))
    assert [column.metric.title for column in table.columns] == ["Accuracy", "Accuracy: color"]
    assert format_cells(table) == [
        ["plain: codes", "3 seeds", "50.0%\n25.2% – 74.8%", "75.0%"],
        ["no image at all", "1 seed", "25.0%\n40.0% – 60.0%", "75.0%"],
        ["  … constant answer", "", "25.0%\n20.0% – 30.0%", "12.5%"],
    ]


def test_a_baseline_that_is_a_rows_own_stands_below_it(make: Make) -> None:
    captions = {"CIDEr-D": 1.0, "shuffled/CIDEr-D": 0.5, "constant/CIDEr-D": 0.25, "split": "test"}
    own = {"task__name": "captioning", "task__image__source": "codes"}
    [table] = make_task_tables(
        read_runs([
            make("a", captions, **own),
            make("b", {**captions, "shuffled/CIDEr-D": 0.625}, tokenizer="ta", **own),
        ])
    )  # fmt: skip
    assert [line[0] for line in format_cells(table)] == [
        "plain: codes", "  … another image's", "ta: codes", "  … another image's", "  … constant answer",
    ]  # fmt: skip
    assert [line[2] for line in format_cells(table)] == ["1.000", "0.500", "1.000", "0.625", "0.250"]


def test_each_task_has_a_table(make: Make) -> None:
    runs = read_runs([make("a"), make("b", {"mean_iou": 0.5}, task__name="grounding", train__batch=8)])
    assert [table.task for table in make_task_tables(runs)] == ["vqa", "grounding"]
    # their budgets are told within a task alone
    assert find_differences(runs, make_task_tables(runs)) == [
        "These are different tasks, with a table each: vqa, grounding."
    ]


def test_budgets_that_differ_are_told(make: Make) -> None:
    runs = read_runs([make("a"), make("b", tokenizer="ta", data="e", train__steps=20, train__batch=8, train__seed=1)])
    assert find_differences(runs, make_task_tables(runs)) == [
        "These runs were trained on different data (plain: codes: d, ta: codes: e).",
        "These runs were trained for different numbers of steps (plain: codes: 10, ta: codes: 20).",
        "These runs were trained with different batch sizes (plain: codes: 4, ta: codes: 8).",
        "The rows use different seeds (plain: codes: 0; ta: codes: 1).",
    ]
    both = read_runs([make("c"), make("d", scored(0.5, split="val"), tokenizer="ta")])
    assert "split differs between the evaluations" in find_differences(both, make_task_tables(both))[0]


# --- where it is shown ----------------------------------------------------------------------------------------------


def test_a_file_keeps_every_seed(make: Make) -> None:
    [table] = make_task_tables(read_runs([*three(make), make("ta", scored(0.3), tokenizer="ta")]))
    told = table_as_json(table)
    assert json.loads(json.dumps(told)) == told
    assert told["columns"][0] == {"metric": "accuracy", "title": "Accuracy", "better": 1}
    first = told["rows"][0]
    assert {key: first[key] for key in ("name", "baseline", "tokenizers", "source", "seeds")} == {
        "name": "plain: codes", "baseline": None, "tokenizers": [{"name": "plain", "sha256": "sha of plain"}],
        "source": "codes", "seeds": [0, 1, 2],
    }  # fmt: skip
    assert first["metrics"]["accuracy"]["each"] == [0.4, 0.5, 0.6]
    assert first["metrics"]["accuracy"]["over"] == "seeds"
    assert told["rows"][-1]["baseline"] == "constant"
    assert "runs" not in told["rows"][-1]


def test_the_page_has_the_table_and_marks_the_best_row(make: Make, tmp_path: Path) -> None:
    runs = [*three(make), make("ta", scored(0.7), tokenizer="ta <b>")]
    page = write_comparison(runs, tmp_path / "page.html").read_text()
    assert '<td class="number best">70.0%<small class="ends">40.0% – 60.0%</small>' in page
    assert page.count("number best") == 1
    assert '<td class="number">50.0%<small class="ends">25.2% – 74.8%</small>' in page
    assert "ta &lt;b&gt;: codes" in page
    assert "seed-0, seed-1, seed-2" in page
    assert "WUPS@0.9" in page  # among every metric


def test_the_command_prints_the_table_and_writes_it(
    make: Make, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    runs = [str(run) for run in (*three(make), make("ta", scored(0.3), tokenizer="ta", train__batch=8))]
    place = tmp_path / "table.json"
    assert command(["compare", *runs, "--out", str(tmp_path / "page.html"), "--json", str(place)]) == 0
    said = capsys.readouterr()
    for part in ("plain: codes", "3 seeds", "25.2% – 74.8%", "Accuracy ↑", "… constant answer"):
        assert part in said.out
    assert "different batch sizes (plain: codes: 4, ta: codes: 8)" in said.err
    told = json.loads(place.read_text())
    assert [table["task"] for table in told["tables"]] == ["vqa"]
    assert len(told["differences"]) == 2


def test_of_tokenizers_there_is_no_table(runs: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    call = ["compare", str(runs.plain), str(runs.aligned), "--json", str(tmp_path / "table.json")]
    assert command([*call, "--out", str(tmp_path / "page.html")]) == 2
    assert "--json is for runs of tasks" in capsys.readouterr().err
    assert not (tmp_path / "page.html").exists()
