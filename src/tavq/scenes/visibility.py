"""Which things of a scene are visible, where and how many; judged at one fixed resolution."""

from collections import Counter
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from tavq.scenes.kinds import KINDS, Kind
from tavq.scenes.rendering import collect_parts, rasterize
from tavq.scenes.world import Scene, Thing

REFERENCE = 96
"""Side in pixels at which visibility is judged, so that texts do not depend on the image size."""
MIN_VISIBLE = 0.25
"""Fraction of a thing that must be visible for a text to mention it."""
MIN_PIXELS = 14
"""Pixels of a thing, at the reference size, that must be visible for a text to mention it."""


@dataclass(frozen=True)
class VisibleThing:
    """A visible thing and where it is visible. Lengths are fractions of the image's side."""

    index: int  # in scene.things
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
        if self.x < 0.37:
            return "left"
        return "right" if self.x > 0.63 else "middle"


@dataclass(frozen=True)
class SceneView:
    """Everything that is visible in a scene.

    `doubtful` are kinds with a further thing that is tiny or mostly hidden; texts neither count these nor single one
    out by its kind alone.
    """

    scene: Scene
    items: tuple[VisibleThing, ...]  # in drawing order: far before near
    doubtful: frozenset[str]

    def of_kind(self, kind: str) -> list[VisibleThing]:
        """The things of a kind, from left to right."""
        return sorted((item for item in self.items if item.thing.kind == kind), key=lambda item: item.x)

    def find(self, index: int) -> VisibleThing | None:
        """The thing with this index, if it is visible."""
        return next((item for item in self.items if item.index == index), None)

    @property
    def counts(self) -> Counter[str]:
        """Number of visible things by kind, without doubtful kinds."""
        return Counter(item.thing.kind for item in self.items if item.thing.kind not in self.doubtful)


@lru_cache(maxsize=8)
def view_scene(scene: Scene) -> SceneView:
    """Find what is visible in a scene."""
    parts, owners = collect_parts(scene)
    instances = np.array([-1, *owners], np.int16)[rasterize(parts, REFERENCE)]
    seen: list[VisibleThing] = []
    doubtful: set[str] = set()
    for index, thing in enumerate(scene.things):
        own = [part for part, owner in zip(parts, owners, strict=True) if owner == index]
        full = int((rasterize(own, REFERENCE) > 0).sum())
        ys, xs = np.nonzero(instances == index)
        if len(xs) >= max(MIN_PIXELS, MIN_VISIBLE * full):
            box = (xs.min(), ys.min(), xs.max() + 1, ys.max() + 1)
            left, top, right, bottom = (float(edge) / REFERENCE for edge in box)
            seen.append(VisibleThing(index, thing, (left + right) / 2, (top + bottom) / 2, (left, top, right, bottom)))
        elif len(xs):
            doubtful.add(thing.kind)
    return SceneView(scene, tuple(seen), frozenset(doubtful))
