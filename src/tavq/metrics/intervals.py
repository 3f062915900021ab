"""Confidence intervals: bootstrap over items, from what each adds to the sums of a score; Student's t over seeds."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from tavq.core.errors import DataError
from tavq.metrics.record import Metric

RESAMPLES = 1000
LEVEL = 0.95
SEED = 0

ABOUT = {"method": "percentile bootstrap", "resamples": RESAMPLES, "level": LEVEL, "seed": SEED}
"""How intervals are computed, for a result's protocol."""

MAX_GROUPS = 101
"""Kinds of items, plus all of them; each takes memory for every item."""

ALL = "all"
"""The name of the group of all items."""

Score = Callable[[Tensor], Tensor]
"""Maps the sums [r d] of r resamples to their scores [r m]."""


def bootstrap(statistics: Float[Tensor, "n d"], score: Score) -> Float[Tensor, "m 2"]:
    """The lower and upper end of a 95 % interval of each score; NaN where there are fewer than two items.

    The items are resampled with replacement 1,000 times; the ends are the 2.5th and 97.5th percentile of the scores of
    the resamples. Resamples in which a score is undefined (NaN: none of its items was drawn) are ignored. The same rows
    in the same order give the same ends. Time O(1,000 n); memory O(n d).

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".

    Args:
        statistics: what each item adds to the sums; (1, value) for a mean, (right, all) for a ratio of sums.
        score: computes the scores of each row of sums.
    """
    statistics = statistics.double().cpu()
    n = len(statistics)
    if n < 2:
        return torch.full((score(statistics.sum(dim=0, keepdim=True)).shape[1], 2), torch.nan, dtype=torch.float64)
    random = np.random.default_rng(SEED)
    resamples = (np.bincount(random.integers(n, size=n), minlength=n) for _ in range(RESAMPLES))
    sums = torch.stack([torch.from_numpy(counts).double() @ statistics for counts in resamples])
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    return torch.nanquantile(score(sums).double(), ends, dim=0).mT


def median_interval(values: Float[Tensor, " n"]) -> list[float] | None:
    """The 95 % interval of the median over the resamples of `bootstrap`; None below two values.

    A median is not a function of sums, so `bootstrap` cannot compute it. The median of an even number of values is the
    mean of the middle two. Time O(1,000 n).
    """
    n = len(values)
    if n < 2:
        return None
    numbers = values.double().cpu().numpy()
    order = numbers.argsort(kind="stable")
    random = np.random.default_rng(SEED)
    middle = np.array([(n - 1) // 2, n // 2])
    resamples = (np.bincount(random.integers(n, size=n), minlength=n)[order].cumsum() for _ in range(RESAMPLES))
    medians = [numbers[order[counts.searchsorted(middle, side="right")]].mean() for counts in resamples]
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


# --- over seeds -------------------------------------------------------------------------------------------------


def student_interval(values: Sequence[float]) -> list[float] | None:
    """Student's 95 % interval of the mean of a few values, one per seed; None below two.

    It assumes values from one normal distribution. For two values it is 12.7 times as wide as their distance, which is
    right: two seeds say little.
    """
    n = len(values)
    if n < 2:
        return None
    mean = math.fsum(values) / n
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    margin = student_quantile(n - 1) * math.sqrt(variance / n)
    return [mean - margin, mean + margin]


def student_quantile(freedom: int) -> float:
    """The two-sided 95 % quantile of Student's t distribution with `freedom` degrees of freedom, by bisection."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # t = tan(angle) * sqrt(freedom) grows with the angle, and so does the enclosed probability
        angle = (low + high) / 2
        low, high = (angle, high) if _enclosed_probability(angle, freedom) < LEVEL else (low, angle)
    return math.tan(low) * math.sqrt(freedom)


def _enclosed_probability(angle: float, freedom: int) -> float:
    """The probability of Student's distribution between -t and t, t = tan(angle) * sqrt(freedom).

    Source: Abramowitz and Stegun 1964, "Handbook of mathematical functions", 26.7.3 and 26.7.4.
    """
    odd, square = freedom % 2, math.cos(angle) ** 2
    term = math.sin(angle) * (math.cos(angle) if odd else 1.0)
    total = 0.0
    for i in range(freedom // 2):
        total += term
        term *= square * (2 * i + 1 + odd) / (2 * i + 2 + odd)
    return 2 / math.pi * (angle + total) if odd else total


# --- scores -----------------------------------------------------------------------------------------------------


def mean(sums: Float[Tensor, "r d"]) -> Float[Tensor, "r m"]:
    """The means of items whose statistics are (1, value, ...)."""
    return sums[:, 1:] / sums[:, :1]


def ratios(sums: Float[Tensor, "r d"]) -> Float[Tensor, "r m"]:
    """The ratios of items whose statistics are (numerator, denominator, ...); NaN where a denominator is 0."""
    return sums[:, ::2] / sums[:, 1::2]


def as_pairs(ends: Float[Tensor, "m 2"]) -> list[list[float] | None]:
    """Intervals as [low, high]; None where undefined."""
    return [None if pair.isnan().any() else pair.tolist() for pair in ends]


def score_with_intervals(metrics: Sequence[Metric], statistics: Float[Tensor, "n d"], score: Score) -> list[Metric]:
    """The metrics with their values and intervals; None without items.

    Args:
        metrics: without values, in the order of the scores.
        statistics: what each item adds to the sums; see `bootstrap`.
        score: computes the scores of sums.
    """
    values = score(statistics.double().cpu().sum(dim=0, keepdim=True))[0].tolist()
    ends = as_pairs(bootstrap(statistics, score))
    return [metric.measured(value, pair) for metric, value, pair in zip(metrics, values, ends, strict=True)]


def score_groups(
    metrics: Sequence[Metric],
    each: Sequence[Mapping[str, float]],
    kinds: Sequence[str],
    units: Sequence[str | None],
) -> dict[str, list[Metric]]:
    """The means over all items (`ALL`, first) and over the items of each kind, with their counts.

    Args:
        metrics: what is measured, without values.
        each: the scores of each item, by the names of `metrics`.
        kinds: the kind of each item; "" for none.
        units: what is resampled for the intervals, such as images: items of one unit stay together.
    """
    groups = [ALL, *sorted({kind for kind in kinds if kind})]
    if len(groups) > MAX_GROUPS:
        raise DataError(f"There are {len(groups) - 1:,} kinds of items; at most {MAX_GROUPS - 1:,} are accepted.")
    rows = {unit: row for row, unit in enumerate(dict.fromkeys(units))}
    columns = {group: column for column, group in enumerate(groups)}
    sums = torch.zeros(len(rows), len(groups), len(metrics), 2, dtype=torch.float64)
    for scores, kind, unit in zip(each, kinds, units, strict=True):
        added = torch.tensor([[scores[metric.name], 1.0] for metric in metrics], dtype=torch.float64)
        for group in {ALL, kind or ALL}:
            sums[rows[unit], columns[group]] += added
    scored = score_with_intervals([*metrics] * len(groups), sums.flatten(1), ratios)
    counts = {ALL: len(kinds), **Counter(kind for kind in kinds if kind)}
    found = {}
    for group, column in columns.items():
        own = scored[column * len(metrics) : (column + 1) * len(metrics)]
        # With a single unit every resample that contains the group gives it the same score.
        alone = int((sums[:, column, 0, 1] > 0).sum()) < 2
        found[group] = [
            replace(metric, count=counts[group], interval=None if alone else metric.interval) for metric in own
        ]
    return found
