"""How sure a score is: bootstrap intervals over items, from what each item adds to the score's sums; and over seeds."""

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
"""What a result says of its intervals."""

MOST_GROUPS = 101
"""Kinds, all items among them: each takes memory for every item."""

ALL = "all"
"""The name under which all items stand beside their groups."""

Score = Callable[[Tensor], Tensor]
"""From sums [r d] over r resamples to their scores [r m]."""


def bootstrap(statistics: Float[Tensor, "n d"], score: Score) -> Float[Tensor, "m 2"]:
    """The lower and upper end of a 95 % interval of each score; NaN where there are fewer than two items.

    Items are drawn with replacement 1,000 times, as many as there are; the ends are the 2.5th and 97.5th percentile
    of the scores of the draws. A score that some draws leave undefined (NaN: none of its items was drawn) is taken
    over the others. The same rows in the same order give the same ends. Time O(1,000 n); memory O(n d).

    Source: Efron 1979, "Bootstrap methods: another look at the jackknife".

    Args:
        statistics: what each item adds to the sums; (1, value) for a mean, (right, all) for a ratio of sums.
        score: the scores of sums over items; it must hold for one row as for many.
    """
    statistics = statistics.double().cpu()
    n = len(statistics)
    if n < 2:
        return torch.full((score(statistics.sum(dim=0, keepdim=True)).shape[1], 2), torch.nan, dtype=torch.float64)
    random = np.random.default_rng(SEED)
    drawn = (np.bincount(random.integers(n, size=n), minlength=n) for _ in range(RESAMPLES))
    sums = torch.stack([torch.from_numpy(counts).double() @ statistics for counts in drawn])
    ends = torch.tensor([(1 - LEVEL) / 2, (1 + LEVEL) / 2], dtype=torch.float64)
    return torch.nanquantile(score(sums).double(), ends, dim=0).mT


def median_interval(values: Float[Tensor, " n"]) -> list[float] | None:
    """The 95 % interval of the median (of an even number the mean of the middle two), as `bootstrap`'s draws give it.

    It is no function of sums, so it has a function of its own. None below two values. Time O(1,000 n).
    """
    n = len(values)
    if n < 2:
        return None
    numbers = values.double().cpu().numpy()
    order = numbers.argsort(kind="stable")
    random = np.random.default_rng(SEED)
    middle = np.array([(n - 1) // 2, n // 2])
    draws = (np.bincount(random.integers(n, size=n), minlength=n)[order].cumsum() for _ in range(RESAMPLES))
    medians = [numbers[order[counts.searchsorted(middle, side="right")]].mean() for counts in draws]
    low, high = np.quantile(medians, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return [float(low), float(high)]


# --- over seeds -------------------------------------------------------------------------------------------------


def student_interval(values: Sequence[float]) -> list[float] | None:
    """Student's 95 % interval of the mean of a few values, one a seed; None below two.

    It holds for values that are drawn from one normal distribution. That of two values is 12.7 times
    as wide as they are apart, as it should be.
    """
    n = len(values)
    if n < 2:
        return None
    middle = math.fsum(values) / n
    variance = math.fsum((value - middle) ** 2 for value in values) / (n - 1)
    reach = student_quantile(n - 1) * math.sqrt(variance / n)
    return [middle - reach, middle + reach]


def student_quantile(freedom: int) -> float:
    """t beyond which, on both sides, 5 % of Student's distribution with so many degrees of freedom lie."""
    low, high = 0.0, math.pi / 2
    for _ in range(60):  # t = tan(angle) * sqrt(freedom) grows with the angle, and so does what it encloses
        angle = (low + high) / 2
        low, high = (angle, high) if _enclosed(angle, freedom) < LEVEL else (low, angle)
    return math.tan(low) * math.sqrt(freedom)


def _enclosed(angle: float, freedom: int) -> float:
    """The share of Student's distribution between -t and t, t = tan(angle) * sqrt(freedom).

    Source: Abramowitz and Stegun 1964, "Handbook of mathematical functions", 26.7.3 and 26.7.4.
    """
    odd, square = freedom % 2, math.cos(angle) ** 2
    term = math.sin(angle) * (math.cos(angle) if odd else 1.0)
    total = 0.0
    for place in range(freedom // 2):
        total += term
        term *= square * (2 * place + 1 + odd) / (2 * place + 2 + odd)
    return 2 / math.pi * (angle + total) if odd else total


# --- scores -----------------------------------------------------------------------------------------------------


def mean(sums: Float[Tensor, "r d"]) -> Float[Tensor, "r m"]:
    """The means of values whose rows were (1, value, ...)."""
    return sums[:, 1:] / sums[:, :1]


def ratios(sums: Float[Tensor, "r d"]) -> Float[Tensor, "r m"]:
    """The ratios of sums whose rows were (above, below, above, below, ...); NaN where nothing stands below."""
    return sums[:, ::2] / sums[:, 1::2]


def as_pairs(ends: Float[Tensor, "m 2"]) -> list[list[float] | None]:
    """Intervals as a result holds them: [low, high], None where undefined."""
    return [None if pair.isnan().any() else pair.tolist() for pair in ends]


def score_with_intervals(metrics: Sequence[Metric], statistics: Float[Tensor, "n d"], score: Score) -> list[Metric]:
    """The metrics with their values and intervals; None where there is no item to score."""
    values = score(statistics.double().cpu().sum(dim=0, keepdim=True))[0].tolist()
    ends = as_pairs(bootstrap(statistics, score))
    return [metric.measured(value, pair) for metric, value, pair in zip(metrics, values, ends, strict=True)]


def score_groups(
    metrics: Sequence[Metric],
    each: Sequence[Mapping[str, float]],
    kinds: Sequence[str],
    units: Sequence[str | None],
) -> dict[str, list[Metric]]:
    """The means of all items and of those of each kind but "", with their counts; `ALL` comes first.

    Args:
        metrics: what is measured, without values.
        each: the scores of each item, by the names of `metrics`.
        kinds: the kind of each item.
        units: what is resampled for the intervals: items of one unit are drawn together.
    """
    groups = [ALL, *sorted({kind for kind in kinds if kind})]
    if len(groups) > MOST_GROUPS:
        raise DataError(f"There are {len(groups) - 1:,} kinds of items; at most {MOST_GROUPS - 1:,} are told apart.")
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
        # On a single unit every draw that has the group at all scores it the same.
        alone = int((sums[:, column, 0, 1] > 0).sum()) < 2
        found[group] = [
            replace(metric, count=counts[group], interval=None if alone else metric.interval) for metric in own
        ]
    return found
