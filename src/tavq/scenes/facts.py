"""What can truly be said of an image: which things show, where, and how many, seen at one fixed resolution."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tavq.scenes.draw import assemble, raster
from tavq.scenes.kinds import KINDS, Kind
from tavq.scenes.world import Scene, Thing

REFERENCE = 96
"""Side in pixels at which visibility is judged, so that a text does not depend on the size of its image."""
SHOWS = 0.25
"""Least share of a thing that must be uncovered for it to be spoken of."""
LEAST = 14
"""Least pixels of a thing at the reference size for it to be spoken of."""


@dataclass(frozen=True)
class Fact:
    """One thing that shows, with its place in the image as it is seen. Lengths are shares of the side."""

    place: int  # in scene.things
    thing: Thing
    x: float
    y: float
    box: tuple[float, float, float, float]  # left, top, right, bottom

    @property
    def kind(self) -> Kind:
        """The catalogue entry."""
        return KINDS[self.thing.kind]

    @property
    def side(self) -> str:
        """left, middle or right."""
        return "left" if self.x < 0.37 else "right" if self.x > 0.63 else "middle"


@dataclass(frozen=True)
class Facts:
    """Everything that shows in a scene.

    `doubtful` are kinds of which something hidden or tiny is there too: they are never counted, nor singled out by
    kind alone.
    """

    scene: Scene
    seen: tuple[Fact, ...]  # in drawing order: far before near
    doubtful: frozenset[str]

    def of(self, kind: str) -> list[Fact]:
        """The things of a kind, from left to right."""
        return sorted((fact for fact in self.seen if fact.thing.kind == kind), key=lambda fact: fact.x)

    def by_place(self, place: int) -> Fact | None:
        """The fact about the thing number `place`, where it shows."""
        return next((fact for fact in self.seen if fact.place == place), None)

    @property
    def counts(self) -> Counter[str]:
        """Things that show by kind, of kinds that are not doubtful."""
        return Counter(fact.thing.kind for fact in self.seen if fact.thing.kind not in self.doubtful)


@lru_cache(maxsize=8)
def look(scene: Scene) -> Facts:
    """What shows in the scene."""
    parts, owners = assemble(scene)
    instances = np.array([-1, *owners], np.int16)[raster(parts, REFERENCE)]
    seen: list[Fact] = []
    doubtful: set[str] = set()
    for place, thing in enumerate(scene.things):
        own = [part for part, owner in zip(parts, owners, strict=True) if owner == place]
        whole = int((raster(own, REFERENCE) > 0).sum())
        ys, xs = np.nonzero(instances == place)
        if len(xs) >= max(LEAST, SHOWS * whole):
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            left, top, right, bottom = (float(edge) / REFERENCE for edge in box)
            seen.append(Fact(place, thing, (left + right) / 2, (top + bottom) / 2, (left, top, right, bottom)))
        elif len(xs):
            doubtful.add(thing.kind)
    return Facts(scene, tuple(seen), frozenset(doubtful))
