"""The places that scenes show: what they look like, which kinds occur there, and how texts name them."""

from dataclasses import dataclass

LIGHTS = ("day", "dawn", "sunset", "night", "lamplight")
WEATHERS = ("clear", "cloudy", "rain", "snow", "fog", "indoors")

Weights = dict[str, int | float]
"""Relative frequency of each kind."""


@dataclass(frozen=True)
class Setting:
    """One place, with the relative frequency of each kind."""

    name: str  # as texts name it: "living room"
    where: str  # with a preposition: "on a beach"
    place: str  # one-word answer to "where", or ""
    ground: str  # what things stand on: "the sand"
    surfaces: tuple[str, ...]  # possible ground textures
    far: tuple[str, ...]  # possible backgrounds at the horizon
    horizon: tuple[float, float]
    kinds: Weights  # on the ground or floor
    sky: Weights
    water: Weights
    wall: Weights
    indoor: bool = False
    weathers: tuple[str, ...] = ("clear", "clear", "clear", "cloudy", "cloudy", "rain", "fog")
    adjective: tuple[str, ...] = ()  # true of every image of the place


_SKY = {"balloon": 3.0, "kite": 2.0, "bird": 2.0, "airplane": 1.0}
_TABLETOP = {"vase": 2.0, "cup": 2.0, "bowl": 2.0, "apple": 2.0, "book": 2.0, "lamp": 2.0, "plant": 1.0, "cake": 1.5}
_NONE: Weights = {}

_CATALOGUE = (
    Setting("meadow", "in a meadow", "meadow", "the grass", ("grass",), ("hills", "mountains", "forest"), (0.4, 0.5),
            {"tree": 3, "house": 2, "cow": 2, "sheep": 2, "horse": 2, "flower": 3, "rock": 1, "bush": 2, "dog": 1,
             "man": 1, "woman": 1, "child": 1, "fence": 1.5, "windmill": 1.5, "mushroom": 1, "ball": 1, "tent": 1},
            {**_SKY, "butterfly": 2}, _NONE, _NONE, adjective=("green", "grassy")),
    Setting("farm", "on a farm", "farm", "the grass", ("grass",), ("field", "hills"), (0.4, 0.5),
            {"barn": 4, "cow": 3, "sheep": 3, "horse": 2, "tree": 2, "fence": 2, "truck": 1.5, "windmill": 1.5, "dog": 1.5,
             "cat": 1, "man": 1.5, "woman": 1, "house": 1, "bucket": 1.5, "flower": 1},
            {"bird": 2, "balloon": 1, "airplane": 0.5}, _NONE, _NONE, adjective=("quiet",)),
    Setting("park", "in a park", "park", "the grass", ("grass",), ("forest", "buildings", "hills"), (0.38, 0.48),
            {"tree": 3, "bench": 4, "dog": 2, "man": 1.5, "woman": 1.5, "child": 2, "ball": 2, "bicycle": 2, "flower": 2,
             "bush": 2, "lamppost": 2, "cat": 1, "umbrella": 1, "bird": 1},
            {**_SKY, "butterfly": 1}, _NONE, _NONE, adjective=("green",)),
    Setting("beach", "on a beach", "beach", "the sand", ("sand",), ("water",), (0.32, 0.42),
            {"umbrella": 4, "ball": 3, "palm": 3, "bucket": 3, "man": 1.5, "woman": 1.5, "child": 2, "dog": 1.5, "rock": 1,
             "lighthouse": 2, "chair": 1},
            _SKY, {"boat": 3.0}, _NONE, adjective=("sandy",), weathers=("clear", "clear", "clear", "cloudy", "rain")),
    Setting("street", "on a street", "street", "the pavement", ("pavement",), ("buildings",), (0.42, 0.48),
            {"car": 4, "bus": 2, "truck": 1.5, "bicycle": 2, "lamppost": 2, "mailbox": 2, "tree": 2, "man": 2, "woman": 2,
             "child": 1, "dog": 1, "cat": 1, "house": 3, "umbrella": 1, "bench": 1},
            {"balloon": 1.0, "bird": 1.5, "airplane": 1.0}, _NONE, _NONE,
            weathers=("clear", "clear", "clear", "cloudy", "rain", "rain", "snow", "fog")),
    Setting("desert", "in a desert", "desert", "the sand", ("dune",), ("mountains", "hills", "none"), (0.42, 0.52),
            {"cactus": 5, "rock": 3, "tent": 2, "car": 1, "truck": 1.5, "man": 1, "woman": 1, "horse": 1.5, "palm": 1.5},
            {"bird": 2.0, "airplane": 1.0, "balloon": 1.0, "kite": 1.0}, _NONE, _NONE, adjective=("dry", "sandy"),
            weathers=("clear", "clear", "clear", "cloudy")),
    Setting("mountains", "in the mountains", "mountains", "the grass", ("grass",), ("peaks",), (0.5, 0.56),
            {"pine": 4, "tent": 3, "rock": 3, "house": 2, "sheep": 2, "cow": 2, "man": 1, "woman": 1, "dog": 1, "flower": 1,
             "bush": 1, "bicycle": 1},
            {"bird": 2.0, "airplane": 1.0, "kite": 1.0, "balloon": 2.0}, _NONE, _NONE, adjective=("high",)),
    Setting("snowfield", "in a snowy field", "snow", "the snow", ("snow",), ("hills", "peaks", "forest"), (0.42, 0.52),
            {"snowman": 4, "pine": 4, "house": 2, "child": 2, "man": 1, "woman": 1, "dog": 2, "tent": 1, "fence": 1, "rock": 1,
             "cat": 0.7, "bucket": 0.7},
            {"bird": 2.0, "balloon": 1.0, "kite": 0.7}, _NONE, _NONE,
            weathers=("clear", "clear", "cloudy", "snow", "snow", "fog"), adjective=("snow-covered", "white")),
    Setting("lake", "by a lake", "lake", "the grass", ("grass",), ("hills", "peaks", "forest"), (0.34, 0.42),
            {"tree": 2, "pine": 2, "house": 1, "tent": 2, "bench": 2, "dog": 1, "man": 1, "woman": 1, "child": 1, "flower": 2,
             "rock": 1.5, "bush": 1, "bicycle": 1},
            {"bird": 2.0, "balloon": 2.0, "kite": 1.0, "butterfly": 1.0}, {"duck": 4.0, "boat": 3.0}, _NONE,
            adjective=("calm",)),
    Setting("forest", "at the edge of a forest", "forest", "the grass", ("grass",), ("tall forest",), (0.5, 0.56),
            {"pine": 3, "tree": 3, "mushroom": 4, "tent": 2, "rock": 2, "bush": 2, "dog": 1.5, "horse": 1, "flower": 2,
             "man": 1, "woman": 1, "child": 1, "house": 1},
            {"bird": 2.0, "butterfly": 2.0, "balloon": 1.0}, _NONE, _NONE, adjective=("dark green",)),
    Setting("living room", "in a living room", "", "the floor", ("wooden", "carpet"), ("wall",), (0.56, 0.64),
            {"sofa": 4, "table": 2.5, "chair": 2, "bookcase": 2, "plant": 2, "lamp": 1.5, "television": 1.5, "cat": 2.5, "dog": 2,
             "man": 0.8, "woman": 0.8, "child": 1, "ball": 1},
            _NONE, _NONE, {"picture": 3.0, "clock": 1.5}, indoor=True, weathers=("indoors",), adjective=("cozy",)),
    Setting("kitchen", "in a kitchen", "kitchen", "the floor", ("tiles", "wooden"), ("wall",), (0.56, 0.64),
            {"table": 5, "fridge": 3, "stove": 3, "chair": 2.5, "cat": 1.5, "dog": 1, "man": 1, "woman": 1, "plant": 1,
             "bucket": 0.7, "box": 0.7},
            _NONE, _NONE, {"clock": 2.5, "picture": 1.0}, indoor=True, weathers=("indoors",), adjective=("tidy",)),
    Setting("bedroom", "in a bedroom", "bedroom", "the floor", ("carpet", "wooden"), ("wall",), (0.56, 0.64),
            {"bed": 6, "chair": 1.5, "bookcase": 2, "lamp": 2, "teddy": 2, "cat": 2, "dog": 1, "plant": 1.5, "child": 1,
             "ball": 1, "box": 1},
            _NONE, _NONE, {"picture": 3.0, "clock": 1.5}, indoor=True, weathers=("indoors",), adjective=("quiet",)),
    Setting("study", "in a study", "study", "the floor", ("wooden", "carpet"), ("wall",), (0.56, 0.64),
            {"table": 5, "bookcase": 4, "chair": 3, "lamp": 1.5, "plant": 2, "cat": 1.5, "box": 1, "man": 0.7, "woman": 0.7},
            _NONE, _NONE, {"picture": 2.0, "clock": 2.5}, indoor=True, weathers=("indoors",), adjective=("quiet",)),
    Setting("playroom", "in a playroom", "playroom", "the floor", ("carpet", "wooden", "tiles"), ("wall",), (0.56, 0.64),
            {"ball": 4, "teddy": 4, "box": 4, "child": 2.5, "chair": 1.5, "table": 1.5, "bucket": 1.5, "bookcase": 1, "cat": 1,
             "dog": 1, "balloon": 2},
            _NONE, _NONE, {"picture": 2.0, "clock": 1.5}, indoor=True, weathers=("indoors",), adjective=("cheerful",)),
)  # fmt: skip

SETTINGS: dict[str, Setting] = {setting.name: setting for setting in _CATALOGUE}

ON_TOP: dict[str, Weights] = {
    "table": _TABLETOP,
    "chair": {"cat": 2.0, "teddy": 2.0, "book": 1.0},
    "sofa": {"cat": 3.0, "teddy": 1.0, "dog": 1.5, "book": 1.0},
    "bed": {"cat": 2.0, "teddy": 2.0, "book": 1.0},
    "bench": {"cat": 2.0, "bird": 2.0, "book": 1.0, "teddy": 0.7},
    "fence": {"bird": 3.0, "cat": 1.0},
    "box": {"teddy": 1.0, "cat": 1.5, "ball": 1.0, "book": 1.0},
    "bookcase": {"vase": 1.0, "plant": 1.0},
    "stove": {"bowl": 1.0, "cup": 1.0},
}
"""Which kinds may stand on which, with their relative frequency."""
