"""Codebook usage: how many entries are chosen, how evenly, and how far apart they are."""

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Float, Int, Shaped
from torch import Tensor

from tavq.core.errors import UsageError
from tavq.metrics import intervals
from tavq.metrics.keyed import KeyedMetric
from tavq.metrics.record import Group, Interval, Metric
from tavq.metrics.sums import SumMetric
from tavq.ops.collective import all_reduce_sum
from tavq.ops.grids import offset_indices
from tavq.ops.waiting import count_each

LEVEL_NAMES = ("low", "middle", "deep")
"""Of the hierarchy's grids, fine to coarse."""

CODEBOOK = Group("codebook", "Codebook", "How the entries are used in each grid of the hierarchy, by its level.")

USAGE = Metric(
    "usage",
    "Codebook usage",
    CODEBOOK,
    better=1,
    meaning="Fraction of the entries chosen at least once; it grows with the number of images.",
    percent=True,
    main=True,
)
PERPLEXITY = Metric(
    "perplexity",
    "Perplexity",
    CODEBOOK,
    better=1,
    meaning="exp of the entropy of the entries' frequencies: the number of equally used entries with the same entropy.",
    decimals=1,
    main=True,
)
LOGGED_TITLES = {
    "usage": "Codebook usage (fraction of entries chosen since the last log line)",
    "perplexity": "Codebook perplexity (since the last log line)",
    "dead": "Dead entries (not chosen since the last log line)",
    "spacing": "Entry spacing (median distance to the nearest other entry, per dimension)",
    "scale": "Entry scale (root mean square over entries and dimensions)",
}
"""Titles of what `UsageLog` returns, for charts; `positions` has none, as it only counts."""

DEAD = Metric("dead", "Dead entries", CODEBOOK, better=-1, meaning="Entries that were never chosen.", decimals=0)
SPACING = Metric(
    "spacing",
    "Entry spacing",
    CODEBOOK,
    meaning="Median distance of an entry to the nearest other one, per dimension; near 0, entries are copies.",
    decimals=4,
)
SCALE = Metric(
    "scale",
    "Entry scale",
    CODEBOOK,
    meaning="Root mean square of the entries' values, which the spacing is to be compared with.",
    decimals=4,
)


class CodeUsage(SumMetric):
    """How often each entry of a codebook was chosen in one grid of the hierarchy.

    Use one of these for each grid and split: an entry that only another grid uses is dead in this one.

    Args:
        sizes: entries of each part of the codebook.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.size = sum(sizes)
        self.state = torch.zeros(self.size, dtype=torch.int64)

    def update(self, indices: Int[Tensor, "b h w *c"]) -> None:
        """Adds the indices of a batch."""
        flat = offset_indices(indices, self.sizes).flatten().cpu()
        if flat.numel() and not 0 <= int(flat.min()) <= int(flat.max()) < self.size:
            raise UsageError(f"Indices from {flat.min()} to {flat.max()} do not fit a codebook of {self.size} entries.")
        self.state += torch.bincount(flat, minlength=self.size)

    @property
    def usage(self) -> float:
        """Fraction of the entries chosen at least once. It grows with the number of images."""
        return int((self.state > 0).sum()) / self.size

    @property
    def perplexity(self) -> float | None:
        """exp of the entropy (nats) of the choices, the mean over parts; None before the first image."""
        return perplexity(self.state, self.sizes) if int(self.state.sum()) else None

    @property
    def dead(self) -> int:
        """Entries that were never chosen."""
        return self.size - int((self.state > 0).sum())

    def top_entries(self, count: int = 10) -> list[tuple[int, float]]:
        """The most frequent entries, each with its fraction of all positions; ties in order of index.

        Entries never chosen are left out. Indices count through all parts.
        """
        total = int(self.state.sum())
        order = torch.argsort(self.state, descending=True, stable=True)[:count]
        return [(int(entry), int(self.state[entry]) / total) for entry in order if self.state[entry] > 0]

    def compute(self, level: str, interval: Interval | None = None, warning: str = "") -> list[Metric]:
        """Usage, perplexity and dead entries in the grid of `level` (low, middle, deep).

        Args:
            level: names the grid.
            interval: of the perplexity, from `Surprisal`.
            warning: that the codebook has collapsed; empty where it has not.
        """
        measured = (
            USAGE.measured(self.usage, warning=warning),
            PERPLEXITY.measured(self.perplexity, interval),
            DEAD.measured(self.dead),
        )
        return [_of_level(metric, level) for metric in measured]


def _of_level(metric: Metric, level: str) -> Metric:
    return replace(metric, name=f"{metric.name}_{level}", title=f"{metric.title} ({level})")


def perplexity(counts: Shaped[Tensor, " k"], sizes: Sequence[int]) -> float:
    """exp of the entropy (nats) of the chosen entries, the mean over the codebook's parts."""
    parts = [part.double() / part.sum().clamp(min=1) for part in counts.split(list(sizes))]
    return sum(float(torch.special.entr(part).sum().exp()) for part in parts) / len(parts)


class Surprisal(KeyedMetric):
    """The surprisal (negative log probability) of each image's indices, whose mean gives the perplexity."""

    def __init__(self, codes: CodeUsage) -> None:
        super().__init__()
        self.codes = codes

    def update(self, keys: Sequence[str], indices: Int[Tensor, "b h w *c"]) -> None:
        """Adds a batch, once `codes` has counted all images."""
        parts = [part.double() / part.sum().clamp(min=1) for part in self.codes.state.split(list(self.codes.sizes))]
        surprisal = torch.cat([-part.log() for part in parts])
        chosen = offset_indices(indices, self.codes.sizes).reshape(len(keys), -1, len(parts)).cpu()
        for key, row in zip(keys, surprisal[chosen].mean(dim=1).tolist(), strict=True):
            self._add(key, row)

    def interval(self) -> Interval | None:
        """The interval of the perplexity over images; None for fewer than two.

        The perplexity of a resample is exp of its images' mean surprisal under the probabilities of all images.
        Probabilities of its own would not do: a resample repeats images, so it sees fewer entries and would always
        score lower.
        """
        parts = len(self.codes.sizes)
        rows = [[1.0, *row] for _, row in self.ordered()]
        statistics = torch.tensor(rows, dtype=torch.float64).view(-1, 1 + parts)
        ends = intervals.as_pairs(intervals.bootstrap(statistics, _perplexities))[0]
        return None if ends is None else (ends[0], ends[1])


def _perplexities(sums: Float[Tensor, "r d"]) -> Float[Tensor, "r 1"]:
    return intervals.mean(sums).exp().mean(dim=1, keepdim=True)


SAMPLED = 1024
"""Entries of which the nearest neighbour is looked for; of a larger codebook every k-th."""


@torch.no_grad()
def spacing(entries: Float[Tensor, "k d"]) -> dict[str, float]:
    """How far apart entries are, both per dimension (divided by the root of d).

    - `spacing`: median distance of an entry to the nearest other one; infinite for a single entry.
    - `scale`: root mean square of the entries' values.
    """
    entries = entries.double()  # distances come from a product, which in fp32 loses small ones between large entries
    k, d = entries.shape
    chosen = torch.arange(0, k, max(1, k // SAMPLED), device=entries.device)
    nearest = []
    for part in chosen.split(64):  # 64 x 2^18 distances are 128 MB
        distance = torch.cdist(entries[part], entries)
        distance[torch.arange(len(part)), part] = torch.inf
        nearest.append(distance.amin(1))
    median = torch.cat(nearest).median() / d**0.5
    return {"spacing": float(median), "scale": float(entries.square().mean().sqrt())}


def measure_spacing(entries: Float[Tensor, "k d"], level: str) -> list[Metric]:
    """The spacing and the scale of the codebook of `level` (low, middle, deep); a single entry has no spacing."""
    found = spacing(entries)
    value = found["spacing"] if math.isfinite(found["spacing"]) else None
    return [_of_level(SPACING.measured(value), level), _of_level(SCALE.measured(found["scale"]), level)]


class UsageLog:
    """Codebook usage since the last line of a training log.

    Counts stay on the device of the indices, so that no step waits for a transfer.
    """

    def __init__(self, sizes: Sequence[int]) -> None:
        self.sizes = tuple(sizes)
        self.counts: Tensor | None = None

    def add(self, indices: Int[Tensor, "b h w *c"]) -> None:
        """Adds the indices of one step."""
        counts = count_each(offset_indices(indices, self.sizes).flatten(), sum(self.sizes))
        self.counts = counts if self.counts is None else self.counts + counts

    def flush(self, entries: Float[Tensor, "k d"], prefix: str = "codebook") -> dict[str, Any]:
        """Usage, perplexity, dead entries and positions since the last call, over all processes; and the spacing.

        Args:
            entries: the codebook as it is now.
            prefix: what the names begin with, such as `codebook/low`.
        """
        counts = torch.zeros(sum(self.sizes)) if self.counts is None else all_reduce_sum(self.counts).cpu()
        self.counts = None
        return {
            f"{prefix}/usage": float((counts > 0).double().mean()),
            f"{prefix}/perplexity": perplexity(counts, self.sizes),
            f"{prefix}/dead": int((counts == 0).sum()),
            f"{prefix}/positions": int(counts.sum()),
            **{f"{prefix}/{key}": value for key, value in spacing(entries).items() if math.isfinite(value)},
        }
