"""Which units of text go with which codes: counts over images, lift, and what chance alone would give."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
from jaxtyping import Bool, Float, Int

from tavq.interfaces import GRANULARITIES

MOST_UNITS = 2000
"""Units of a granularity that are looked at: those that stand in the most images."""

FEWEST_IMAGES = 5
"""Images a unit must stand in to be looked at."""

PRIOR = 5.0
"""Images without any association that are added to those of each unit, so that rare units do not win by luck."""

CHANCE = 0.05
"""Chance, over all units of a granularity, that a code without any association shows one."""

UNCERTAIN = 3
"""Units that are named, as uncertain, of a code for which none is certain."""


@dataclass(frozen=True)
class Associated:
    """A unit that goes with a code."""

    unit: str
    lift: float  # how many times likelier the code is in images whose text has the unit, shrunk towards 1
    images: int  # how many images have the unit
    certain: bool = True  # False where chance alone would give as much


@dataclass
class Presence:
    """What was seen of each image: how often each code was chosen, and which units its text has.

    Grows by a few bytes for each distinct code and unit of an image (1 to 2 kB an image), whatever the size of the
    codebook or the vocabulary.
    """

    codes: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    units: list[dict[str, frozenset[str]]] = field(default_factory=list)

    def add(self, indices: Int[np.ndarray, "h w *c"], units: Mapping[str, Sequence[str]]) -> None:
        """Counts an image that has text."""
        entries, counts = np.unique(indices, return_counts=True)
        self.codes.append((entries.astype(np.int32), counts.astype(np.int32)))
        self.units.append({name: frozenset(units[name]) for name in GRANULARITIES})

    def prominent(self, codes: Sequence[int]) -> Bool[np.ndarray, "n c"]:
        """Whether each image has more of each code than images have on average.

        Plain presence would say nothing of a code that is in every image: a sky's blue is somewhere in most.
        """
        places = {code: place for place, code in enumerate(codes)}
        table = np.zeros((len(self.codes), len(codes)))
        for row, (entries, counts) in enumerate(self.codes):
            for entry, count in zip(entries.tolist(), counts.tolist(), strict=True):
                if entry in places:
                    table[row, places[entry]] = count
        return table > table.mean(axis=0, keepdims=True) if len(table) else table.astype(bool)

    def frequent(self, granularity: str) -> tuple[list[str], Bool[np.ndarray, "n u"]]:
        """The units in most images, and which image has which."""
        counts = Counter(unit for found in self.units for unit in found[granularity])
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        names = [unit for unit, count in ordered[:MOST_UNITS] if count >= FEWEST_IMAGES]
        places = {unit: place for place, unit in enumerate(names)}
        table = np.zeros((len(self.units), len(names)), bool)
        for row, found in enumerate(self.units):
            table[row, [places[unit] for unit in found[granularity] if unit in places]] = True
        return names, table

    def associated(self, codes: Sequence[int], granularity: str, count: int) -> list[list[Associated]]:
        """For each code the units it is found with, strongest first.

        Where chance would explain them all, the `UNCERTAIN` strongest, marked as such.
        """
        names, units = self.frequent(granularity)
        if not names or not codes:
            return [[] for _ in codes]
        prominent = self.prominent(codes)
        lift, evidence = lift_and_evidence(prominent, units)
        enough = threshold(len(names))
        together = units.sum(axis=0)
        found = []
        for row in range(len(codes)):
            order = sorted(range(len(names)), key=lambda unit: (-lift[row, unit], unit))
            positive = [unit for unit in order if lift[row, unit] > 1]
            good = [unit for unit in positive if evidence[row, unit] >= enough]
            named = good[:count] if good else positive[: min(count, UNCERTAIN)]
            found.append([Associated(names[u], float(lift[row, u]), int(together[u]), bool(good)) for u in named])
        return found


def lift_and_evidence(
    codes: Bool[np.ndarray, "n c"], units: Bool[np.ndarray, "n u"]
) -> tuple[Float[np.ndarray, "c u"], Float[np.ndarray, "c u"]]:
    """How much likelier a code is where a unit is, and the log-likelihood ratio G² that this is no chance.

    Lift is P(code | unit) / P(code), the exponential of the pointwise mutual information, where P(code | unit) is
    estimated with `PRIOR` more images that behave like the average:
    (images with both + PRIOR P(code)) / (images with the unit + PRIOR). It is 1 for a code that is never there.

    Source: G² of the 2 x 2 table, 2 Σ O ln(O / E): Dunning 1993, "Accurate methods for the statistics of surprise and
    coincidence", which holds for small counts where χ² does not.
    """
    images = len(codes)
    both = codes.T.astype(np.float64) @ units
    with_code, with_unit = codes.sum(axis=0)[:, None], units.sum(axis=0)[None, :]
    share = with_code / images
    lift = np.divide(
        both + PRIOR * share,
        (with_unit + PRIOR) * share,
        out=np.ones_like(both),
        where=np.broadcast_to(share, both.shape) > 0,
    )
    evidence = np.zeros_like(both)
    for observed, row, column in (
        (both, with_code, with_unit),
        (with_code - both, with_code, images - with_unit),
        (with_unit - both, images - with_code, with_unit),
        (images - with_code - with_unit + both, images - with_code, images - with_unit),
    ):
        expected = row * column / images
        ratio = np.divide(observed, expected, out=np.ones_like(both), where=(observed > 0) & (expected > 0))
        evidence += 2 * observed * np.log(ratio)
    return lift, evidence


def threshold(units: int) -> float:
    """G² that a code without any association passes, for any of `units` units, with a chance of `CHANCE` only.

    The quantile of χ² with one degree of freedom at CHANCE / units (Bonferroni).
    """
    return NormalDist().inv_cdf(1 - CHANCE / max(units, 1) / 2) ** 2 if units else math.inf
