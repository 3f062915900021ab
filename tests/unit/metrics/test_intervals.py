"""Bootstrap intervals: as wide as theory says, the same each time, right for ratios and for groups."""

import numpy as np
import pytest
import torch
from scipy import stats

from tavq.metrics import intervals
from tavq.metrics.record import Group, Metric

GROUP = Group("test", "Test")


def rows(values: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(np.stack([np.ones_like(values), values], axis=1))


def test_the_interval_of_a_mean_is_as_wide_as_theory_says() -> None:
    values = np.random.default_rng(1).normal(5, 2, 400)
    low, high = intervals.bootstrap(rows(values), intervals.mean)[0].tolist()
    error = values.std() / 20
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.15 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.15 * error)


def test_intervals_cover_the_truth_as_often_as_they_claim() -> None:
    random = np.random.default_rng(2)
    held = 0
    for _ in range(120):
        low, high = intervals.bootstrap(rows(random.exponential(3, 60)), intervals.mean)[0].tolist()
        held += low <= 3 <= high
    assert 104 <= held <= 119  # of 95 % some are lost to the skew of small samples


def test_the_same_rows_give_the_same_ends() -> None:
    statistics = rows(np.arange(30.0))
    assert torch.equal(intervals.bootstrap(statistics, intervals.mean), intervals.bootstrap(statistics, intervals.mean))


def test_a_ratio_of_sums_is_not_a_mean_of_ratios() -> None:
    """Large items count for more: (1, 1), (0, 9) in equal parts is 0.1 and never near the mean of 1 and 0."""
    statistics = torch.tensor([[1.0, 1.0], [0.0, 9.0]] * 200, dtype=torch.float64)
    [found] = intervals.score_with_intervals([Metric("share", "Share", GROUP)], statistics, intervals.ratios)
    assert found.value == pytest.approx(0.1)
    assert found.interval is not None
    assert 0.07 < found.interval[0] < 0.1 < found.interval[1] < 0.13


def test_several_scores_keep_their_order() -> None:
    statistics = torch.tensor([[1.0, 2.0, 30.0]] * 5, dtype=torch.float64)
    assert intervals.bootstrap(statistics, intervals.mean).tolist() == [[2, 2], [30, 30]]


def test_one_item_has_no_interval() -> None:
    metric = Metric("mean", "Mean", GROUP)
    found = intervals.score_with_intervals([metric], torch.tensor([[1.0, 2.0]]), intervals.mean)
    assert found == [metric.measured(2.0)]


def test_items_of_one_unit_are_resampled_together() -> None:
    each = [{"score": float(number % 2 == unit % 2)} for unit in range(2) for number in range(100)]
    whole = [{"score": float(unit)} for unit in range(2) for _ in range(100)]
    units = [f"{unit}" for unit in range(2) for _ in range(100)]
    metrics = [Metric("score", "Score", GROUP)]
    assert intervals.score_groups(metrics, each, [""] * 200, units)["all"][0].interval == (0.5, 0.5)
    assert intervals.score_groups(metrics, whole, [""] * 200, units)["all"][0].interval == (0, 1)


def test_groups_by_hand() -> None:
    each = [{"a": 1.0, "b": 0.0}, {"a": 0.0, "b": 0.5}, {"a": 0.5, "b": 1.0}]
    metrics = [Metric(name, name, GROUP) for name in "ab"]
    found = intervals.score_groups(metrics, each, ["x", "", "x"], ["1", "2", "3"])
    assert {group: {metric.count for metric in of} for group, of in found.items()} == {"all": {3}, "x": {2}}
    assert [metric.value for metric in found["x"]] == [0.75, 0.5]
    assert [metric.value for metric in found["all"]] == [0.5, 0.5]


@pytest.mark.parametrize("freedom", [1, 2, 3, 4, 5, 8, 9, 30, 31, 500])
def test_student_quantiles_equal_scipys(freedom: int) -> None:
    assert intervals.student_quantile(freedom) == pytest.approx(stats.t.ppf(0.975, freedom), rel=1e-12)


def test_the_interval_of_a_few_seeds_is_students_t() -> None:
    # mean 0.5, standard deviation 0.1, error 0.1 / sqrt(3), t of 2 degrees of freedom 4.302653
    assert intervals.student_interval([0.4, 0.5, 0.6]) == pytest.approx([0.5 - 0.2484138, 0.5 + 0.2484138])
    values = [0.31, 0.28, 0.4, 0.36]
    expected = stats.t.interval(0.95, 3, np.mean(values), stats.sem(values))
    assert intervals.student_interval(values) == pytest.approx(list(expected))
    low, high = intervals.student_interval([1.0, 2.0]) or (0, 0)
    assert high - low == pytest.approx(12.706205)
    assert intervals.student_interval([0.25, 0.25]) == [0.25, 0.25]
    assert intervals.student_interval([0.5]) is None
