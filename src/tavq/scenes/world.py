"""Samples a scene from (seed, index): its place, weather, light, and which things are where."""

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
FARTHEST = 0.66  # size of a thing at the horizon relative to the same thing at the lower edge


@dataclass(frozen=True)
class Thing:
    """One object and its position. Lengths are fractions of the image's side; y grows downwards."""

    kind: str
    colour: str
    pattern: str
    second: str  # the pattern's other colour, or ""
    size: str
    pose: str
    facing: int  # 1 looks right, -1 left
    x: float  # of the centre
    y: float  # of the lower edge
    height: float
    zone: str  # ground, water, sky, wall or on
    support: int  # index of the thing it stands on, or -1
    parts: tuple[tuple[str, str], ...]  # part and its colour
    variant: int  # seed of the variation of shade and shape

    @property
    def width(self) -> float:
        """The width at this height."""
        return self.height * KINDS[self.kind].aspect

    def part(self, name: str) -> str:
        """The colour of a part."""
        return dict(self.parts)[name]


@dataclass(frozen=True)
class Backdrop:
    """The background of a scene."""

    ground: str  # grass, sand, dune, snow, pavement, wooden, tiles, carpet
    far: str  # hills, mountains, peaks, forest, tall forest, buildings, field, water, none or wall
    horizon: float
    shore: float  # y of the water's lower edge; 0 without water
    path: bool
    wall: str  # the wall's colour indoors, or ""
    paper: str  # plain, striped or dotted
    floor: str  # the floor's colour indoors, or ""
    rug: str  # the rug's colour, or ""
    window: float  # x of the window's centre; 0 without one
    disc: float  # x of the sun or moon; 0 without one
    variant: int


@dataclass(frozen=True)
class Scene:
    """The scene graph of one image; pixels and texts both come from it."""

    seed: int
    index: int
    setting: str
    weather: str
    light: str
    backdrop: Backdrop
    things: tuple[Thing, ...]  # in drawing order: far before near

    @property
    def place(self) -> Setting:
        """The catalogue entry of the setting."""
        return SETTINGS[self.setting]


@lru_cache(maxsize=64)
def sample_scene(seed: int, index: int) -> Scene:
    """Scene `index` of the endless series `seed`."""
    rng = random.Random(f"tavq scenes/{seed}/{index}")
    setting = SETTINGS[rng.choice(tuple(SETTINGS))]
    weather = rng.choice(setting.weathers)
    light = _sample_light(rng, setting, weather)
    backdrop = _sample_backdrop(rng, setting, weather)
    things = _SceneSampler(rng, setting, backdrop, light).sample_things()
    return Scene(seed, index, setting.name, weather, light, backdrop, things)


def _sample_light(rng: random.Random, setting: Setting, weather: str) -> str:
    if setting.indoor:
        return rng.choice(("day", "day", "day", "lamplight"))
    if weather in ("rain", "fog", "snow"):
        return rng.choice(("day", "day", "day", "night"))
    return rng.choice(("day", "day", "day", "day", "dawn", "sunset", "night"))


def _sample_backdrop(rng: random.Random, setting: Setting, weather: str) -> Backdrop:
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
    # The order of the random draws decides every later one, so it is part of the data set.
    far = rng.choice(setting.far)
    path = setting.name in ("park", "meadow", "forest") and rng.random() < 0.4
    paper, rug, window, disc = "plain", "", 0.0, 0.0
    if indoor:
        paper = rng.choice(("plain", "striped", "dotted"))
        if rng.random() < 0.4:
            rug = rng.choice(rugs)
        if rng.random() < 0.6:
            window = round(rng.choice((0.2, 0.8)) + rng.uniform(-0.04, 0.04), 3)
    elif weather == "clear" and rng.random() < 0.7:
        disc = round(rng.choice((0.16, 0.5, 0.84)) + rng.uniform(-0.06, 0.06), 3)
    return Backdrop(
        ground=ground,
        far=far,
        horizon=horizon,
        shore=shore,
        path=path,
        wall=wall if indoor else "",
        paper=paper,
        floor=floor,
        rug=rug,
        window=window,
        disc=disc,
        variant=rng.randrange(1 << 20),
    )


class _SceneSampler:
    """Samples the things of one scene, far enough apart that each is visible."""

    def __init__(self, rng: random.Random, setting: Setting, backdrop: Backdrop, light: str) -> None:
        self.rng = rng
        self.setting = setting
        self.backdrop = backdrop
        self.light = light
        self.things: list[Thing] = []

    def sample_things(self) -> tuple[Thing, ...]:
        """Sample one to seven things, in drawing order."""
        rng = self.rng
        wanted = rng.choices(range(1, 8), weights=(1, 3, 5, 6, 5, 4, 2))[0]
        self._place(self._choose_kind(self.setting.kinds), "ground")
        for _ in range(40):
            if len(self.things) >= wanted:
                break
            self._add_one(wanted)
        return _sort_for_drawing(self.things)

    def _add_one(self, wanted: int) -> None:
        rng, setting = self.rng, self.setting
        zones = {"ground": 5.0, "sky": 1.6, "water": 2.0, "wall": 1.5, "on": 4.0}
        possible = {"sky": setting.sky, "water": setting.water, "wall": setting.wall, "on": self._free_supports()}
        zones |= {zone: 0.0 for zone, choices in possible.items() if not choices}
        zone = rng.choices(tuple(zones), weights=tuple(zones.values()))[0]
        if zone == "on":
            self._place_on()
            return
        weights = {"ground": setting.kinds, "sky": setting.sky, "water": setting.water, "wall": setting.wall}[zone]
        kind = self._choose_kind(weights)
        others = rng.choice((1, 2, 2)) if rng.random() < kind.herd else 0
        first = self._place(kind, zone)
        for _ in range(min(others, wanted - len(self.things)) if first else 0):
            twin = first if rng.random() < 0.55 else None
            self._place(kind, zone, twin)

    def _choose_kind(self, weights: Weights) -> Kind:
        """Choose a kind; those that the scene has already are less likely."""
        present = {thing.kind for thing in self.things}
        adjusted = {name: weight * (0.25 if name in present else 1.0) for name, weight in weights.items()}
        return KINDS[self.rng.choices(tuple(adjusted), weights=tuple(adjusted.values()))[0]]

    def _free_supports(self) -> list[int]:
        """Indices of things on which another thing can stand."""
        taken = [thing.support for thing in self.things]
        room = {"table": 3, "sofa": 2, "bed": 2, "fence": 2, "bench": 2}
        return [
            index
            for index, thing in enumerate(self.things)
            if thing.kind in ON_TOP and taken.count(index) < room.get(thing.kind, 1)
        ]

    def _sample_thing(self, kind: Kind, zone: str, twin: Thing | None) -> Thing:
        rng = self.rng
        colour = twin.colour if twin else rng.choice(self._colours(kind))
        pattern = twin.pattern if twin else rng.choice(kind.patterns)
        second = twin.second if twin else self._second(kind, colour, pattern)
        parts = []
        for name, options in kind.parts:
            others = [option for option in options if option != colour or len(options) == 1]
            parts.append((name, rng.choice(others)))
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
            parts=twin.parts if twin else tuple(parts),
            variant=rng.randrange(1 << 20),
        )

    def _colours(self, kind: Kind) -> tuple[str, ...]:
        """The kind's colours, except those that would vanish against the backdrop."""
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
        """Add a thing, with the look of `twin` if given; None if there is no room for it."""
        thing = self._sample_thing(kind, zone, twin)
        for _ in range(12):
            candidate = self._sample_position(thing, kind)
            if self._fits(candidate):
                self.things.append(candidate)
                return candidate
        return None

    def _sample_position(self, thing: Thing, kind: Kind) -> Thing:
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
            nearness = rng.uniform(*kind.depth)
            y = top + nearness * (bottom - top)
            height = kind.height * gain * (FARTHEST + (1.0 - FARTHEST) * nearness)
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
        """Whether the thing hides no other too much, and no window."""
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

    def _place_on(self) -> None:
        """Add a thing on top of another, if there is room."""
        rng = self.rng
        support = rng.choice(self._free_supports())
        base = self.things[support]
        weights = ON_TOP[base.kind]
        top = KINDS[base.kind].top
        assert top is not None, "only kinds with a top carry others"
        kind = self._choose_kind(dict(weights.items()))
        thing = self._sample_thing(kind, "on", None)
        if kind.name == "dog":
            thing = replace(thing, pose="sitting")
        scale = base.height / KINDS[base.kind].height
        for _ in range(10):
            shrink = 0.8 if kind.group == "plant" else 1.0
            height = kind.height * SIZES[thing.size] * min(1.0, max(0.8, scale)) * shrink
            half = height * kind.aspect / 2 * 0.8 / base.height
            low, high = top[1] + half, top[2] - half
            offset = rng.uniform(low, high) if low < high else (top[1] + top[2]) / 2
            candidate = replace(
                thing,
                x=round(base.x + base.facing * offset * base.height, 4),
                y=round(base.y - top[0] * base.height + 0.012, 4),
                height=round(height, 4),
                support=support,
            )
            box = _box(candidate)
            overlaps = [_overlap(box, _box(other)) for index, other in enumerate(self.things) if index != support]
            if box[1] > 0.02 and all(shared < 0.02 * area for shared, area in overlaps):
                self.things.append(candidate)
                return


def _box(thing: Thing) -> tuple[float, float, float, float]:
    half = thing.width / 2
    return thing.x - half, thing.y - thing.height, thing.x + half, thing.y


def _overlap(a: Sequence[float], b: Sequence[float]) -> tuple[float, float]:
    """The area of the intersection of two boxes, and the smaller of their areas."""
    wide = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    high = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    areas = [(box[2] - box[0]) * (box[3] - box[1]) for box in (a, b)]
    return wide * high, min(areas)


_LAYERS = {"sky": 0.0, "wall": 0.05, "water": 0.1}


def _depth(things: Sequence[Thing], index: int) -> float:
    thing = things[index]
    if thing.support >= 0:
        return _depth(things, thing.support) + 1e-3 * (1 + index)
    return _LAYERS.get(thing.zone, 1.0) + thing.y


def _sort_for_drawing(things: Sequence[Thing]) -> tuple[Thing, ...]:
    """Sort the things in drawing order, and update the indices of supports."""
    order = sorted(range(len(things)), key=lambda index: _depth(things, index))
    new_index = {old: new for new, old in enumerate(order)}
    return tuple(replace(things[old], support=new_index.get(things[old].support, -1)) for old in order)


# --- labels -----------------------------------------------------------------------------------------------------

_LABEL_NAMES = {"kind": KINDS, "colour": NAMES, "setting": SETTINGS, "weather": WEATHERS, "light": LIGHTS}
LABELS: tuple[str, ...] = tuple(f"{group}:{name}" for group, names in _LABEL_NAMES.items() for name in names)
"""The labels that `label_vector` encodes, in their order."""


def labels(scene: Scene) -> dict[str, list[str] | list[tuple[str, str]]]:
    """The kinds, colours, (colour, kind) pairs, setting, weather and light of a scene, each sorted."""
    pairs = {(thing.colour, thing.kind) for thing in scene.things}
    return {
        "kinds": sorted({kind for _, kind in pairs}),
        "colours": sorted({colour for colour, _ in pairs}),
        "pairs": sorted(pairs),
        "setting": [scene.setting],
        "weather": [scene.weather],
        "light": [scene.light],
    }


def label_vector(scene: Scene) -> Bool[np.ndarray, "n"]:
    """Multi-hot encoding of `LABELS` for a scene."""
    found = {f"setting:{scene.setting}", f"weather:{scene.weather}", f"light:{scene.light}"}
    for thing in scene.things:
        found |= {f"kind:{thing.kind}", f"colour:{thing.colour}"}
    return np.array([label in found for label in LABELS])
