"""The numbers of each code that lists are sorted by, and its label: chosen on some images, measured on others."""

from dataclasses import dataclass, fields

import numpy as np
from jaxtyping import Bool, Float, Int

from tavq.explore.statistics.held_out import Guessing, choose_words, mean_auc, score_words
from tavq.explore.statistics.rows import Rows, runs
from tavq.explore.statistics.tables import Tables, divergence_of, entropy_of, position_bias

PROFILE = 512
"""Words of the profile by which codes are compared: the most frequent ones."""

SHUFFLED = 20
"""Labels of other codes that each code is compared with."""

NONE = -1
"""The label of a code without one."""

WORTH = 3.841458820694124
"""G² above which an association enters a profile: the 95th percentile of χ² with one degree of freedom."""


@dataclass(frozen=True)
class CodeColumns:
    """One row per code; NaN or `NONE` where there is no value.

    `label` is the word that is shown: `held_label` where it can be tested, so that `held_lift` is of the same word, and
    else the certain word with the highest lift over all images. `lift` and `precision` are of `label`, over all images.
    """

    count: Int[np.ndarray, " k"]
    images: Int[np.ndarray, " k"]
    with_code: Int[np.ndarray, " k"]
    position_bias: Float[np.ndarray, " k"]
    entropy: Float[np.ndarray, " k"]
    specificity: Float[np.ndarray, " k"]
    label: Int[np.ndarray, " k"]
    lift: Float[np.ndarray, " k"]
    precision: Float[np.ndarray, " k"]
    held_label: Int[np.ndarray, " k"]
    held_lift: Float[np.ndarray, " k"]
    held_low: Float[np.ndarray, " k"]
    held_high: Float[np.ndarray, " k"]
    held_precision: Float[np.ndarray, " k"]
    held_base: Float[np.ndarray, " k"]
    held_images: Int[np.ndarray, " k"]
    held_shuffled: Float[np.ndarray, " k"]

    @classmethod
    def empty(cls, entries: int) -> "CodeColumns":
        """Columns without values."""
        whole = {"count": 0, "images": 0, "with_code": 0, "label": NONE, "held_label": NONE, "held_images": 0}
        return cls(**{
            field.name: np.full(entries, whole[field.name], np.int64)
            if field.name in whole
            else np.full(entries, 0.0 if field.name == "position_bias" else np.nan, np.float32)
            for field in fields(cls)
        })  # fmt: skip


def measure_use(columns: CodeColumns, code: int, positions: Int[np.ndarray, " v"], cells: int, parts: int) -> None:
    """Fill in counts and position bias of a code from its positions."""
    image, column = np.divmod(positions, cells * parts)
    columns.count[code], columns.images[code] = len(positions), len(runs(image)[0])
    columns.position_bias[code] = position_bias(np.bincount(column // parts, minlength=cells))


class LabelCounts:
    """Counts words of the images in which codes are prominent, apart for images kept apart and for the others.

    Args:
        words: the words of each image.
        units: number of words.
        counted: images that are counted.
        held_out: images kept apart.
    """

    def __init__(
        self, words: Rows, units: int, counted: Bool[np.ndarray, " n"], held_out: Bool[np.ndarray, " n"]
    ) -> None:
        self.words, self.units = words, units
        self.held_out = held_out
        fit, held = np.flatnonzero(counted & ~held_out), np.flatnonzero(counted & held_out)
        self.fit_images, self.held_images = fit, held
        self.fit_base, self.held_base = words.count(fit, units), words.count(held, units)
        self.base = self.fit_base + self.held_base
        shuffled = np.random.default_rng(0).permutation(fit)
        self.shuffled = np.arange(len(counted))
        self.shuffled[fit] = shuffled

    def count(self, images: Int[np.ndarray, " i"]) -> tuple[Tables, Tables]:
        """The tables of a code with all words: on the images kept apart last, on the others first."""
        held = self.held_out[images]
        return self._fit(images[~held]), self._table(images[held], self.held_base, len(self.held_images))

    def _fit(self, images: Int[np.ndarray, " i"]) -> Tables:
        return self._table(images, self.fit_base, len(self.fit_images))

    def count_shuffled(self, images: Int[np.ndarray, " i"]) -> Tables:
        """The table of a code on the images that are not kept apart, after their texts were exchanged."""
        return self._fit(self.shuffled[images[~self.held_out[images]]])

    def _table(self, images: Int[np.ndarray, " i"], base: Int[np.ndarray, " u"], count: int) -> Tables:
        both = self.words.count(images, self.units)
        return Tables(count, np.full(self.units, len(images)), base, both)


def add_tables(first: Tables, second: Tables) -> Tables:
    """The table over the images of both."""
    return Tables(
        first.images + second.images, first.with_code + second.with_code, first.with_unit + second.with_unit,
        first.both + second.both,
    )  # fmt: skip


def choose_label(table: Tables) -> tuple[int, float]:
    """The word with the highest lift among the certain ones, and its lift; (NONE, NaN) without one."""
    lift = table.lift
    sure = np.flatnonzero(table.certain(len(lift)) & (lift > 1))
    if not len(sure):
        return NONE, float("nan")
    best = int(sure[lift[sure].argmax()])
    return best, float(lift[best])


def measure_labels(columns: CodeColumns, prominent_images: Rows, counts: LabelCounts) -> Float[np.ndarray, "k p"]:
    """Fill in label, entropy and held-out label of each code; returns the profiles of the codes.

    A profile has the log2 of the lift of each of the most frequent words, and 0 where the association is not beyond
    chance.
    """
    profiles = np.zeros((len(columns.count), min(PROFILE, counts.units)), np.float16)
    for code in np.flatnonzero(prominent_images.lengths).tolist():
        fit, held = counts.count(prominent_images[code])
        table = add_tables(fit, held)
        lift, evidence = table.lift, table.evidence
        columns.entropy[code] = _or_nan(entropy_of(table.both))
        columns.specificity[code] = _or_nan(divergence_of(table.both, counts.base))
        columns.held_label[code], _ = choose_label(fit)
        testable = columns.held_label[code] != NONE and held.with_code[0] > 0
        label = columns.held_label[code] if testable else choose_label(table)[0]
        if label != NONE:
            columns.label[code], columns.lift[code] = label, lift[label]
            columns.precision[code] = table.both[label] / table.with_code[0]
        words = profiles.shape[1]
        profiles[code] = np.where(evidence[:words] > WORTH, np.log2(lift[:words].clip(1e-3)), 0)
    return profiles


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def measure_held_out(columns: CodeColumns, prominent_images: Rows, counts: LabelCounts) -> tuple[int, int, int]:
    """Fill in what labels are worth on the images kept apart.

    Returns the number of codes with a label, of those confirmed, and of those confirmed after the labels were exchanged
    among the codes.
    """
    labelled = np.flatnonzero(columns.held_label != NONE)
    labels = columns.held_label[labelled]
    exchanged = np.roll(labels, max(1, len(labels) // 2))
    confirmed = chance = 0
    for position, code in enumerate(labelled.tolist()):
        _, held = counts.count(prominent_images[code])
        others = np.roll(labels, -position)[1 : SHUFFLED + 1]
        columns.held_shuffled[code] = held.lift[others].mean() if len(others) else float("nan")
        columns.held_images[code] = held.with_code[0]
        own = held.select(np.array([labels[position], exchanged[position]]))
        if not held.with_code[0]:
            continue
        ends = own.lift_intervals()
        columns.held_lift[code] = own.lift[0]
        columns.held_low[code], columns.held_high[code] = ends[0]
        columns.held_precision[code] = own.both[0] / own.with_code[0]
        columns.held_base[code] = own.with_unit[0] / held.images
        confirmed += bool(ends[0, 0] > 1)
        chance += bool(ends[1, 0] > 1)
    return len(labelled), confirmed, chance


def guess_words(prominent: Rows, prominent_images: Rows, counts: LabelCounts) -> tuple[Guessing, Guessing] | None:
    """How well words of the images kept apart are guessed, and the same after texts were exchanged; None without words.

    Args:
        prominent: the codes of each image.
        prominent_images: the images of each code.
        counts: of the words.
    """
    images = counts.held_images
    present = np.zeros((len(images), counts.units), bool)
    for row, image in enumerate(images):
        present[row, counts.words[int(image)]] = True
    words = choose_words(present)
    if not len(words):
        return None
    weights = np.zeros((2, len(prominent_images), len(words)), np.float32)
    for code in np.flatnonzero(prominent_images.lengths).tolist():
        own = prominent_images[code]
        for form, table in enumerate((counts.count(own)[0], counts.count_shuffled(own))):
            weights[form, code] = np.log(table.lift[words])
    guesses = [mean_auc(score_words(prominent, images, each), present[:, words]) for each in weights]
    return guesses[0], guesses[1]
