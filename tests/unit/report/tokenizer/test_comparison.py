"""Comparison of tokenizers: the outcome claims no more than was measured, and differences between runs are reported."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from evaluation_files import evaluation

from tavq.metrics.record import Evaluation
from tavq.report.run import Run
from tavq.report.tokenizer import comparison


def run(name: str, evaluated: Evaluation | None, **model: Any) -> Run:
    found = Run(Path(name), name, {}, {"data_sha256": "a"}, ({"step": 400},), (), evaluated)
    found.__dict__["model"] = {"step": 400, "seed": 0, "size": 64, **model}
    return found


DETAILS: dict[str, Any] = {"data_sha256": "a", "split": "test", "images": 300, "size": [64, 64]}


def evaluated(images: int = 300, **values: float) -> Evaluation:
    details = {**DETAILS, "images": images}
    return evaluation({"psnr": 20.0, "l1": 0.2, "l2": 0.05, **values}, **details)


def test_the_outcome_says_which_run_is_ahead_and_by_how_much() -> None:
    runs = [
        run("plain", evaluated(usage_deep=0.9, dead_deep=10, ssim=0.5)),
        run("aligned", evaluated(psnr=20.5, usage_deep=0.8, dead_deep=20, ssim=0.50001)),
    ]
    ahead, other, even = comparison.describe_outcome(runs)
    assert ahead == "plain is ahead on 1 of 4 metrics: Codebook usage 90.0% vs 80.0% (+10.0 points)."
    assert other == "aligned is ahead on 1 of 4 metrics: PSNR 20.50 dB vs 20.00 dB (+0.50 dB)."
    assert even == "No difference at the printed precision: L1, SSIM."


def test_a_metric_that_one_run_lacks_is_no_win() -> None:
    runs = [run("plain", evaluated(psnr=21.0)), run("aligned", evaluated(code_text_gap=0.2))]
    assert not any("minus others" in sentence for sentence in comparison.describe_outcome(runs))
    assert comparison.describe_outcome([runs[0], run("new", None)]) == []


def test_the_best_of_three_is_compared_with_the_second() -> None:
    runs = [run(str(psnr), evaluation({"psnr": psnr}, images=9)) for psnr in (20.0, 23.0, 22.0)]
    assert comparison.describe_outcome(runs) == [
        "23.0 is ahead on 1 of 1 metrics: PSNR 23.00 dB vs 22.00 dB (+1.00 dB)."
    ]


def test_differences_between_the_runs_are_reported() -> None:
    plain = run("plain", evaluated())
    assert comparison.differences([plain, run("same", evaluated())]) == []
    other = replace(run("other", evaluated(100)), provenance={"data_sha256": "b"})
    other.__dict__["model"] = {"step": 300, "seed": 1, "size": 64}
    text = " ".join(comparison.differences([plain, other, run("new", None)]))
    for part in ("different data", "different seeds", "numbers of steps (plain: 400, other: 300", "images", "new."):
        assert part in text
    assert "sizes" not in text


def test_settings_that_differ_are_listed_once() -> None:
    recipes: list[dict[str, Any]] = [
        {"model": {"align": None, "net": 1}, "description": "a"},
        {"model": {"align": {"name": "ta"}, "net": 1}, "description": "b"},
    ]
    runs = [replace(run(str(n), None), recipe=recipe) for n, recipe in enumerate(recipes)]
    page = comparison.render_differing_settings(runs)
    assert "model.align.name" in page
    assert ">model.align<" not in page
    assert "model.net" not in page
    assert "description" not in page
