"""Reading run folders: what may be missing, what is damaged, what is hostile."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from evaluation_files import evaluation_file

from tavq.core.errors import FileError, TavqError, UsageError
from tavq.metrics.alignment import retrieval
from tavq.metrics.record import by_key
from tavq.report.run import read_run, read_runs
from tavq.report.task.replicates import image_source
from tavq.report.tokenizer import comparison, sections

Make = Callable[..., Path]
MANIFEST = {
    "format": 2,
    "encoder": {"name": "letters", "sha256": "0" * 64, "width": 6, "precision": "float32"},
    "splitter": {"name": "pattern", "version": "2"},
    "bytes": 1,
    "sha256": "1" * 64,
}
"""Of a text store, without what an older version names differently."""


@pytest.mark.parametrize(("part", "name"), [("config", "model/config.json"), ("log", "log.jsonl")])
def test_a_run_without_model_or_log_is_refused_in_one_line(folder_run: Make, part: str, name: str) -> None:
    with pytest.raises(UsageError, match="is not a finished run") as error:
        read_run(folder_run(**{part: None}))
    assert name in str(error.value)
    assert "\n" not in str(error.value)


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="none does not exist"):
        read_run(tmp_path / "none")


def test_other_files_may_be_missing(folder_run: Make) -> None:
    run = read_run(folder_run())
    assert run.evaluation is None
    assert (dict(run.recipe), dict(run.provenance), run.samples()) == ({}, {}, [])
    assert "tavq evaluate" in sections.render_metrics(run)


@pytest.mark.parametrize("text", ["", "{", "[1]", '"text"', '{"psnr": NaN', "\x00"])
@pytest.mark.parametrize("part", ["evaluation", "provenance"])
def test_a_damaged_file_is_named(folder_run: Make, part: str, text: str) -> None:
    with pytest.raises(FileError, match=f"{part}.json"):
        read_run(folder_run(**{part: text}))


@pytest.mark.parametrize("config", ["{}", '{"size": "big"}'])
def test_a_model_that_does_not_say_its_size_is_refused(folder_run: Make, config: str) -> None:
    with pytest.raises(TavqError, match=r"config\.json"):
        _ = read_run(folder_run(config=config)).size


def test_recipe_and_provenance_of_an_older_version_have_the_current_names(folder_run: Make) -> None:
    recipe = {
        "train": {"steps": 3, "batch": 2},
        "task": {"name": "vqa", "picture": {"source": "features"}, "longest": 9},
    }
    text = MANIFEST | {"whole": False, "half": True, "pictures": 8}
    folder = folder_run(provenance=json.dumps({"pictures": 96, "kind_of_pictures": "pictures", "text": text}))
    (folder / "recipe.yaml").write_text(json.dumps(recipe))
    run = read_run(folder)
    assert run.recipe["task"]["image"]["source"] == image_source(run) == "features"
    assert run.recipe["task"]["max_length"] == 9
    assert (run.provenance["images"], run.provenance["kind_of_images"]) == (96, "images")
    stored = run.provenance["text"]
    assert (stored["full_text"], stored["float16"], stored["images"]) == (False, True, 8)
    assert stored["encoder"] == MANIFEST["encoder"]


def test_a_recipe_of_another_program_is_shown_as_it_is(folder_run: Make) -> None:
    folder = folder_run(provenance='{"text": {"encoder": "?"}}')
    (folder / "recipe.yaml").write_text("model: {codebook: {name: of-a-stranger}}")
    run = read_run(folder)
    assert run.recipe == {"model": {"codebook": {"name": "of-a-stranger"}}}
    assert run.provenance == {"text": {"encoder": "?"}}


def test_levels_share_the_chart_of_a_codebook_quantity(folder_run: Make) -> None:
    values = {"codebook/usage": 0.5, "codebook/low/usage": 0.01, "codebook/low/positions": 9, "codebook/loss": 1.0}
    alarm = {"alarm": "codebook collapse", "level": "low", "sign": "Few."}
    lines = [{"step": step, **values, "codebook/low/perplexity": 2.0} for step in (1, 2)]
    run = read_run(folder_run(log="".join(json.dumps(line) + "\n" for line in [*lines, {"step": 2, **alarm}])))
    page = sections.render_curves(run)
    assert page.count("<svg") == 3  # codebook losses, usage of two levels, perplexity of one
    usage = page[page.index("Codebook usage") :]
    assert usage.index(">deep<") < usage.index(">low<") < usage.index("Codebook perplexity")
    assert "positions" not in page
    described = sections.describe_alarms(run)
    assert "first at step 2 for the level “low”. Few. At step 2, the last one logged, usage was 1.0%" in described
    both = comparison.render_curves([run, run])
    assert "Codebook usage (fraction of entries chosen since the last log line), level “low”" in both


def test_a_log_with_alarms_and_unreadable_lines(folder_run: Make) -> None:
    lines = [
        '{"step": 1, "a/b": 2.0, "note": "text"}',
        '{"step": 2, "alarm": "codebook collapse", "sign": "Few.", "cause": "<b>.", "remedy": "more."}',
        "[]",
        '{"a/b": 5.0}',
        '{"step": 3, "a/b": "<b>"}',
        '{"step": 4, "a/b": 1}',
        '{"step": 5, "a/b"',
    ]
    run = read_run(folder_run(log="\n".join(lines)))
    assert run.curve("a/b") == ([1.0, 4.0], [2.0, 1.0])
    assert sections.list_logged_keys([run]) == ["a/b"]
    page = sections.render_curves(run)
    assert page.count('class="alarm"') == 1
    assert "Red lines mark alarms" in page
    assert (
        sections.describe_alarms(run)
        == "The alarm “codebook collapse” was raised once, first at step 2. Few. <b>. Try: more."
    )


def test_equal_curves_share_a_line(folder_run: Make) -> None:
    run = read_run(
        folder_run(
            log='{"step": 1, "q/a": 1.0, "q/b": 1.0, "q/c": 2.0}\n{"step": 2, "q/a": 3.0, "q/b": 3.0, "q/c": 2.0}\n'
        )
    )
    page = sections.render_curves(run)
    assert page.count("<polyline") == 2
    assert "a = b" in page


@pytest.mark.parametrize("value", ["many", None, [1], True, -1])
def test_strange_details_break_no_page(folder_run: Make, value: Any) -> None:
    details = dict.fromkeys(("images", "size", "images_with_text", "split", "data"), value)
    run = read_run(folder_run(evaluation=json.dumps(evaluation_file({"psnr": 20.0}, **details))))
    assert "Measured on" in sections.render_metrics(run)


def test_an_evaluation_of_an_older_version_is_not_read_and_says_what_to_do(folder_run: Make) -> None:
    run = read_run(folder_run(evaluation='{"psnr": 20.0, "images": 3, "intervals": {"psnr": [19.0, 21.0]}}'))
    assert run.evaluation is None
    page = sections.render_metrics(run)
    assert "by an older version; evaluate it again with: tavq evaluate RUN --data DATA" in page
    assert comparison.find_unevaluated([run, run]) == [
        "Evaluated by an older version: run, run. Evaluate again with: tavq evaluate RUN --data DATA"
    ]


def test_an_evaluation_of_a_newer_version_is_refused(folder_run: Make) -> None:
    with pytest.raises(FileError, match="written by another version"):
        read_run(folder_run(evaluation='{"format": 3, "metrics": {}}'))


def test_the_page_shows_the_chance_level_of_retrieval(folder_run: Make) -> None:
    metrics = by_key(retrieval(torch.eye(200), torch.eye(200)))
    values = {key: metric.value for key, metric in metrics.items()}
    content = evaluation_file(values, metrics=metrics)
    page = sections.render_metrics(read_run(folder_run(evaluation=json.dumps(content))))
    assert "Among 200 candidates; guessing would score 0.5% at R@1 and 2.5% at R@5." in page


def test_runs_with_the_same_name_get_distinct_names(folder_run: Make, tmp_path: Path) -> None:
    first = folder_run()
    second = tmp_path / "more" / "run"
    second.parent.mkdir()
    first.rename(second)
    first = folder_run()
    names = [run.name for run in read_runs([first, second])]
    assert names == [f"{tmp_path.name}/run", "more/run"]
    for wrong in ([first], [first, first]):
        with pytest.raises(TavqError, match="comparison needs"):
            read_runs(wrong)
