"""Draws each kind of thing: one function per kind, which adds parts to a Pen from back to front."""

from collections.abc import Callable
from functools import lru_cache

from tavq.scenes.figures import animals, buildings, furniture, nature, people, things, vehicles
from tavq.scenes.shapes import Part, Pen
from tavq.scenes.world import Thing

FIGURES: dict[str, Callable[[Pen], None]] = {
    **animals.FIGURES,
    **buildings.FIGURES,
    **furniture.FIGURES,
    **nature.FIGURES,
    **people.FIGURES,
    **things.FIGURES,
    **vehicles.FIGURES,
}


@lru_cache(maxsize=256)
def draw_figure(thing: Thing) -> tuple[Part, ...]:
    """The parts of a thing from back to front."""
    pen = Pen(thing)
    FIGURES[thing.kind](pen)
    return tuple(pen.parts)
