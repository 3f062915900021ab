"""Samples a scene: which things stand where, in which place, weather and light, from (seed, index) alone."""

import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import numpy as np
from jaxtyping import Bool

from tavq.scenes.colours import NAMES
from tavq.scenes.kinds import KINDS, Kind
from tavq.scenes.settings import LIGHTS, ON_TOP, SETTINGS, WEATHERS, Setting, Weights

SIZES = {"small": 0.72, "medium": 1.0, "large": 1.3}
FARTHEST = 0.66  # how large a thing at the horizon looks beside the same thing at the lower edge


@dataclass(frozen=True)
class Thing:
    """One object: what it is and where it stands. Lengths are shares of the image's side, y grows downwards."""

    kind: str
    colour: str
    pattern: str
    second: str  # the pattern's other colour, or ""
    size: str
    pose: str
    facing: int  # 1 looks right, -1 left
    x: float  # middle
    y: float  # lower edge
    height: float
    zone: str  # ground, water, sky, wall or on
    support: int  # place in `things` of what it stands on, or -1
    parts: tuple[tuple[str, str], ...]  # part and its colour
    variant: int  # seeds the natural variation of shade and shape

    @property
    def width(self) -> float:
        """The width its kind has at this height."""
        return self.height * KINDS[self.kind].aspect

    def part(self, name: str) -> str:
        """The colour of a part."""
        return dict(self.parts)[name]


@dataclass(frozen=True)
class Backdrop:
    """What lies behind the things."""

    ground: str  # grass, sand, dune, snow, pavement, wooden, tiles, carpet
    far: str  # hills, mountains, peaks, forest, tall forest, buildings, field, water, none or wall
    horizon: float
    shore: float  # where water ends; 0 without water
    path: bool
    wall: str  # the wall's colour indoors, or ""
    paper: str  # plain, striped or dotted
    floor: str  # the floor's colour indoors, or ""
    rug: str  # the rug's colour, or ""
    window: float  # the middle of the window, or 0 without one
    disc: float  # the middle of the sun or moon, or 0 without one
    variant: int


@dataclass(frozen=True)
class Scene:
    """Everything that is true of one image; pixels and words both come from here."""

    seed: int
    index: int
    setting: str
    weather: str
    light: str
    backdrop: Backdrop
    things: tuple[Thing, ...]  # in the order they are drawn: far before near

    @property
    def place(self) -> Setting:
        """The catalogue entry of the setting."""
        return SETTINGS[self.setting]


@lru_cache(maxsize=64)
def sample_scene(seed: int, index: int) -> Scene:
    """The scene number `index` of the endless series `seed`."""
    rng = random.Random(f"tavq scenes/{seed}/{index}")
    setting = SETTINGS[rng.choice(tuple(SETTINGS))]
    weather = rng.choice(setting.weathers)
    light = _light(rng, setting, weather)
    backdrop = _backdrop(rng, setting, weather)
    things = _Stage(rng, setting, backdrop, light).fill()
    return Scene(seed, index, setting.name, weather, light, backdrop, things)


def _light(rng: random.Random, setting: Setting, weather: str) -> str:
    if setting.indoor:
        return rng.choice(("day", "day", "day", "lamplight"))
    if weather in ("rain", "fog", "snow"):
        return rng.choice(("day", "day", "day", "night"))
    return rng.choice(("day", "day", "day", "day", "dawn", "sunset", "night"))


def _backdrop(rng: random.Random, setting: Setting, weather: str) -> Backdrop:
    indoor = setting.indoor
    horizon = round(rng.uniform(*setting.horizon), 3)
    ground = rng.choice(setting.surfaces)
    shore = 0.0
    if setting.name == "beach":
        shore = round(horizon + rng.uniform(0.13, 0.2), 3)
    elif setting.name == "lake":
        shore = round(horizon + rng.uniform(0.2, 0.28), 3)
    floors = {
        "wooden": ("brown",),
        "tiles": ("white", "gray", "blue"),
        "carpet": ("red", "green", "blue", "gray", "brown"),
    }
    floor = rng.choice(floors[ground]) if indoor else ""
    wall = rng.choice([name for name in ("yellow", "green", "blue", "pink", "white", "gray") if name != floor])
    rugs = [name for name in ("red", "blue", "green", "orange", "purple") if name != floor]
    return Backdrop(
        ground=ground,
        far=rng.choice(setting.far),
        horizon=horizon,
        shore=shore,
        path=setting.name in ("park", "meadow", "forest") and rng.random() < 0.4,
        wall=wall if indoor else "",
        paper=rng.choice(("plain", "striped", "dotted")) if indoor else "plain",
        floor=floor,
        rug=rng.choice(rugs) if indoor and rng.random() < 0.4 else "",
        window=round(rng.choice((0.2, 0.8)) + rng.uniform(-0.04, 0.04), 3) if indoor and rng.random() < 0.6 else 0.0,
        disc=round(rng.choice((0.16, 0.5, 0.84)) + rng.uniform(-0.06, 0.06), 3)
        if not indoor and weather == "clear" and rng.random() < 0.7
        else 0.0,
        variant=rng.randrange(1 << 20),
    )


class _Stage:
    """Fills one scene with things, far from each other enough that each can be seen."""

    def __init__(self, rng: random.Random, setting: Setting, backdrop: Backdrop, light: str) -> None:
        self.rng = rng
        self.setting = setting
        self.backdrop = backdrop
        self.light = light
        self.things: list[Thing] = []

    def fill(self) -> tuple[Thing, ...]:
        """One to seven things in drawing order."""
        rng = self.rng
        wanted = rng.choices(range(1, 8), weights=(1, 3, 5, 6, 5, 4, 2))[0]
        self._place(self._pick(self.setting.kinds), "ground")
        for _ in range(40):
            if len(self.things) >= wanted:
                break
            self._add_one(wanted)
        return _ordered(self.things)

    def _add_one(self, wanted: int) -> None:
        rng, setting = self.rng, self.setting
        zones = {"ground": 5.0, "sky": 1.6 if setting.sky else 0.0, "water": 2.0 if setting.water else 0.0,
                 "wall": 1.5 if setting.wall else 0.0, "on": 4.0 if self._supports() else 0.0}  # fmt: skip
        zone = rng.choices(tuple(zones), weights=tuple(zones.values()))[0]
        if zone == "on":
            self._place_on(wanted)
            return
        weights = {"ground": setting.kinds, "sky": setting.sky, "water": setting.water, "wall": setting.wall}[zone]
        kind = self._pick(weights)
        herd = rng.choice((1, 2, 2)) if rng.random() < kind.herd else 0
        first = self._place(kind, zone)
        for _ in range(min(herd, wanted - len(self.things)) if first else 0):
            twin = first if rng.random() < 0.55 else None
            self._place(kind, zone, twin)

    def _pick(self, weights: Weights) -> Kind:
        counts = {thing.kind for thing in self.things}
        fresh = {name: weight * (0.25 if name in counts else 1.0) for name, weight in weights.items()}
        return KINDS[self.rng.choices(tuple(fresh), weights=tuple(fresh.values()))[0]]

    def _supports(self) -> list[int]:
        taken = [thing.support for thing in self.things]
        room = {"table": 3, "sofa": 2, "bed": 2, "fence": 2, "bench": 2}
        return [
            place
            for place, thing in enumerate(self.things)
            if thing.kind in ON_TOP and taken.count(place) < room.get(thing.kind, 1)
        ]

    def _dress(self, kind: Kind, zone: str, twin: Thing | None) -> Thing:
        rng = self.rng
        colour = twin.colour if twin else rng.choice(self._colours(kind))
        pattern = twin.pattern if twin else rng.choice(kind.patterns)
        second = twin.second if twin else self._second(kind, colour, pattern)
        parts = tuple(
            (name, rng.choice([option for option in options if option != colour or len(options) == 1]))
            for name, options in kind.parts
        )
        poses = kind.poses
        if kind.name == "bird":
            poses = ("flying",) if zone == "sky" else ("sitting",)
        return Thing(
            kind=kind.name,
            colour=colour,
            pattern=pattern,
            second=second,
            size=rng.choices(tuple(SIZES), weights=(2, 6, 2))[0],
            pose=rng.choice(poses),
            facing=rng.choice((1, -1)),
            x=0.5,
            y=0.5,
            height=kind.height,
            zone=zone,
            support=-1,
            parts=twin.parts if twin else parts,
            variant=rng.randrange(1 << 20),
        )

    def _colours(self, kind: Kind) -> tuple[str, ...]:
        """The kind's colours without those that would vanish against what lies behind."""
        hidden = {self.backdrop.wall} if kind.name in ("picture", "clock", "fridge") else set()
        if kind.name == "tree" and self.setting.name in ("snowfield", "desert"):
            hidden |= {"pink"}
        return tuple(name for name in kind.colours if name not in hidden) or kind.colours

    def _second(self, kind: Kind, colour: str, pattern: str) -> str:
        if pattern in ("plain", "brick", "wooden"):
            return ""
        if pattern == "spotted":
            return "black" if colour == "white" else "white"
        if kind.name == "mushroom":
            return "white"
        if kind.name == "cat":
            return "black" if colour != "black" else "gray"
        options = {"white": ("red", "blue", "green", "orange")}.get(colour, ("white", "white", "yellow", "blue"))
        return self.rng.choice([name for name in options if name != colour])

    def _place(self, kind: Kind, zone: str, twin: Thing | None = None) -> Thing | None:
        thing = self._dress(kind, zone, twin)
        for _ in range(12):
            candidate = self._positioned(thing, kind)
            if self._fits(candidate):
                self.things.append(candidate)
                return candidate
        return None

    def _positioned(self, thing: Thing, kind: Kind) -> Thing:
        rng, backdrop = self.rng, self.backdrop
        gain = SIZES[thing.size]
        if thing.zone == "sky":
            height = kind.height * gain * rng.uniform(0.85, 1.0)
            y = rng.uniform(0.04, max(0.06, backdrop.horizon - height - 0.06)) + height
        elif thing.zone == "wall":
            height = kind.height * min(gain, 1.15) * rng.uniform(0.9, 1.0)
            y = rng.uniform(0.08, 0.16) + height
        else:
            top, bottom = self._band(thing.zone)
            share = rng.uniform(*kind.depth)
            y = top + share * (bottom - top)
            height = kind.height * gain * (FARTHEST + (1.0 - FARTHEST) * share)
        half = height * kind.aspect / 2
        margin = min(half * 0.9, 0.45) + 0.01
        x = rng.uniform(margin, 1.0 - margin)
        return replace(thing, x=round(x, 4), y=round(y, 4), height=round(min(height, y - 0.01), 4))

    def _band(self, zone: str) -> tuple[float, float]:
        backdrop = self.backdrop
        if zone == "water":
            return backdrop.horizon + 0.045, backdrop.shore - 0.02
        top = backdrop.shore + 0.07 if backdrop.shore else backdrop.horizon + 0.05
        return top, 0.965

    def _fits(self, thing: Thing) -> bool:
        box = _box(thing)
        for other in self.things:
            shared, area = _overlap(box, _box(other))
            limit = 0.22 if thing.zone == "ground" and other.zone == "ground" else 0.04
            if shared > limit * area:
                return False
            if thing.zone == other.zone == "wall" and shared > 0:
                return False
        window = self.backdrop.window
        return not (thing.zone == "wall" and window and abs(thing.x - window) < 0.17 + thing.width / 2)

    def _place_on(self, wanted: int) -> None:
        rng = self.rng
        place = rng.choice(self._supports())
        base = self.things[place]
        weights = ON_TOP[base.kind]
        top = KINDS[base.kind].top
        assert top is not None, "only kinds with a top carry others"
        kind = self._pick(dict(weights.items()))
        thing = self._dress(kind, "on", None)
        if kind.name == "dog":
            thing = replace(thing, pose="sitting")
        scale = base.height / KINDS[base.kind].height
        for _ in range(10):
            height = (
                kind.height * SIZES[thing.size] * min(1.0, max(0.8, scale)) * (0.8 if kind.group == "plant" else 1.0)
            )
            half = height * kind.aspect / 2 * 0.8 / base.height
            low, high = top[1] + half, top[2] - half
            where = rng.uniform(low, high) if low < high else (top[1] + top[2]) / 2
            candidate = replace(
                thing,
                x=round(base.x + base.facing * where * base.height, 4),
                y=round(base.y - top[0] * base.height + 0.012, 4),
                height=round(height, 4),
                support=place,
            )
            box = _box(candidate)
            others = [other for spot, other in enumerate(self.things) if spot != place]
            if box[1] > 0.02 and all(
                _overlap(box, _box(other))[0] < 0.02 * _overlap(box, _box(other))[1] for other in others
            ):
                self.things.append(candidate)
                return


def _box(thing: Thing) -> tuple[float, float, float, float]:
    half = thing.width / 2
    return thing.x - half, thing.y - thing.height, thing.x + half, thing.y


def _overlap(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The area two boxes share, and the smaller of their areas."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * high, min(areas)


_LAYERS = {"sky": 0.0, "wall": 0.05, "water": 0.1}


def _depth(things: Sequence[Thing], place: int) -> float:
    thing = things[place]
    if thing.support >= 0:
        return _depth(things, thing.support) + 1e-3 * (1 + place)
    return _LAYERS.get(thing.zone, 1.0) + thing.y


def _ordered(things: Sequence[Thing]) -> tuple[Thing, ...]:
    """The things in drawing order, with each support's place brought up to date."""
    order = sorted(range(len(things)), key=lambda place: _depth(things, place))
    places = {old: new for new, old in enumerate(order)}
    return tuple(replace(things[old], support=places.get(things[old].support, -1)) for old in order)


# --- labels -----------------------------------------------------------------------------------------------------

LABELS: tuple[str, ...] = (
    *(f"kind:{name}" for name in KINDS),
    *(f"colour:{name}" for name in NAMES),
    *(f"setting:{name}" for name in SETTINGS),
    *(f"weather:{name}" for name in WEATHERS),
    *(f"light:{name}" for name in LIGHTS),
)
"""What `label_vector` marks, in its order."""


def labels(scene: Scene) -> dict[str, list[str] | list[tuple[str, str]]]:
    """The kinds, colours, (colour, kind) pairs, setting, weather and light of a scene, each sorted."""
    return {
        "kinds": sorted({thing.kind for thing in scene.things}),
        "colours": sorted({thing.colour for thing in scene.things}),
        "pairs": sorted({(thing.colour, thing.kind) for thing in scene.things}),
        "setting": [scene.setting],
        "weather": [scene.weather],
        "light": [scene.light],
    }


def label_vector(scene: Scene) -> Bool[np.ndarray, "n"]:
    """Which of `LABELS` hold for the scene."""
    found = {f"kind:{thing.kind}" for thing in scene.things} | {f"colour:{thing.colour}" for thing in scene.things}
    found |= {f"setting:{scene.setting}", f"weather:{scene.weather}", f"light:{scene.light}"}
    return np.array([label in found for label in LABELS])
