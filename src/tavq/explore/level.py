"""A level of a model's store: what is counted of its codes and of units of text, when it is asked for."""

from collections.abc import Mapping
from dataclasses import fields
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Float, Int

from tavq.explore.statistics.codes import NONE, CodeColumns
from tavq.explore.statistics.rows import Rows
from tavq.explore.statistics.tables import Tables
from tavq.explore.store import LevelShape, StatisticsStore
from tavq.explore.units import UnitTable


def open_rows(store: StatisticsStore, name: str) -> Rows:
    """A ragged table of a store."""
    return Rows(np.asarray(store.tables[f"{name}/offsets"]), store.tables[f"{name}/values"])


def open_units(store: StatisticsStore, granularity: str) -> UnitTable:
    """The units of a granularity of a store."""
    text = store.tables[f"{granularity}/text"].tobytes()
    offsets = np.asarray(store.tables[f"{granularity}/text_offsets"]).tolist()
    texts = [text[first:last].decode("utf-8", "replace") for first, last in pairwise(offsets)]
    return UnitTable(texts, open_rows(store, f"{granularity}/of_images"), open_rows(store, f"{granularity}/images"))


class LevelStatistics:
    """Counts of one level; arrays are mapped, and each method reads what it needs of them.

    Args:
        store: of the model.
        shape: of the level.
        units: the units by granularity.
        counted: number of images that statistics of text count.
    """

    def __init__(self, store: StatisticsStore, shape: LevelShape, units: Mapping[str, UnitTable], counted: int) -> None:
        self.shape, self.units, self.counted = shape, units, counted
        self.name = shape.name
        self._store = store
        self.positions = open_rows(store, f"{self.name}/positions")
        self.prominent = open_rows(store, f"{self.name}/prominent")
        self.prominent_images = open_rows(store, f"{self.name}/prominent_images")
        self.columns = CodeColumns(**{
            field.name: np.asarray(store.tables[f"{self.name}/{field.name}"]) for field in fields(CodeColumns)
        })  # fmt: skip
        self._grid = store.grids[f"{self.name}/grid"]
        self._closest = store.tables[f"{self.name}/closest"]

    @cached_property
    def part_of(self) -> Int[np.ndarray, " k"]:
        """The part of each code."""
        return np.repeat(np.arange(self.shape.parts), self.shape.sizes)

    @cached_property
    def profiles(self) -> Float[np.ndarray, "k p"]:
        """Unit vectors of the codes' associations with words; 0 for a code without any."""
        raw = np.asarray(self._store.tables[f"{self.name}/profiles"], np.float32)
        norms = np.sqrt(np.einsum("kp,kp->k", raw, raw))[:, None]
        return np.divide(raw, norms, out=np.zeros_like(raw), where=norms > 0)

    def label(self, code: int) -> str | None:
        """The label of a code; None without one."""
        unit = int(self.columns.label[code])
        return None if unit == NONE else self.units["words"].texts[unit]

    def grid(self, image: int) -> Int[np.ndarray, "h w c"]:
        """The codes of an image, counted through all parts."""
        shape = self.shape
        return np.asarray(self._grid[image]).astype(np.int64).reshape(shape.height, shape.width, shape.parts)

    def locate(self, positions: Int[np.ndarray, " v"]) -> list[tuple[int, int, int]]:
        """Image, row and column of positions."""
        image, column = np.divmod(positions.astype(np.int64), self.shape.cells * self.shape.parts)
        row, column = np.divmod(column // self.shape.parts, self.shape.width)
        return list(zip(image.tolist(), row.tolist(), column.tolist(), strict=True))

    def closest(self, code: int) -> list[tuple[int, int, int]]:
        """The positions whose features are closest to a code, at most one of an image."""
        own = np.asarray(self._closest[code])
        return self.locate(own[own >= 0])

    def spread(self, code: int, count: int) -> list[tuple[int, int, int]]:
        """Positions of a code, evenly spaced in the order of images."""
        own = self.positions[code]
        if not len(own):
            return []
        chosen = np.unique(np.linspace(0, len(own) - 1, min(count, len(own))).astype(int))
        return self.locate(own[chosen])

    def position_map(self, code: int) -> Int[np.ndarray, "h w"]:
        """How often a code is at each position."""
        shape = self.shape
        cells = (self.positions[code] % (shape.cells * shape.parts)) // shape.parts
        return np.bincount(cells, minlength=shape.cells).reshape(shape.height, shape.width)

    def with_units(self, code: int, granularity: str) -> Tables:
        """The tables of a code with every unit of a granularity."""
        table = self.units[granularity]
        images = self.prominent_images[code]
        both = table.of_images.count(images, len(table))
        return Tables(self.counted, np.full(len(table), len(images)), table.counts, both)

    def with_unit(self, granularity: str, unit: int) -> Tables:
        """The tables of every code with a unit."""
        images = self.units[granularity].images[unit]
        return self._with_images(images)

    def with_code(self, code: int) -> Tables:
        """The tables of every code with the images in which a code is prominent; the lift is symmetric."""
        return self._with_images(self.prominent_images[code])

    def _with_images(self, images: Int[np.ndarray, " i"]) -> Tables:
        columns = self.columns.with_code
        if 2 * len(images) > len(self.prominent):  # counts the other images, of which there are fewer
            others = np.setdiff1d(np.arange(len(self.prominent)), images)
            both = columns - self.prominent.count(others, self.shape.entries)
        else:
            both = self.prominent.count(images, self.shape.entries)
        return Tables(self.counted, columns, np.full(self.shape.entries, len(images)), both)
