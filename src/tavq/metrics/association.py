"""Association between codes and units of text: co-occurrence over images, lift, and a test against chance."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from statistics import NormalDist

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from tavq.interfaces import GRANULARITIES

MAX_UNITS = 2000
"""Number of units tested per granularity: the most frequent ones."""

MIN_IMAGES = 5
"""Number of images that must contain a unit before it is tested."""

PRIOR = 5.0
"""Pseudo-images without association added to those of each unit, so that rare units do not win by luck."""

CHANCE = 0.05
"""Family-wise error rate: the probability, over all units of a granularity, of a false association for a code."""

MAX_UNCERTAIN = 3
"""Number of units listed as uncertain for a code without a significant one."""


@dataclass(frozen=True)
class AssociatedUnit:
    """A unit of text that co-occurs with a code."""

    unit: str
    lift: float  # P(code | unit) / P(code), shrunk towards 1
    images: int  # number of images with the unit
    certain: bool = True  # whether the association is significant


@dataclass
class Cooccurrences:
    """The codes and the units of text of each image, with the count of each code.

    Memory: a few bytes per distinct code and unit of an image (1 to 2 kB an image), independent of the size of the
    codebook or the vocabulary.
    """

    codes: list[tuple[np.ndarray, np.ndarray]] = field(default_factory=list)
    units: list[dict[str, frozenset[str]]] = field(default_factory=list)

    def add(self, indices: Int[np.ndarray, "h w *c"], units: Mapping[str, Sequence[str]]) -> None:
        """Add an image that has text."""
        entries, counts = np.unique(indices, return_counts=True)
        self.codes.append((entries.astype(np.int32), counts.astype(np.int32)))
        self.units.append({name: frozenset(units[name]) for name in GRANULARITIES})

    def find_used(self, entries: int) -> Bool[Tensor, " k"]:
        """Whether each of the codebook's entries is used in an image."""
        used = torch.zeros(entries, dtype=torch.bool)
        for codes, _ in self.codes:
            used[torch.from_numpy(codes).long()] = True
        return used

    def find_prominent(self, codes: Sequence[int]) -> Bool[np.ndarray, "n c"]:
        """Whether each image uses each code more often than the average image.

        Mere presence does not discriminate for a code that occurs in every image: most contain some sky blue.
        """
        columns = {code: column for column, code in enumerate(codes)}
        table = np.zeros((len(self.codes), len(codes)))
        for row, (entries, counts) in enumerate(self.codes):
            for entry, count in zip(entries.tolist(), counts.tolist(), strict=True):
                if entry in columns:
                    table[row, columns[entry]] = count
        return table > table.mean(axis=0, keepdims=True) if len(table) else table.astype(bool)

    def list_frequent(self, granularity: str) -> tuple[list[str], Bool[np.ndarray, "n u"]]:
        """The units that occur in the most images, and which image has which."""
        counts = Counter(unit for units in self.units for unit in units[granularity])
        ordered = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
        names = [unit for unit, count in ordered[:MAX_UNITS] if count >= MIN_IMAGES]
        columns = {unit: column for column, unit in enumerate(names)}
        table = np.zeros((len(self.units), len(names)), bool)
        for row, units in enumerate(self.units):
            table[row, [columns[unit] for unit in units[granularity] if unit in columns]] = True
        return names, table

    def find_associated(self, codes: Sequence[int], granularity: str, count: int) -> list[list[AssociatedUnit]]:
        """For each code at most `count` units with a significant association, strongest first.

        For a code without one: the `MAX_UNCERTAIN` strongest, marked as uncertain.
        """
        names, units = self.list_frequent(granularity)
        if not names or not codes:
            return [[] for _ in codes]
        lift, evidence = compute_lift_and_evidence(self.find_prominent(codes), units)
        critical = compute_threshold(len(names))
        images = units.sum(axis=0)
        associated = []
        for row in range(len(codes)):
            order = sorted(range(len(names)), key=lambda unit: (-lift[row, unit], unit))
            positive = [unit for unit in order if lift[row, unit] > 1]
            significant = [unit for unit in positive if evidence[row, unit] >= critical]
            listed = significant[:count] if significant else positive[: min(count, MAX_UNCERTAIN)]
            certain = bool(significant)
            associated.append([AssociatedUnit(names[u], float(lift[row, u]), int(images[u]), certain) for u in listed])
        return associated


def compute_lift_and_evidence(
    codes: Bool[np.ndarray, "n c"], units: Bool[np.ndarray, "n u"]
) -> tuple[Float[np.ndarray, "c u"], Float[np.ndarray, "c u"]]:
    """The lift of each code by each unit, and the log-likelihood ratio G² of a test of independence.

    Lift is P(code | unit) / P(code), the exponential of the pointwise mutual information, where P(code | unit) is
    estimated with `PRIOR` pseudo-images that behave like the average:
    (images with both + PRIOR P(code)) / (images with the unit + PRIOR). It is 1 for a code that never occurs.

    Source: G² of the 2 x 2 table, 2 Σ O ln(O / E): Dunning 1993, "Accurate methods for the statistics of surprise and
    coincidence", which holds for small counts where χ² does not.
    """
    both = codes.T.astype(np.float64) @ units
    return compute_from_counts(both, codes.sum(axis=0)[:, None], units.sum(axis=0)[None, :], len(codes))


def compute_from_counts(
    both: Float[np.ndarray, "c u"],
    with_code: Int[np.ndarray, "#c #u"],
    with_unit: Int[np.ndarray, "#c #u"],
    images: int,
) -> tuple[Float[np.ndarray, "c u"], Float[np.ndarray, "c u"]]:
    """The same from numbers of images: with both, with each code, with each unit, and all."""
    fraction = with_code / images
    lift = np.divide(
        both + PRIOR * fraction,
        (with_unit + PRIOR) * fraction,
        out=np.ones_like(both),
        where=np.broadcast_to(fraction, both.shape) > 0,
    )
    evidence = np.zeros_like(both)
    for observed, row, column in (
        (both, with_code, with_unit),
        (with_code - both, with_code, images - with_unit),
        (with_unit - both, images - with_code, with_unit),
        (images - with_code - with_unit + both, images - with_code, images - with_unit),
    ):
        expected = row * column / images
        # an empty cell contributes 0, the limit of O ln(O / E)
        ratio = np.divide(observed, expected, out=np.ones_like(both), where=(observed > 0) & (expected > 0))
        evidence += 2 * observed * np.log(ratio)
    return lift, evidence


def compute_threshold(units: int) -> float:
    """The critical value of G² for a test of one code against `units` units at the family-wise error rate `CHANCE`.

    The quantile of χ² with one degree of freedom at CHANCE / units (Bonferroni).
    """
    return NormalDist().inv_cdf(1 - CHANCE / max(units, 1) / 2) ** 2 if units else math.inf
