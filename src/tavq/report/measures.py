"""The figures of evaluation.json in words: name, meaning, which way is better, how to print it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Measure:
    """One figure of an evaluation.

    `key` may be dotted for nested figures. `better` is 1 where more is better, -1 where less is, 0 where neither.
    """

    key: str
    name: str
    better: int
    meaning: str
    decimals: int = 3
    unit: str = ""
    percent: bool = False

    def of(self, evaluation: Mapping[str, Any]) -> float | None:
        """The figure, None where the evaluation has none."""
        value: Any = evaluation
        for part in self.key.split("/"):
            value = value.get(part) if isinstance(value, Mapping) else None
        return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None

    def text(self, value: float | None) -> str:
        """The figure as a person reads it."""
        if value is None:
            return "–"
        if self.percent:
            return f"{value:.1%}".replace("-", "−")
        return self._with_unit(f"{value:,.{self._decimals(value)}f}")

    def difference(self, value: float | None, other: float | None) -> str:
        """How far a figure is above another: signed, as precise as the two are printed, `=` where they print alike."""
        if value is None or other is None:
            return "–"
        if self.text(value) == self.text(other):
            return "="
        if self.percent:
            return f"{100 * (value - other):+.1f} points".replace("-", "−")
        return self._with_unit(f"{value - other:+,.{self._decimals(max(value, other, key=abs))}f}")

    def _decimals(self, value: float) -> int:
        return min(self.decimals, 1) if abs(value) >= 100 else self.decimals

    def _with_unit(self, text: str) -> str:
        return text.replace("-", "−") + (f" {self.unit}" if self.unit else "")


MEASURES: tuple[Measure, ...] = (
    Measure("psnr", "PSNR", 1, "Peak signal-to-noise ratio of the reconstruction: fidelity pixel by pixel.", 2, "dB"),
    Measure("ssim", "SSIM", 1, "Structural similarity: 1 is the same image. Local contrast and structure, not colour."),
    Measure("l1", "L1", -1, "Mean absolute error of a pixel, on the scale from -1 to 1.", 4),
    Measure("l2", "L2", -1, "Mean squared error of a pixel, on the scale from -1 to 1.", 4),
    Measure("usage", "Codebook usage", 1, "Share of the entries that were chosen at least once.", percent=True),
    Measure(
        "perplexity", "Perplexity", 1, "The number of entries that would carry as much if all were used equally.", 1
    ),
    Measure("dead", "Dead entries", -1, "Entries that were never chosen.", 0),
    Measure(
        "probe_code_text_cosine",
        "Code-text cosine (probe)",
        1,
        "How much of an image's sentences a straight line reads off its codes, on images it was not fitted on. 0 is "
        "chance. For every tokenizer, aligned or not.",
    ),
    Measure(
        "probe_retrieval/image_to_text/recall@1",
        "Probe: text of an image, R@1",
        1,
        "The probe's prediction ranks the texts of its half: how often the right one is first.",
        percent=True,
    ),
    Measure(
        "probe_retrieval/image_to_text/recall@5",
        "Probe: text of an image, R@5",
        1,
        "The same, among the first five.",
        percent=True,
    ),
    Measure(
        "code_text_cosine",
        "Code-text cosine (aligned)",
        0,
        "Cosine of an image's codes with its own text in the aligner's space. Says little alone: everything may point "
        "the same way. Our definition; not comparable with published values.",
    ),
    Measure(
        "code_text_cosine_shuffled",
        "… with others' text",
        0,
        "The same with the texts of other images: the baseline.",
    ),
    Measure(
        "code_text_gap",
        "… own minus others'",
        1,
        "What of the cosine is due to the image's own text. 0 is chance.",
        4,
    ),
    Measure(
        "retrieval/image_to_text/recall@1",
        "Text of an image, R@1",
        1,
        "In the aligner's space, an image ranks all texts: how often its own is first.",
        percent=True,
    ),
    Measure(
        "retrieval/image_to_text/recall@5",
        "Text of an image, R@5",
        1,
        "The same, among the first five.",
        percent=True,
    ),
    Measure(
        "retrieval/text_to_image/recall@1",
        "Image of a text, R@1",
        1,
        "In the aligner's space, a text ranks all images: how often its own is first.",
        percent=True,
    ),
    Measure(
        "retrieval/text_to_image/recall@5",
        "Image of a text, R@5",
        1,
        "The same, among the first five.",
        percent=True,
    ),
    Measure(
        "retrieval/image_to_text/median_rank",
        "Text of an image, median rank",
        -1,
        "1 is best; half the candidates is chance.",
        1,
    ),
    Measure(
        "masked_words_recall@1_of_1",
        "Masked word, one a text",
        1,
        "How often the aligner fills a masked token in with the very one that stood there, from the image's codes "
        "and the other tokens. Those were encoded with the masked one in sight, so that part of it is copying.",
        percent=True,
    ),
    Measure(
        "masked_words_recall@1_of_3",
        "Masked words, three a text",
        1,
        "The same with three tokens masked at once.",
        percent=True,
    ),
    Measure(
        "word_code_mse",
        "Relations of words and codes",
        -1,
        "Mean squared difference of the cosines between words and the cosines between the codes that they match.",
        4,
    ),
)

DISTANCE = (
    "Fréchet distance between reconstructions and originals in the features of the network {network!r}: do they look "
    "alike as sets? Not FID, which needs FID's own network; comparable only between equal numbers of images."
)


FID = (
    "FID",
    -1,
    "Fréchet Inception distance between reconstructions and originals, with the published weights: do they look "
    "alike as sets? Comparable only between equal numbers of images of one size.",
)
LPIPS = "Mean distance of images from their originals in {network}'s features, weighed as people's judgements ask."


def measures_of(evaluations: Sequence[Mapping[str, Any]]) -> list[Measure]:
    """The measures that at least one of some evaluations has, in the order of a table."""
    keys = sorted({key for found in evaluations for key in found if not key.endswith("_warning")})
    named = [Measure(key, *FID, 3) for key in keys if key == "fid"]
    named += [
        Measure(key, f"Fréchet distance ({key[3:]})", -1, DISTANCE.format(network=key[3:]), 3)
        for key in keys
        if key.startswith("fd_")
    ]
    named += [
        Measure(key, f"LPIPS ({key[6:]})", -1, LPIPS.format(network=key[6:]), 4)
        for key in keys
        if key.startswith("lpips_")
    ]
    every = [*MEASURES[:4], *named, *MEASURES[4:]]
    return [measure for measure in every if any(measure.of(found) is not None for found in evaluations)]


def with_gap(evaluation: Mapping[str, Any]) -> dict[str, Any]:
    """An evaluation with the difference of its two cosines, where it has both."""
    own, others = evaluation.get("code_text_cosine"), evaluation.get("code_text_cosine_shuffled")
    both = isinstance(own, float) and isinstance(others, float)
    return {**evaluation, "code_text_gap": own - others if both else None}  # type: ignore[operator]


def best(measure: Measure, values: Sequence[float | None]) -> list[int]:
    """Which of some values are the best: none without a direction, without two values, or where all print alike."""
    known = [value for value in values if value is not None]
    if measure.better == 0 or len(known) < 2 or len({measure.text(value) for value in known}) == 1:
        return []
    top = measure.text(max(known) if measure.better > 0 else min(known))
    return [place for place, value in enumerate(values) if value is not None and measure.text(value) == top]
