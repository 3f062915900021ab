"""Numbers of a code and a unit of text from their 2 x 2 table of images: lift, precision and their intervals."""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from jaxtyping import Float, Int

from tavq.metrics.association import PRIOR, compute_from_counts, compute_threshold
from tavq.metrics.intervals import LEVEL, RESAMPLES, SEED

Z = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution."""

Ends = tuple[float, float]


@dataclass(frozen=True)
class Tables:
    """The 2 x 2 tables of some pairs of a code and a unit, over the same images."""

    images: int
    with_code: Int[np.ndarray, " p"]
    with_unit: Int[np.ndarray, " p"]
    both: Int[np.ndarray, " p"]

    @property
    def lift(self) -> Float[np.ndarray, " p"]:
        """P(code | unit) / P(code), shrunk towards 1; see `association.compute_lift_and_evidence`."""
        return self._measured[0]

    @property
    def evidence(self) -> Float[np.ndarray, " p"]:
        """G² of a test of independence."""
        return self._measured[1]

    @cached_property
    def _measured(self) -> tuple[Float[np.ndarray, " p"], Float[np.ndarray, " p"]]:
        code, unit = (np.asarray(each, np.int64)[:, None] for each in (self.with_code, self.with_unit))
        both = np.asarray(self.both, np.float64)[:, None]
        lift, evidence = compute_from_counts(both, code, unit, max(self.images, 1))
        return lift[:, 0], evidence[:, 0]

    def certain(self, tested: int) -> np.ndarray:
        """Which are significant when `tested` units are tested for a code, with a family-wise error of 5 %."""
        return self.evidence >= compute_threshold(tested)

    def ranks(self) -> Int[np.ndarray, " p"]:
        """The rank of each pair by lift, from 0."""
        ranks = np.empty(len(self.lift), np.int64)
        ranks[np.argsort(-self.lift, kind="stable")] = np.arange(len(self.lift))
        return ranks

    def select(self, pairs: Int[np.ndarray, " s"]) -> "Tables":
        """Some of the pairs."""
        return Tables(self.images, self.with_code[pairs], self.with_unit[pairs], self.both[pairs])

    def lift_intervals(self) -> Float[np.ndarray, "p 2"]:
        """95 % intervals of the lifts: the percentile bootstrap over images.

        Resampling images resamples the four cells of a table with multinomial counts, which is what is drawn here.
        """
        n = self.images
        cells = np.stack(
            [self.both, self.with_code - self.both, self.with_unit - self.both,
             n - self.with_code - self.with_unit + self.both], axis=1,
        ).astype(np.float64)  # fmt: skip
        random = np.random.default_rng(SEED)
        ends = np.empty((len(cells), 2))
        for row, cell in enumerate(cells):
            both, code, unit, _ = random.multinomial(n, cell / max(n, 1), RESAMPLES).T
            fraction = (both + code) / max(n, 1)
            lifts = np.divide(
                both + PRIOR * fraction, (both + unit + PRIOR) * fraction, out=np.ones(RESAMPLES), where=fraction > 0
            )
            ends[row] = np.quantile(lifts, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return ends


def wilson_interval(successes: int, trials: int) -> Ends:
    """The 95 % interval of a fraction; (0, 1) without trials.

    Source: Wilson 1927, "Probable inference, the law of succession, and statistical inference".
    """
    if not trials:
        return 0.0, 1.0
    fraction, weight = successes / trials, Z * Z / trials
    middle = (fraction + weight / 2) / (1 + weight)
    margin = Z / (1 + weight) * math.sqrt(fraction * (1 - fraction) / trials + weight / (4 * trials))
    return max(middle - margin, 0.0), min(middle + margin, 1.0)


def entropy_of(counts: Int[np.ndarray, " u"]) -> float | None:
    """Entropy in bits of the distribution of counts; None where all are 0."""
    total = counts.sum()
    if not total:
        return None
    fractions = counts[counts > 0] / total
    return float(-(fractions * np.log2(fractions)).sum()) + 0.0  # no -0.0


def divergence_of(counts: Int[np.ndarray, " u"], base: Int[np.ndarray, " u"]) -> float | None:
    """Kullback-Leibler divergence in bits of counts from those of all images; None where either is all 0.

    `PRIOR` pseudo-images with the average words are added, so that a code of few images does not seem specific.
    """
    total, everything = counts.sum(), base.sum()
    if not total or not everything:
        return None
    average = base / everything
    added = PRIOR * total / max(counts.max(), 1)
    fractions = (counts + added * average) / (total + added)
    present = fractions > 0
    return max(float((fractions[present] * np.log2(fractions[present] / average[present])).sum()), 0.0)


def position_bias(counts: Int[np.ndarray, " c"]) -> float:
    """0 where counts are equal at all positions, 1 where only one position has any.

    One minus the normalised entropy over positions, after `PRIOR` pseudo-counts spread over all positions, so that a
    code of few positions has little bias.
    """
    total, cells = counts.sum(), len(counts)
    if not total or cells < 2:
        return 0.0
    fractions = (counts + PRIOR / cells) / (total + PRIOR)
    return max(0.0, float(1 + (fractions * np.log(fractions)).sum() / math.log(cells)))
