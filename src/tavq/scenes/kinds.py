"""The catalogue of things: their sizes, colours, patterns, parts and positions."""

from dataclasses import dataclass

ANY = ("red", "orange", "yellow", "green", "blue", "purple", "pink", "white")
PAINTS = ("red", "yellow", "green", "blue", "white", "orange", "pink", "purple")
PATTERNS = ("plain", "plain", "striped", "dotted", "checkered")


@dataclass(frozen=True)
class Kind:
    """Properties of every thing of one kind. Lengths are fractions of the image's height, for a near thing."""

    name: str
    height: float
    aspect: float  # width / height
    colours: tuple[str, ...]
    patterns: tuple[str, ...] = ("plain",)
    parts: tuple[tuple[str, tuple[str, ...]], ...] = ()  # part and its possible colours
    features: tuple[str, ...] = ()  # further parts, as texts mention them: "two wheels"
    poses: tuple[str, ...] = ("standing",)
    depth: tuple[float, float] = (0.15, 1.0)  # 0 at the horizon, 1 at the lower edge
    group: str = "thing"  # animal, person, vehicle, building, plant, furniture, toy, thing
    plural: str = ""
    coloured: str = ""  # the part that has the colour, if "a red X" would be wrong: "shirt" of a man
    top: tuple[float, float, float] | None = None  # height, left and right end of a surface for other things
    herd: float = 0.2  # probability of a group of this kind

    @property
    def many(self) -> str:
        """The plural of the name."""
        return self.plural or f"{self.name}s"


def _kind(name: str, height: float, aspect: float, colours: tuple[str, ...], **more: object) -> Kind:
    return Kind(name, height, aspect, colours, **more)  # type: ignore[arg-type]


_SHIRTS = ("red", "yellow", "green", "blue", "white", "orange", "pink", "purple", "black", "gray")
_TROUSERS = ("blue", "black", "brown", "gray", "green", "red")

_CATALOGUE = (
    # buildings
    _kind("house", 0.58, 1.15, ("white", "yellow", "red", "blue", "pink", "gray", "green", "orange"),
          patterns=("plain", "plain", "brick", "wooden"), group="building", depth=(0.05, 0.4), herd=0.15,
          parts=(("roof", ("red", "brown", "gray", "black", "blue", "green")),
                 ("door", ("brown", "red", "green", "blue", "black"))),
          features=("two windows", "a chimney")),
    _kind("barn", 0.52, 1.3, ("red", "brown", "white", "gray"), patterns=("wooden",), group="building",
          depth=(0.05, 0.35), herd=0.0, parts=(("roof", ("gray", "brown", "black", "white")),),
          features=("a big double door", "a round window")),
    _kind("tent", 0.36, 1.4, ("orange", "yellow", "red", "blue", "green", "purple"), group="building",
          patterns=("plain", "striped"), depth=(0.15, 0.7), herd=0.2, features=("a dark opening",)),
    _kind("windmill", 0.68, 0.8, ("white", "gray", "red", "brown"), patterns=("plain", "brick"), group="building",
          depth=(0.05, 0.3), herd=0.0, parts=(("cap", ("red", "brown", "black", "blue")),),
          features=("four sails",)),
    _kind("lighthouse", 0.72, 0.32, ("white", "red", "yellow"), patterns=("striped", "plain"), group="building",
          depth=(0.1, 0.35), herd=0.0, parts=(("roof", ("red", "black", "blue")),), features=("a lantern room",)),
    # plants and stones
    _kind("tree", 0.66, 0.78, ("green", "green", "green", "orange", "yellow", "red", "pink"), group="plant",
          depth=(0.08, 0.75), herd=0.35, parts=(("trunk", ("brown",)),)),
    _kind("pine", 0.66, 0.52, ("green",), group="plant", depth=(0.08, 0.75), herd=0.45,
          parts=(("trunk", ("brown",)),)),
    _kind("palm", 0.66, 0.8, ("green",), group="plant", depth=(0.15, 0.7), herd=0.25,
          parts=(("trunk", ("brown",)),)),
    _kind("bush", 0.2, 1.4, ("green", "green", "red", "yellow"), group="plant", plural="bushes", herd=0.3),
    _kind("flower", 0.26, 0.5, ("red", "yellow", "pink", "purple", "white", "orange", "blue"), group="plant",
          depth=(0.55, 1.0), herd=0.6, parts=(("center", ("yellow", "brown")), ("stem", ("green",)))),
    _kind("mushroom", 0.17, 0.95, ("red", "brown", "orange"), patterns=("dotted", "plain"), group="plant",
          depth=(0.5, 1.0), herd=0.5, parts=(("stem", ("white",)),)),
    _kind("cactus", 0.42, 0.6, ("green",), group="plant", plural="cacti", herd=0.5, features=("two arms",)),
    _kind("rock", 0.17, 1.5, ("gray", "brown"), group="plant", herd=0.35),
    _kind("fence", 0.19, 2.8, ("white", "brown"), patterns=("wooden",), depth=(0.15, 0.6), herd=0.0,
          top=(0.95, -1.1, 1.1)),
    # animals
    _kind("cat", 0.23, 0.95, ("orange", "black", "white", "gray", "brown"), group="animal",
          patterns=("plain", "plain", "striped"), poses=("sitting", "lying"), depth=(0.35, 1.0),
          features=("pointed ears", "a long tail")),
    _kind("dog", 0.27, 1.1, ("brown", "black", "white", "gray", "orange"), group="animal",
          poses=("standing", "sitting"), depth=(0.3, 1.0), features=("floppy ears",),
          parts=(("collar", ("red", "blue", "yellow")),)),
    _kind("cow", 0.32, 1.45, ("brown", "white", "black"), patterns=("plain", "spotted"), group="animal",
          depth=(0.15, 0.9), herd=0.4, features=("two horns",)),
    _kind("sheep", 0.24, 1.25, ("white", "white", "gray"), group="animal", plural="sheep", herd=0.65,
          features=("a woolly coat", "a dark face"), depth=(0.15, 0.9)),
    _kind("horse", 0.38, 1.25, ("brown", "black", "white", "gray"), group="animal", depth=(0.15, 0.9), herd=0.25,
          features=("a dark mane",)),
    _kind("duck", 0.15, 1.3, ("white", "yellow", "brown"), group="animal", herd=0.6,
          parts=(("beak", ("orange",)),), poses=("swimming",)),
    _kind("bird", 0.13, 1.7, ("blue", "red", "yellow", "black", "white", "brown"), group="animal", herd=0.5,
          parts=(("beak", ("orange", "yellow")),), poses=("flying", "sitting")),
    _kind("butterfly", 0.13, 1.2, ("orange", "blue", "yellow", "purple", "pink"), patterns=("dotted", "plain"),
          group="animal", plural="butterflies", herd=0.4, poses=("flying",)),
    # people
    _kind("man", 0.46, 0.42, _SHIRTS, patterns=("plain", "plain", "striped"), group="person", plural="men",
          coloured="shirt", poses=("standing", "waving"), depth=(0.3, 0.95),
          parts=(("trousers", _TROUSERS),), features=("short hair",)),
    _kind("woman", 0.44, 0.44, _SHIRTS, patterns=("plain", "plain", "dotted"), group="person", plural="women",
          coloured="dress", poses=("standing", "waving"), depth=(0.3, 0.95), features=("long hair",)),
    _kind("child", 0.31, 0.5, _SHIRTS, patterns=("plain", "striped"), group="person", plural="children",
          coloured="shirt", poses=("standing", "waving"), depth=(0.4, 1.0), parts=(("trousers", _TROUSERS),)),
    _kind("snowman", 0.44, 0.62, ("white",), group="person", plural="snowmen", depth=(0.3, 0.95), herd=0.15,
          parts=(("scarf", ("red", "green", "blue", "purple")), ("nose", ("orange",))),
          features=("a black hat",)),
    # vehicles
    _kind("car", 0.22, 1.9, ("red", "blue", "yellow", "white", "black", "green", "gray", "orange"), group="vehicle",
          depth=(0.3, 0.95), herd=0.25, features=("two wheels", "side windows")),
    _kind("bus", 0.34, 1.75, ("red", "yellow", "blue", "green", "white", "orange"), group="vehicle",
          plural="buses", depth=(0.25, 0.8), herd=0.0, features=("a row of windows", "two wheels")),
    _kind("truck", 0.32, 1.7, ("red", "blue", "green", "white", "orange"), group="vehicle", depth=(0.25, 0.85),
          herd=0.0, parts=(("load", ("brown", "gray", "yellow")),), features=("two wheels",)),
    _kind("bicycle", 0.26, 1.45, ("red", "blue", "green", "yellow", "black", "orange"), group="vehicle",
          depth=(0.4, 0.95), herd=0.1, features=("two thin wheels",)),
    _kind("boat", 0.4, 0.9, ("red", "blue", "brown", "white", "green", "yellow"), group="vehicle", herd=0.3,
          patterns=("plain", "wooden"), parts=(("sail", ("white", "red", "yellow", "orange", "blue")),),
          features=("a mast",), poses=("sailing",), depth=(0.1, 0.9)),
    _kind("airplane", 0.13, 2.4, ("white", "red", "blue", "yellow", "gray"), group="vehicle", herd=0.0,
          poses=("flying",), features=("two wings",)),
    # things out of doors
    _kind("balloon", 0.24, 0.55, ANY, group="toy", herd=0.55, poses=("floating",), features=("a thin string",)),
    _kind("kite", 0.27, 0.75, ANY, patterns=("plain", "striped", "checkered"), group="toy", herd=0.25,
          poses=("flying",), features=("a tail",)),
    _kind("ball", 0.14, 1.0, ANY, patterns=("plain", "striped", "dotted", "checkered"), group="toy", herd=0.35,
          depth=(0.45, 1.0), poses=("lying",)),
    _kind("bucket", 0.15, 0.95, ANY, patterns=("plain", "striped", "dotted"), group="toy", depth=(0.5, 1.0),
          features=("a handle",)),
    _kind("umbrella", 0.46, 0.95, ANY, patterns=("striped", "plain", "dotted"), depth=(0.3, 0.9), herd=0.25,
          features=("a thin pole",)),
    _kind("bench", 0.22, 1.9, ("brown", "green", "red", "white"), patterns=("wooden",), depth=(0.3, 0.85),
          group="furniture", plural="benches", top=(0.5, -0.75, 0.75), herd=0.1),
    _kind("lamppost", 0.64, 0.22, ("black", "green", "gray"), depth=(0.15, 0.7), herd=0.3,
          parts=(("lantern", ("yellow",)),)),
    _kind("mailbox", 0.26, 0.7, ("red", "blue", "yellow", "green"), plural="mailboxes", depth=(0.3, 0.9), herd=0.0,
          features=("a post",)),
    # furniture
    _kind("sofa", 0.32, 2.0, ("red", "blue", "green", "brown", "gray", "yellow", "purple", "pink"),
          patterns=("plain", "plain", "striped", "dotted", "checkered"), group="furniture", depth=(0.1, 0.5), herd=0.0,
          top=(0.5, -0.62, 0.62), features=("two armrests", "two cushions")),
    _kind("chair", 0.36, 0.62, ("brown", "red", "blue", "white", "green", "yellow", "black"),
          patterns=("plain", "wooden"), group="furniture", depth=(0.15, 0.75), top=(0.48, -0.1, 0.14),
          features=("a tall back",)),
    _kind("table", 0.29, 1.9, ("brown", "white", "black", "gray", "yellow"), patterns=("wooden", "plain"),
          group="furniture", depth=(0.2, 0.75), herd=0.0, top=(1.0, -0.78, 0.78), features=("four legs",)),
    _kind("bed", 0.34, 1.95, ("blue", "red", "pink", "green", "yellow", "purple", "white", "gray"),
          patterns=("plain", "striped", "dotted", "checkered"), group="furniture", depth=(0.2, 0.6), herd=0.0,
          coloured="blanket", top=(0.55, -0.35, 0.75), parts=(("frame", ("brown",)),), features=("a white pillow",)),
    _kind("bookcase", 0.56, 0.8, ("brown", "white", "black", "gray"), patterns=("wooden",), group="furniture",
          depth=(0.05, 0.25), herd=0.0, features=("rows of books",), top=(1.0, -0.3, 0.3)),
    _kind("fridge", 0.56, 0.55, ("white", "red", "gray", "blue", "green"), group="furniture", depth=(0.05, 0.25),
          herd=0.0, features=("two doors",)),
    _kind("stove", 0.34, 0.95, ("white", "gray", "black", "red"), group="furniture", depth=(0.05, 0.25), herd=0.0,
          features=("an oven window",), top=(1.0, -0.3, 0.3)),
    _kind("television", 0.24, 1.5, ("black", "gray"), group="furniture", depth=(0.1, 0.4), herd=0.0,
          features=("a flat screen",)),
    # things in rooms
    _kind("lamp", 0.26, 0.66, ANY, patterns=("plain", "striped", "dotted"), coloured="shade", depth=(0.15, 0.8), herd=0.2,
          features=("a thin stand",)),
    _kind("plant", 0.36, 0.75, ("green",), group="plant", depth=(0.1, 0.8), herd=0.25,
          parts=(("pot", ("orange", "brown", "white", "blue", "red", "yellow")),)),
    _kind("vase", 0.2, 0.55, PAINTS, patterns=PATTERNS, herd=0.15, features=("a narrow neck",)),
    _kind("cup", 0.11, 1.15, PAINTS, patterns=PATTERNS, herd=0.4, features=("a handle",)),
    _kind("bowl", 0.13, 1.5, PAINTS, patterns=("plain", "striped"), herd=0.1, features=("fruit in it",)),
    _kind("apple", 0.09, 1.0, ("red", "green", "yellow"), herd=0.6, features=("a small leaf",)),
    _kind("cake", 0.15, 1.3, ("pink", "white", "brown", "yellow"), herd=0.0, features=("candles on top",)),
    _kind("book", 0.1, 1.5, ("red", "blue", "green", "brown", "purple", "orange"), herd=0.3, poses=("lying",)),
    _kind("teddy", 0.22, 0.85, ("brown", "yellow", "white", "pink"), plural="teddies", group="toy", poses=("sitting",),
          depth=(0.4, 1.0), herd=0.2, features=("round ears",)),
    _kind("box", 0.18, 1.15, ("brown", "red", "blue", "yellow", "green"), patterns=("plain", "striped", "dotted"),
          plural="boxes", depth=(0.3, 1.0), herd=0.3, top=(1.0, -0.35, 0.35)),
    _kind("clock", 0.17, 1.0, ("brown", "red", "blue", "black", "green"), coloured="frame", herd=0.0, poses=("hanging",),
          features=("two hands",)),
    _kind("picture", 0.22, 1.25, ("brown", "black", "white", "yellow", "red"), coloured="frame", herd=0.3,
          poses=("hanging",), features=("a landscape in it",)),
)  # fmt: skip

KINDS: dict[str, Kind] = {kind.name: kind for kind in _CATALOGUE}

BACKGROUNDS = (
    "sky",
    "mountains",
    "hills",
    "forest",
    "buildings",
    "grass",
    "field",
    "sand",
    "snow",
    "water",
    "ice",
    "road",
    "pavement",
    "path",
    "wall",
    "window",
    "floor",
    "rug",
)

CLASSES: tuple[str, ...] = (*BACKGROUNDS, *KINDS)
"""Segmentation classes; a pixel's value is an index into this tuple."""
