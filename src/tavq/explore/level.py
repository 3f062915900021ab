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


AROUND = 4096
"""Positions of a code whose surroundings are counted."""


def _spaced(length: int, count: int) -> Int[np.ndarray, " c"]:
    """At most `count` places in a list, evenly spaced."""
    return np.unique(np.linspace(0, length - 1, min(count, length)).astype(int))


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
        return self.locate(own[_spaced(len(own), count)])

    def position_map(self, code: int) -> Int[np.ndarray, "h w"]:
        """How often a code is at each position."""
        shape = self.shape
        cells = (self.positions[code] % (shape.cells * shape.parts)) // shape.parts
        return np.bincount(cells, minlength=shape.cells).reshape(shape.height, shape.width)

    def around(self, code: int, reach: int) -> list[list[tuple[int, float, float] | None]]:
        """The code that belongs most to each offset from a code, up to `reach` rows and columns away.

        A cell is (other code, share of the positions at this offset that have it, lift: this share over that of all
        positions), or None in the middle and where no other code has a lift above 1. Of those that have, the one with
        the largest share x log(lift) counts: its part of the divergence from the codes of all positions. Up to `AROUND`
        positions are looked at, evenly spaced in the order of images.
        """
        own = self.positions[code]
        places = np.array(self.locate(own[_spaced(len(own), AROUND)]), np.int64).reshape(-1, 3)
        span = range(-reach, reach + 1)
        return [[self._belonging(code, places, dy, dx) if dy or dx else None for dx in span] for dy in span]

    def _belonging(
        self, code: int, places: Int[np.ndarray, "p 3"], dy: int, dx: int
    ) -> tuple[int, float, float] | None:
        shape, part = self.shape, int(self.part_of[code])
        image, row, column = (places + np.array((0, dy, dx))).T
        inside = (row >= 0) & (row < shape.height) & (column >= 0) & (column < shape.width)
        cell = row[inside] * shape.width + column[inside]
        found, counts = np.unique(np.asarray(self._grid[image[inside], cell * shape.parts + part]), return_counts=True)
        share = counts / max(1, len(cell))
        lift = share * self.columns.count[self.part_of == part].sum() / self.columns.count[found]
        gain = share * np.log(lift)
        gain[found == code] = 0
        if not len(found) or gain.max() <= 0:
            return None
        best = int(gain.argmax())
        return int(found[best]), float(share[best]), float(lift[best])

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
