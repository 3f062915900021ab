"""Why a codebook collapsed, in plain words, from what a run logged."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tavq.metrics.codes import CodeUsage

FALLEN = 0.5
"""A usage below this fraction of the highest that was logged has fallen, rather than started low."""

COPIES = 0.02
"""Entries nearer to their nearest neighbours than this fraction of their size are copies of each other."""


@dataclass(frozen=True)
class Diagnosis:
    """The symptom, its most probable cause, and what to change."""

    sign: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        return f"{self.sign} {self.cause} Try: {self.remedy}"


def is_collapsed(line: Mapping[str, Any], sizes: Sequence[int], least: float, prefix: str = "codebook") -> bool:
    """Whether a logged line shows that few entries are in use, or that few are used for nearly all positions.

    Args:
        line: with `PREFIX/usage` and `PREFIX/perplexity`.
        sizes: entries of each part.
        least: fraction of the entries that must be in use, and that the perplexity must reach.
        prefix: `codebook`, or `codebook/low` and the like for an upper level.
    """
    return _used_fraction(line[f"{prefix}/usage"], line[f"{prefix}/perplexity"], sizes) < least


def _used_fraction(usage: float, perplexity: float, sizes: Sequence[int]) -> float:
    """Usage or perplexity as a fraction of the entries, whichever is less; perplexity is the mean over parts."""
    return min(usage, perplexity / (sum(sizes) / len(sizes)))


LEAST = 0.05
"""The fraction of the entries below which an evaluation warns of a low usage or perplexity."""


POSITIONS_PER_ENTRY = 4
"""Quantized positions per entry without which an evaluation says nothing: a few images cannot use all entries."""


def describe_collapse(codes: CodeUsage, random: bool) -> str:
    """Warns of a codebook of which few entries are in use; empty where enough are, or where too few were counted.

    Args:
        codes: what was counted.
        random: training samples the choice, so that the log cannot show this.
    """
    usage, perplexity, entries = codes.usage, codes.perplexity, codes.size
    few = int(codes.state.sum()) < POSITIONS_PER_ENTRY * entries
    if few or perplexity is None or _used_fraction(usage, perplexity, codes.sizes) >= LEAST:
        return ""
    use = f"{usage:.1%} of {entries} entries are in use, with a perplexity of {perplexity:.1f}"
    said = f"{use}: the codebook has collapsed."
    if not random:
        return f"{said} The run's report names the likely cause where its log shows one."
    return (
        f"{said} Training samples the entries, which hid it: few entries are ever the most probable. Try: a lower "
        "--model.quantizer.divergence, a higher learning rate or more steps."
    )


def diagnose(lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any], prefix: str = "codebook") -> Diagnosis:
    """The first known cause that agrees with the log.

    Args:
        lines: the logged lines of the run up to the one that shows the collapse, oldest first.
        settings: the tokenizer's settings as plain values (`codebook`, `quantizer`, `align`, `hierarchy`).
        prefix: which codebook collapsed; `codebook` is the one that the decoder reads.
    """
    last = lines[-1]
    usage, effective = last[f"{prefix}/usage"], last[f"{prefix}/perplexity"]
    sign = f"{usage:.1%} of the entries are in use, with a perplexity of {effective:.1f}."
    shared = (settings.get("hierarchy") or {}).get("codebook") == "shared"
    if prefix != "codebook" and shared:
        cause = "The level shares its codebook with the level that the decoder reads, whose features alone move it."
        return Diagnosis(sign, cause, "--model.hierarchy.codebook own.")
    of_level = [_of_level(line, prefix) for line in lines if f"{prefix}/usage" in line]
    for rule in (_fallen, _far, _copies, _upper_levels):
        found = rule(of_level, settings)
        if found is not None:
            return Diagnosis(sign, *found)
    return Diagnosis(
        sign,
        "The entries are apart and the features are near them, so the encoder itself gives few distinct features.",
        "fewer entries, an entropy loss (the quantizer's `entropy`), or more varied images.",
    )


def _of_level(line: Mapping[str, Any], prefix: str) -> Mapping[str, Any]:
    """A line with the values of an upper level's own codebook under the names of the deep level's."""
    if prefix == "codebook":
        return line
    level = prefix.removeprefix("codebook")
    codebook = {key.replace(prefix, "codebook"): value for key, value in line.items() if key.startswith(f"{prefix}/")}
    losses = {key.removesuffix(level): value for key, value in line.items() if key.endswith(level)}
    return {"step": line["step"], **codebook, **losses}


def _far(lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Entries much smaller than their distance to the features: entries that are never chosen never move."""
    last = lines[-1]
    error, scale = last.get("quantizer/commitment"), last.get("codebook/scale")
    if error is None or scale is None or not math.sqrt(error) > 2 * scale:
        return None
    cause = (
        f"The features are far from all entries (at a distance of {math.sqrt(error):.2g} per dimension, where entries "
        f"are of size {scale:.2g}), so the same few are always nearest and the others never move."
    )
    return cause, _restart(settings)


def _fallen(lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """A usage that was higher before: the features moved and left entries behind."""
    best = max(lines, key=lambda line: line["codebook/usage"])
    if not lines[-1]["codebook/usage"] < FALLEN * best["codebook/usage"]:
        return None
    cause = (
        f"It was {best['codebook/usage']:.1%} at step {best['step']}: the features have moved faster than the entries, "
        "and entries left behind are never nearest again."
    )
    return cause, f"a lower train.learning_rate or a longer train.warmup; or {_restart(settings)}"


def _copies(lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """Entries that are copies of each other: one of each group of copies takes every feature."""
    spacing, scale = lines[-1].get("codebook/spacing"), lines[-1].get("codebook/scale")
    if spacing is None or scale is None or not spacing < COPIES * scale:
        return None
    cause = f"Half of the entries are copies of another one (distance {spacing:.2g}, size {scale:.2g}, per dimension)."
    return cause, f"fewer entries, or {_restart(settings)}"


def _upper_levels(lines: Sequence[Mapping[str, Any]], settings: Mapping[str, Any]) -> tuple[str, str] | None:
    """With an aligner of several levels, the finer grids hold 20 times as many features as the decoder's."""
    upper = any(key.startswith("quantizer/") and key.count("/") == 2 for key in lines[-1])
    hierarchy = settings.get("hierarchy") or {}
    weight = hierarchy.get("weight", 0.0)
    if not upper or weight < 0.5 or hierarchy.get("codebook") == "own":
        return None
    cause = (
        f"The finer grids of the hierarchy share the codebook with full weight (model.hierarchy.weight {weight:g}), so "
        "their many features take the entries away from the grid that the decoder reads."
    )
    return cause, "--model.hierarchy.codebook own, --model.hierarchy.weight 0.1, or more entries."


def _restart(settings: Mapping[str, Any]) -> str:
    """The smallest change of settings that moves unused entries."""
    codebook = settings.get("codebook", {})
    if codebook.get("init") == "uniform":
        return "--model.codebook.init features, with --model.codebook.redraw_until 128."
    if codebook.get("name") == "learned" and not codebook.get("restart"):
        return "the codebook 'anchored' (CVQ), or --model.codebook.restart 1."
    if codebook.get("name") == "ema" and not codebook.get("restart"):
        return "--model.codebook.restart 1."
    return "fewer entries, or an entropy loss (the quantizer's `entropy`)."
