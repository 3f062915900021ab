"""Figures in words: how they print, which is better, and that the outcome claims no more than was measured."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tavq.report.measures import MEASURES, Measure, best, measures_of, with_gap
from tavq.report.run import Run
from tavq.report.tokenizer import comparison

BY_KEY = {measure.key: measure for measure in MEASURES}
PSNR, L1, USAGE = BY_KEY["psnr"], BY_KEY["l1"], BY_KEY["usage"]


def test_directions() -> None:
    more = {"psnr", "ssim", "usage", "perplexity", "code_text_gap", "probe_code_text_cosine"}
    less = {"l1", "l2", "dead", "retrieval/image_to_text/median_rank", "word_code_mse"}
    for measure in MEASURES:
        expected = 1 if measure.key in more or "recall" in measure.key else -1 if measure.key in less else 0
        assert measure.better == expected, measure.key


@pytest.mark.parametrize(
    ("measure", "value", "text"),
    [
        (PSNR, 21.2641, "21.26 dB"),
        (PSNR, None, "–"),
        (USAGE, 0.0714, "7.1%"),
        (BY_KEY["dead"], 1234.0, "1,234"),
        (BY_KEY["code_text_gap"], -0.00126, "−0.0013"),
        (Measure("fd_x", "x", -1, ""), 2113.821, "2,113.8"),
    ],
)
def test_printed(measure: Measure, value: float | None, text: str) -> None:
    assert measure.text(value) == text


def test_differences_are_signed_and_as_precise_as_the_values() -> None:
    assert PSNR.difference(21.26, 21.0) == "+0.26 dB"
    assert PSNR.difference(21.0, 21.26) == "−0.26 dB"
    assert PSNR.difference(21.001, 21.0) == "="
    assert PSNR.difference(None, 21.0) == "–"
    assert USAGE.difference(0.5, 0.625) == "−12.5 points"
    assert Measure("fd_x", "x", -1, "").difference(2113.821, 2212.816) == "−99.0"


def test_best_follows_the_direction_and_names_ties() -> None:
    assert best(PSNR, [20.0, 22.0, 21.0]) == [1]
    assert best(L1, [0.2, 0.1, None]) == [1]
    assert best(L1, [0.1, 0.10000001, 0.3]) == [0, 1]
    assert best(PSNR, [20.0, 20.001]) == []  # both print as 20.00 dB
    assert best(PSNR, [20.0, None]) == []
    assert best(BY_KEY["code_text_cosine"], [0.1, 0.9]) == []


def test_nested_and_hostile_figures() -> None:
    recall = BY_KEY["retrieval/image_to_text/recall@1"]
    assert recall.of({"retrieval": {"image_to_text": {"recall@1": 0.25}}}) == 0.25
    for broken in ({}, {"retrieval": None}, {"retrieval": {"image_to_text": 3}}, {"retrieval": "<b>"}):
        assert recall.of(broken) is None
    assert PSNR.of({"psnr": "20"}) is None
    assert PSNR.of({"psnr": True}) is None


def test_only_measured_figures_are_listed_and_distances_are_named_by_their_network() -> None:
    found = measures_of([{"psnr": 20.0, "fd_scenes": 3.0, "fd_scenes_warning": "few"}, {"usage": 0.5, "l1": None}])
    assert [measure.key for measure in found] == ["psnr", "fd_scenes", "usage"]
    assert "'scenes'" in found[1].meaning
    assert "Not FID" in found[1].meaning


def test_the_gap_needs_both_cosines() -> None:
    assert with_gap({"code_text_cosine": 0.5, "code_text_cosine_shuffled": 0.25})["code_text_gap"] == 0.25
    assert with_gap({"code_text_cosine": 0.5, "code_text_cosine_shuffled": None})["code_text_gap"] is None


def run(name: str, evaluation: dict[str, Any] | None, **model: Any) -> Run:
    found = Run(Path(name), name, {}, {"data_sha256": "a"}, ({"step": 400},), (), evaluation)
    found.__dict__["model"] = {"step": 400, "seed": 0, "size": 64, **model}
    return found


EVALUATION = {"data_sha256": "a", "split": "test", "images": 300, "size": [64, 64], "psnr": 20.0, "l1": 0.2, "l2": 0.05}


def test_the_outcome_tells_who_is_ahead_by_how_much() -> None:
    runs = [
        run("plain", {**EVALUATION, "usage": 0.9, "dead": 10, "ssim": 0.5}),
        run("aligned", {**EVALUATION, "psnr": 20.5, "usage": 0.8, "dead": 20, "ssim": 0.50001}),
    ]
    ahead, other, even = comparison.outcome(runs)
    assert ahead == "plain is ahead on 1 of 4 figures: Codebook usage 90.0% against 80.0% (+10.0 points)."
    assert other == "aligned is ahead on 1 of 4 figures: PSNR 20.50 dB against 20.00 dB (+0.50 dB)."
    assert even == "No difference at the printed precision: SSIM, L1."


def test_a_figure_that_one_run_lacks_is_no_win() -> None:
    runs = [run("plain", {**EVALUATION, "psnr": 21.0}), run("aligned", {**EVALUATION, "code_text_gap": 0.2})]
    assert not any("minus others" in sentence for sentence in comparison.outcome(runs))
    assert comparison.outcome([runs[0], run("new", None)]) == []


def test_the_best_of_three_is_held_against_the_second() -> None:
    runs = [run(str(psnr), {"images": 9, "psnr": psnr}) for psnr in (20.0, 23.0, 22.0)]
    assert comparison.outcome(runs) == ["23.0 is ahead on 1 of 1 figures: PSNR 23.00 dB against 22.00 dB (+1.00 dB)."]


def test_what_makes_runs_hard_to_compare_is_told() -> None:
    plain = run("plain", EVALUATION)
    assert comparison.differences([plain, run("same", EVALUATION)]) == []
    other = replace(run("other", {**EVALUATION, "images": 100}), provenance={"data_sha256": "b"})
    other.__dict__["model"] = {"step": 300, "seed": 1, "size": 64}
    told = " ".join(comparison.differences([plain, other, run("new", None)]))
    for part in ("different data", "different seeds", "numbers of steps (plain: 400, other: 300", "images", "new."):
        assert part in told
    assert "sizes" not in told


def test_settings_that_differ_are_listed_once() -> None:
    recipes: list[dict[str, Any]] = [
        {"model": {"align": None, "net": 1}, "description": "a"},
        {"model": {"align": {"name": "ta"}, "net": 1}, "description": "b"},
    ]
    runs = [replace(run(str(n), None), recipe=recipe) for n, recipe in enumerate(recipes)]
    page = comparison.settings(runs)
    assert "model.align.name" in page
    assert ">model.align<" not in page
    assert "model.net" not in page
    assert "description" not in page
