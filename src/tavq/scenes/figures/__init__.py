"""How each kind is drawn: one function a kind, which fills a Pen with parts from back to front."""

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
def figure(thing: Thing) -> tuple[Part, ...]:
    """The parts of a thing from back to front."""
    pen = Pen(thing)
    FIGURES[thing.kind](pen)
    return tuple(pen.parts)
