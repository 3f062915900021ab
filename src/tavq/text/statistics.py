"""Statistics of a text store: units per image, vocabulary, repetition, faults, samples to read."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from tavq.interfaces import GRANULARITIES
from tavq.text.store import TextStore

SAMPLES = 10
QUANTILES = (0.05, 0.5, 0.95)
COMMON = 20


@dataclass(frozen=True)
class LevelStatistics:
    """The statistics of one granularity."""

    units: int  # of all images, repeats between images counted
    distinct: int  # vectors stored; of words, the size of the vocabulary
    per_image: float  # mean number of units
    quantiles: tuple[float, ...]  # units per image at QUANTILES
    images_without: int  # images that have no unit
    in_one_image: int  # distinct units that occur in a single image
    common: tuple[tuple[str, int], ...]  # the COMMON most frequent units with their number of images, 2 or more

    @property
    def fraction_distinct(self) -> float:
        """Vectors stored per unit: 0.1 means that a unit occurs ten times on average."""
        return self.distinct / max(1, self.units)


@dataclass(frozen=True)
class StoreStatistics:
    """What `tavq text --stats` prints."""

    images: int
    texts: int  # more than images where the store keeps their captions apart; statistics are then of captions
    levels: Mapping[str, LevelStatistics]
    faults: Mapping[str, int]  # number of images by what was wrong with their text
    samples: Mapping[str, Mapping[str, tuple[str, ...]]]  # units by key and granularity


def read_statistics(store: TextStore) -> StoreStatistics:
    """Compute the statistics of a text store; reads its index and no vectors."""
    sampled = np.linspace(0, len(store) - 1, SAMPLES).round().astype(int) if len(store) else np.empty(0, int)
    samples = {key: store.units(key) for key in map(store.key, np.unique(sampled).tolist())}
    levels = {name: _compute_level(store, name) for name in GRANULARITIES}
    return StoreStatistics(store.images, len(store), levels, dict(store.manifest.faults), samples)


def _compute_level(store: TextStore, name: str) -> LevelStatistics:
    per_image, counts = store.units_per_image(name), store.counts(name)
    quantiles = np.quantile(per_image, QUANTILES).tolist() if len(per_image) else [0.0] * len(QUANTILES)
    common = np.argsort(-counts, kind="stable")[:COMMON].tolist()
    return LevelStatistics(
        units=int(per_image.sum()),
        distinct=len(counts),
        per_image=float(per_image.mean()) if len(per_image) else 0.0,
        quantiles=tuple(map(float, quantiles)),
        images_without=int((per_image == 0).sum()),
        in_one_image=int((counts == 1).sum()),
        common=tuple((store.unit(name, unit), int(counts[unit])) for unit in common if counts[unit] > 1),
    )
