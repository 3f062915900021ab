"""A metric as a record: how it prints, which value is better, and that files keep all of it."""

import json
from dataclasses import replace
from typing import Any

import pytest
from evaluation_files import METRICS, evaluation, evaluation_file

from tavq.core.errors import DataError, FileError
from tavq.metrics.record import (
    CONSTANT,
    Evaluation,
    Group,
    Metric,
    evaluation_as_json,
    evaluation_from_json,
    for_baseline,
)

GROUP = Group("test", "Test", "A note.")
PSNR, L1, USAGE = METRICS["psnr"], METRICS["l1"], METRICS["usage_deep"]
FRECHET = Metric("fd_x", "x", GROUP, better=-1)


@pytest.mark.parametrize(
    ("metric", "value", "text"),
    [
        (PSNR, 21.2641, "21.26 dB"),
        (PSNR, None, "–"),
        (USAGE, 0.0714, "7.1%"),
        (METRICS["dead_deep"], 1234.0, "1,234"),
        (METRICS["code_text_gap"], -0.00126, "−0.0013"),
        (FRECHET, 2113.821, "2,113.8"),
    ],
)
def test_printed(metric: Metric, value: float | None, text: str) -> None:
    assert metric.text(value) == text


def test_intervals_print_as_their_values() -> None:
    assert PSNR.interval_text((20.0, 22.456)) == "20.00 dB – 22.46 dB"
    assert PSNR.interval_text(None) == ""


def test_differences_are_signed_and_as_precise_as_the_values() -> None:
    assert PSNR.difference(21.26, 21.0) == "+0.26 dB"
    assert PSNR.difference(21.0, 21.26) == "−0.26 dB"
    assert PSNR.difference(21.001, 21.0) == "="
    assert PSNR.difference(None, 21.0) == "–"
    assert USAGE.difference(0.5, 0.625) == "−12.5 points"
    assert FRECHET.difference(2113.821, 2212.816) == "−99.0"


def test_best_follows_the_direction_and_names_ties() -> None:
    assert PSNR.best([20.0, 22.0, 21.0]) == [1]
    assert L1.best([0.2, 0.1, None]) == [1]
    assert L1.best([0.1, 0.10000001, 0.3]) == [0, 1]
    assert PSNR.best([20.0, 20.001]) == []  # both print as 20.00 dB
    assert PSNR.best([20.0, None]) == []
    assert METRICS["code_text_cosine"].best([0.1, 0.9]) == []


def test_a_baseline_has_a_key_of_its_own() -> None:
    [other] = for_baseline(CONSTANT, [PSNR.measured(3.0)])
    assert (PSNR.key, other.key, other.value) == ("psnr", "constant/psnr", 3.0)


def test_nan_is_undefined() -> None:
    assert PSNR.measured(float("nan")).value is None


def test_values_are_found_by_key() -> None:
    found = evaluation({"psnr": 20.0, "constant/accuracy": 0.5}, {"psnr": [19.0, 21.0]})
    assert (found["psnr"].value, found["psnr"].interval) == (20.0, (19.0, 21.0))
    assert "constant/accuracy" in found
    assert "accuracy" not in found
    with pytest.raises(KeyError, match="'ssim' was not measured; known: psnr, constant/accuracy"):
        found["ssim"]


def test_two_metrics_of_one_key_are_refused() -> None:
    with pytest.raises(DataError, match="Two metrics are called 'psnr'"):
        Evaluation((PSNR, L1, PSNR), {})


def test_each_warning_is_listed_once() -> None:
    twice = tuple(replace(metric, warning="Too few.") for metric in (PSNR, L1))
    assert Evaluation((*twice, USAGE), {}).warnings == ["Too few."]


def test_a_file_keeps_everything() -> None:
    metrics = (
        Metric("a/b", "A", GROUP, 0.25, (0.1, 0.5), None, 7, 1, None, "Means a.", "Beware.", 2, "dB", False, True),
        Metric("a/b", "A", GROUP, 3, standard_error=0.5, baseline=CONSTANT, percent=True),
        Metric("none", "None", Group("other", "Other")),
    )
    found = Evaluation(metrics, {"split": "test", "images": 3, "protocol": {"a": [1]}})
    stored = evaluation_as_json(found)
    assert evaluation_from_json(json.loads(json.dumps(stored, allow_nan=False)), "x") == found
    assert stored["format"] == 2
    assert stored["metrics"]["a/b"]["value"] == 0.25
    assert stored["metrics"]["constant/a/b"]["baseline"] == "constant"
    assert stored["groups"]["test"] == {"title": "Test", "note": "A note."}


@pytest.mark.parametrize("content", [{}, {"psnr": 20.0, "intervals": {}}, {"format": 1}, {"format": 3}, [], None])
def test_another_format_is_refused_with_the_remedy(content: Any) -> None:
    with pytest.raises(FileError, match=r"run/evaluation.json was written by another version.*tavq evaluate RUN"):
        evaluation_from_json(content, "run/evaluation.json")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"value": "high"}, "'psnr' must be a number, not 'high'"),
        ({"value": True}, "'psnr' must be a number, not True"),
        ({"value": float("nan")}, "'psnr' must be a number, not nan"),
        ({"value": 10**400}, "'psnr' must be a number, not 1000"),
        ({"standard_error": "low"}, "'psnr' must be a number, not 'low'"),
        ({"interval": {"low": 1}}, r"interval of 'psnr' must be two numbers, not .'low': 1"),
        ({"interval": ["a", None]}, r"must be two numbers, not \['a', None\]"),
        ({"interval": [0.1]}, r"must be two numbers, not \[0.1\]"),
        ({"group": "nowhere"}, r"is damaged .*nowhere"),
        ({"baseline": "nobody"}, r"is damaged .*nobody"),
        ({"colour": "red"}, r"is damaged .*colour"),
    ],
)
def test_a_damaged_file_is_named(changes: dict[str, Any], says: str) -> None:
    content = evaluation_file({"psnr": 20.0})
    content["metrics"]["psnr"] |= changes
    with pytest.raises(FileError, match=f"run/evaluation.json.*{says}"):
        evaluation_from_json(content, "run/evaluation.json")


@pytest.mark.parametrize("part", ["metrics", "groups", "baselines"])
@pytest.mark.parametrize("value", [None, 3, [], "text", {"psnr": None}])
def test_malformed_tables_are_refused(part: str, value: Any) -> None:
    content = {**evaluation_file({"psnr": 20.0, "constant/psnr": 1.0}), part: value}
    if part == "metrics" and value == []:
        return
    with pytest.raises(FileError, match=r"^x"):
        evaluation_from_json(content, "x")
