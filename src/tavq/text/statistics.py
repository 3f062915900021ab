"""What was found in the texts of a data set: units an image, vocabulary, repeats, faults, samples to read."""

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
    """Of one granularity."""

    units: int  # of all images, repeats between images counted
    distinct: int  # vectors stored; of words, the size of the vocabulary
    a_image: float  # mean
    quantiles: tuple[float, ...]  # units an image at QUANTILES
    without: int  # images that have none
    once: int  # distinct units that one image alone has
    common: tuple[tuple[str, int], ...]  # the COMMON that most images have, each with their number; 2 or more

    @property
    def share(self) -> float:
        """Vectors stored for each unit met: 0.1 means that a unit is met ten times."""
        return self.distinct / max(1, self.units)


@dataclass(frozen=True)
class StoreStatistics:
    """What `tavq text --stats` prints."""

    images: int
    levels: Mapping[str, LevelStatistics]
    faults: Mapping[str, int]  # images by what was wrong with their text
    samples: Mapping[str, Mapping[str, tuple[str, ...]]]  # units by key and granularity


def read_statistics(store: TextStore) -> StoreStatistics:
    """The statistics of a text store; reads its index and no vectors."""
    chosen = np.unique(np.linspace(0, len(store) - 1, SAMPLES).round().astype(int)) if len(store) else np.empty(0, int)
    return StoreStatistics(
        len(store),
        {name: _level(store, name) for name in GRANULARITIES},
        dict(store.manifest.faults),
        {key: store.units(key) for key in map(store.key, chosen.tolist())},
    )


def _level(store: TextStore, name: str) -> LevelStatistics:
    sizes, counts = store.sizes(name), store.counts(name)
    common = np.argsort(-counts, kind="stable")[:COMMON].tolist()
    return LevelStatistics(
        int(sizes.sum()),
        len(counts),
        float(sizes.mean()) if len(sizes) else 0.0,
        tuple(float(size) for size in np.quantile(sizes, QUANTILES)) if len(sizes) else (0.0,) * len(QUANTILES),
        int((sizes == 0).sum()),
        int((counts == 1).sum()),
        tuple((store.unit(name, row), int(counts[row])) for row in common if counts[row] > 1),
    )
