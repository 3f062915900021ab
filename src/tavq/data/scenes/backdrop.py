"""What lies behind the things: sky, horizon, ground, walls and floors, as classes and as pixels."""

import random
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, UInt8

from tavq.data.scenes.colours import RGB, mixed, natural
from tavq.data.scenes.kinds import CLASSES
from tavq.data.scenes.textures import noise, rough, smooth
from tavq.data.scenes.world import Scene

Plan = UInt8[np.ndarray, "n n"]
Canvas = Float32[np.ndarray, "n n 3"]
Row = Float32[np.ndarray, "n"]

ID = {name: code for code, name in enumerate(CLASSES)}

TINTS: dict[str, RGB] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.02, 0.92, 0.97),
    "sunset": (1.05, 0.85, 0.72),
    "night": (0.4, 0.46, 0.68),
    "lamplight": (0.92, 0.78, 0.58),
}
"""What each light does to the backdrop."""

_SKIES: dict[str, tuple[RGB, RGB]] = {
    "clear": ((84.0, 152.0, 226.0), (198.0, 228.0, 247.0)),
    "cloudy": ((132.0, 156.0, 184.0), (206.0, 216.0, 224.0)),
    "rain": ((100.0, 112.0, 128.0), (160.0, 170.0, 180.0)),
    "snow": ((168.0, 180.0, 194.0), (220.0, 226.0, 232.0)),
    "fog": ((186.0, 193.0, 198.0), (214.0, 217.0, 218.0)),
    "dawn": ((122.0, 146.0, 206.0), (255.0, 206.0, 190.0)),
    "sunset": ((92.0, 78.0, 150.0), (255.0, 158.0, 80.0)),
    "night": ((12.0, 18.0, 50.0), (46.0, 58.0, 104.0)),
}

_FAR_CLASS = {"hills": "hills", "mountains": "mountains", "peaks": "mountains", "forest": "forest",
              "tall forest": "forest", "buildings": "buildings", "field": "field"}  # fmt: skip


@lru_cache(maxsize=8)
def _axis(n: int) -> Row:
    return (np.arange(n, dtype=np.float32) + 0.5) / n


def skyline(scene: Scene, n: int) -> Row:
    """The height of what stands at the horizon, for each column of pixels."""
    backdrop = scene.backdrop
    x, h = _axis(n), backdrop.horizon
    rng = random.Random(backdrop.variant)
    if backdrop.far in ("mountains", "peaks"):
        high = h - 0.16 if backdrop.far == "peaks" else 0.14
        knots = np.linspace(-0.1, 1.1, 8)
        heights = [(rng.uniform(0.6, 1.0) if place % 2 else rng.uniform(0.2, 0.5)) * high for place in range(8)]
        jags = (noise(n, 40, 2, 3)[0] - 0.5) * 0.03
        return (h - np.interp(x, knots, heights) + jags).astype(np.float32)
    if backdrop.far == "hills":
        phases = [rng.uniform(0, 6.3) for _ in range(2)]
        return h - 0.06 - 0.03 * np.sin(5.0 * x + phases[0]) - 0.018 * np.sin(11.0 * x + phases[1])
    if backdrop.far in ("forest", "tall forest"):
        high = 0.12 if backdrop.far == "forest" else h - 0.12
        bumps = np.abs(np.sin(x * rng.uniform(24, 34) + rng.uniform(0, 6))) * 0.03
        return h - high + 0.04 * (noise(n, 9, 2, rng.randrange(8))[0] - 0.5) - bumps
    if backdrop.far == "buildings":
        edges, heights = _blocks(rng)
        return np.array(heights, np.float32)[np.searchsorted(edges, x) - 1] * -1.0 + h
    return np.full(n, h, np.float32)


def _blocks(rng: random.Random) -> tuple[list[float], list[float]]:
    edges, heights, x = [], [], -0.05
    while x < 1.0:
        edges.append(x)
        heights.append(rng.uniform(0.1, 0.3))
        x += rng.uniform(0.1, 0.19)
    return edges, heights


def plan(scene: Scene, n: int) -> Plan:
    """The class of each pixel of the backdrop."""
    backdrop = scene.backdrop
    x, y = _axis(n)[None, :], _axis(n)[:, None]
    if scene.place.indoor:
        return _room_plan(scene, n)
    classes = np.full((n, n), ID["sky"], np.uint8)
    if backdrop.far in _FAR_CLASS:
        classes[y > skyline(scene, n)[None, :]] = ID[_FAR_CLASS[backdrop.far]]
    ground = {"grass": "grass", "sand": "sand", "dune": "sand", "snow": "snow", "pavement": "pavement"}[backdrop.ground]
    start = backdrop.horizon + (0.07 if backdrop.far == "field" else 0.0)
    rows = round(start * n)
    classes[rows:] = ID[ground]
    if backdrop.far == "field":
        classes[round(backdrop.horizon * n) : rows] = ID["field"]
    if backdrop.shore:
        classes[(y > backdrop.horizon) & (y < shoreline(scene, n)[None, :])] = ID["water"]
    if backdrop.ground == "pavement":
        top, bottom = road(scene)
        classes[round(top * n) : round(bottom * n)] = ID["road"]
    if backdrop.path:
        centre, half = _path(scene, y)
        classes[(np.abs(x - centre) < half) & (y > backdrop.horizon)] = ID["path"]
    return classes


def road(scene: Scene) -> tuple[float, float]:
    """The upper and lower edge of the road."""
    h = scene.backdrop.horizon
    return h + 0.2 * (1 - h), h + 0.7 * (1 - h)


def shoreline(scene: Scene, n: int) -> Row:
    """The edge of the water for each column."""
    phase = scene.backdrop.variant % 63 / 10
    return scene.backdrop.shore + 0.012 * np.sin(7.0 * _axis(n) + phase)


def _path(scene: Scene, y: Float32[np.ndarray, "n 1"]) -> tuple[Float32[np.ndarray, "n 1"], Float32[np.ndarray, "n 1"]]:
    share = np.clip((y - scene.backdrop.horizon) / (1 - scene.backdrop.horizon), 0, 1)
    side = 1 if scene.backdrop.variant % 2 else -1
    centre = 0.5 + side * (0.18 * np.sin(3.4 * share) - 0.08)
    return centre, 0.012 + 0.13 * share


def _room_plan(scene: Scene, n: int) -> Plan:
    backdrop = scene.backdrop
    x, y = _axis(n)[None, :], _axis(n)[:, None]
    classes = np.full((n, n), ID["wall"], np.uint8)
    classes[round(backdrop.horizon * n) :] = ID["floor"]
    if backdrop.window:
        classes[(np.abs(x - backdrop.window) < 0.13) & (y > 0.09) & (y < 0.38)] = ID["window"]
    if backdrop.rug:
        middle = (backdrop.horizon + 1.0) / 2 + 0.03
        round_ = ((x - 0.5) / 0.4) ** 2 + ((y - middle) / (0.3 * (1 - backdrop.horizon))) ** 2
        classes[round_ < 1.0] = ID["rug"]
    return classes


# --- pixels -----------------------------------------------------------------------------------------------------


def paint_backdrop(scene: Scene, classes: Plan) -> Canvas:
    """The picture without its things, in values from 0 to 255."""
    n = len(classes)
    canvas = np.empty((n, n, 3), np.float32)
    if scene.place.indoor:
        _paint_room(scene, classes, canvas)
    else:
        _paint_outdoors(scene, classes, canvas)
    return canvas


def sky_colours(scene: Scene) -> tuple[RGB, RGB]:
    """The sky's colour at the top and at the horizon."""
    if scene.light == "day":
        return _SKIES[scene.weather]
    top, bottom = _SKIES[scene.light]
    if scene.weather == "clear":
        return top, bottom
    veil: RGB = (54.0, 58.0, 70.0) if scene.light == "night" else (170.0, 160.0, 170.0)
    return mixed(top, veil, 0.45), mixed(bottom, veil, 0.35)


def _blend(canvas: Canvas, colour: RGB | Canvas, share: Float32[np.ndarray, "..."]) -> None:
    canvas += share[..., None] * (np.asarray(colour, np.float32) - canvas)


def _paint_outdoors(scene: Scene, classes: Plan, canvas: Canvas) -> None:
    n, backdrop = len(classes), scene.backdrop
    low = round(backdrop.horizon * n)
    _paint_sky(scene, canvas[: low + 1], n)
    _paint_far(scene, classes, canvas, low)
    _paint_ground(scene, classes, canvas, low)
    if scene.weather == "fog":
        haze = 1.0 - np.abs(_axis(n) - backdrop.horizon) * 1.1
        fog: RGB = (212.0, 215.0, 217.0) if scene.light == "day" else (84.0, 92.0, 112.0)
        _blend(canvas, fog, np.repeat(np.clip(haze * 0.75, 0.25, 0.75)[:, None], n, axis=1))


def _paint_sky(scene: Scene, sky: Canvas | Float32[np.ndarray, "r n 3"], n: int) -> None:
    rows = len(sky)
    top, bottom = sky_colours(scene)
    share = (np.arange(rows, dtype=np.float32) / max(1, rows - 1))[:, None] ** 1.3
    gradient = np.array(top, np.float32) + share * (np.array(bottom, np.float32) - np.array(top, np.float32))
    sky[:] = gradient[:, None, :]
    if scene.light == "night" and scene.weather == "clear":
        _stars(scene, sky, n)
    if scene.backdrop.disc:
        _disc(scene, sky, n)
    _clouds(scene, sky, n)


def _stars(scene: Scene, sky: Float32[np.ndarray, "r n 3"], n: int) -> None:
    rng = random.Random(scene.backdrop.variant + 1)
    reach = max(1, n // 190)
    for _ in range(60):
        x, y, bright = int(rng.random() * n), int(rng.random() * len(sky)), rng.uniform(120.0, 255.0)
        sky[y : y + reach, x : x + reach] = (bright, bright, bright * 0.92)


def disc_place(scene: Scene) -> tuple[float, float]:
    """The middle of the sun or moon."""
    backdrop = scene.backdrop
    low = scene.light in ("dawn", "sunset")
    return backdrop.disc, max(0.09, skyline(scene, 64)[int(backdrop.disc * 64)] - 0.07) if low else 0.12


def _disc(scene: Scene, sky: Float32[np.ndarray, "r n 3"], n: int) -> None:
    x0, y0 = disc_place(scene)
    distance = np.hypot(_axis(n)[None, :] - x0, _axis(n)[: len(sky), None] - y0)
    colour: dict[str, RGB] = {"day": (255.0, 246.0, 200.0), "dawn": (255.0, 232.0, 200.0),
                              "sunset": (255.0, 216.0, 120.0), "night": (244.0, 244.0, 226.0)}  # fmt: skip
    paint = colour[scene.light]
    _blend(sky, paint, (0.75 if scene.light != "night" else 0.35) * np.exp(-((distance / 0.13) ** 2)))
    _blend(sky, paint, 1.0 - smooth(distance, 0.052, 0.06))
    if scene.light == "night":
        craters = noise(n, 40, 40, 6)[: len(sky)]
        _blend(sky, (206.0, 206.0, 196.0), (1.0 - smooth(distance, 0.05, 0.058)) * smooth(craters, 0.5, 0.8))


_CLOUD_COVER = {"clear": (0.62, 0.86, 0.9), "cloudy": (0.34, 0.66, 0.92), "rain": (0.2, 0.75, 0.7),
                "snow": (0.3, 0.9, 0.5), "fog": (0.3, 1.0, 0.3)}  # fmt: skip


def _clouds(scene: Scene, sky: Float32[np.ndarray, "r n 3"], n: int) -> None:
    low, high, strength = _CLOUD_COVER[scene.weather]
    key = scene.backdrop.variant % 40
    field = 0.62 * noise(n, 5, 11, key) + 0.26 * noise(n, 11, 26, key) + 0.12 * noise(n, 26, 60, key)
    share = smooth(field[: len(sky)], low, high) * strength
    colours: dict[str, RGB] = {"day": (255.0, 255.0, 255.0), "dawn": (255.0, 226.0, 216.0),
                               "sunset": (255.0, 190.0, 140.0), "night": (84.0, 92.0, 124.0)}  # fmt: skip
    colour = colours[scene.light]
    if scene.weather == "rain":
        colour = mixed(colour, (70.0, 78.0, 92.0), 0.75)
    elif scene.weather == "cloudy":
        colour = mixed(colour, (150.0, 156.0, 166.0), 0.25)
    _blend(sky, colour, share)


_FAR_COLOURS: dict[str, RGB] = {
    "hills": (112.0, 158.0, 104.0),
    "mountains": (124.0, 132.0, 152.0),
    "forest": (52.0, 98.0, 60.0),
    "buildings": (150.0, 142.0, 140.0),
}


def _paint_far(scene: Scene, classes: Plan, canvas: Canvas, low: int) -> None:
    far = _FAR_CLASS.get(scene.backdrop.far)
    if far not in _FAR_COLOURS:
        return
    n = len(classes)
    region = canvas[: low + 1]
    mask = classes[: low + 1] == ID[far]
    line = skyline(scene, n)
    below = _axis(n)[: low + 1, None] - line[None, :]
    colour = np.empty(region.shape, np.float32)
    base = _FAR_COLOURS[far] if scene.backdrop.ground != "snow" or far != "hills" else (206.0, 216.0, 228.0)
    if scene.backdrop.ground == "dune" and far == "hills":
        base = (206.0, 158.0, 104.0)
    colour[:] = base
    if far == "mountains":
        _rock_face(scene, colour, below, n)
    elif far == "forest":
        _tree_wall(scene, colour, below, n)
    elif far == "buildings":
        _facades(scene, colour, below, n)
    else:
        colour *= (1.0 + 0.3 * rough(n, 1)[: low + 1] - 0.5 * np.clip(0.12 - below, 0, 0.1))[..., None]
    colour *= np.array(TINTS[scene.light], np.float32)
    bottom = np.array(sky_colours(scene)[1], np.float32)
    colour += (0.12 if far == "buildings" else 0.2) * (bottom - colour)
    np.copyto(region, colour, where=mask[..., None])


def _rock_face(
    scene: Scene, colour: Canvas | Float32[np.ndarray, "r n 3"], below: Float32[np.ndarray, "r n"], n: int
) -> None:
    rows = len(colour)
    facets = noise(n, 26, 18, 4)[:rows]
    slope = np.sign(np.gradient(skyline(scene, n)))[None, :]
    colour *= (1.0 + 0.12 * slope + 0.3 * (facets - 0.5) + 0.25 * (noise(n, 70, 50, 2)[:rows] - 0.5))[..., None]
    cap = 0.05 + 0.05 * facets
    if scene.backdrop.ground != "dune":
        snow = 1.0 - smooth(below, cap * 0.8, cap)
        _blend(colour, (240.0, 244.0, 250.0), snow * (0.93 - 0.16 * (slope > 0)))


def _tree_wall(scene: Scene, colour: Float32[np.ndarray, "r n 3"], below: Float32[np.ndarray, "r n"], n: int) -> None:
    rows = len(colour)
    leaves = noise(n, 44, 44, 1)[:rows] - 0.5
    colour *= (1.0 + 0.7 * leaves + 0.4 * (noise(n, 110, 110, 2)[:rows] - 0.5) - 0.6 * np.clip(below, 0, 0.5))[
        ..., None
    ]
    if scene.backdrop.far == "tall forest":
        trunks = noise(n, 48, 3, 6)[:rows]
        _blend(colour, (74.0, 56.0, 42.0), smooth(trunks, 0.66, 0.74) * smooth(below, 0.14, 0.24) * 0.85)
    if scene.weather == "snow" or scene.backdrop.ground == "snow":
        _blend(colour, (236.0, 240.0, 246.0), smooth(leaves, 0.1, 0.35) * 0.7)


def _facades(scene: Scene, colour: Float32[np.ndarray, "r n 3"], below: Float32[np.ndarray, "r n"], n: int) -> None:
    edges, _ = _blocks(random.Random(scene.backdrop.variant))
    x = _axis(n)
    block = np.searchsorted(edges, x) - 1
    tints = np.array(
        [(186, 130, 110), (160, 160, 168), (200, 178, 142), (134, 140, 152), (172, 120, 96), (190, 190, 186)]
    )
    colour[:] = tints[(block + scene.backdrop.variant) % len(tints)][None, :, :]
    inside = x - np.array(edges)[block]
    across, down = (inside / 0.032) % 1.0, (below / 0.042) % 1.0
    panes = (np.abs(across - 0.5) < 0.26)[None, :] & (np.abs(down - 0.5) < 0.28) & (below > 0.015)
    lit = np.sin(np.floor(inside / 0.032) * 12.9 + block * 7.7)[None, :] + np.sin(np.floor(below / 0.042) * 37.7) > 0.4
    glass = np.array((92.0, 116.0, 142.0), np.float32)
    colour += panes[..., None] * (glass - colour)
    if scene.light == "night":
        glow = np.array((640.0, 460.0, 180.0), np.float32)  # bright enough to survive the tint of the night
        colour += (panes & lit)[..., None] * (glow - colour)
    colour *= (1.0 + 0.12 * (noise(n, 60, 60, 3)[: len(colour)] - 0.5))[..., None]


_GROUND_COLOURS: dict[str, tuple[RGB, RGB]] = {  # at the horizon, at the lower edge
    "grass": ((150.0, 190.0, 104.0), (92.0, 152.0, 62.0)),
    "field": ((224.0, 196.0, 104.0), (206.0, 176.0, 84.0)),
    "sand": ((236.0, 216.0, 168.0), (226.0, 194.0, 136.0)),
    "snow": ((230.0, 238.0, 247.0), (242.0, 246.0, 251.0)),
    "water": ((66.0, 132.0, 186.0), (108.0, 186.0, 208.0)),
    "pavement": ((188.0, 184.0, 178.0), (170.0, 166.0, 160.0)),
    "road": ((98.0, 100.0, 106.0), (78.0, 80.0, 86.0)),
    "path": ((216.0, 194.0, 154.0), (200.0, 172.0, 128.0)),
}


def _paint_ground(scene: Scene, classes: Plan, canvas: Canvas, low: int) -> None:
    n = len(classes)
    region, kinds = canvas[low:], classes[low:]
    share = (np.arange(n - low, dtype=np.float32) / max(1, n - low - 1))[:, None]
    tint = np.array(TINTS[scene.light], np.float32)
    if scene.weather == "rain":
        tint = tint * np.float32(0.86)
    for code in np.unique(kinds):
        name = CLASSES[code]
        if name not in _GROUND_COLOURS:
            continue
        far, near = (np.array(colour, np.float32) for colour in _GROUND_COLOURS[name])
        if scene.backdrop.ground == "dune":
            near, far = near * np.array((1.0, 0.92, 0.82)), far * np.array((1.0, 0.93, 0.85))
        colour = (far + share * (near - far))[:, None, :] * _relief(scene, name, n, low)[..., None] * tint
        if name == "water":
            sky = np.array(sky_colours(scene)[1], np.float32)
            colour += 0.3 * (sky - colour)
        np.copyto(region, colour, where=(kinds == code)[..., None])
    _ground_marks(scene, region, n, low)


def _perspective(scene: Scene, n: int, low: int) -> tuple[Float32[np.ndarray, "r n"], Float32[np.ndarray, "r 1"]]:
    """Coordinates on the ground: across, and away from the viewer."""
    y = _axis(n)[low:, None]
    away = 1.0 / (y - scene.backdrop.horizon + 0.09)
    return (_axis(n)[None, :] - 0.5) * away, away


def _relief(scene: Scene, name: str, n: int, low: int) -> Float32[np.ndarray, "r n"]:
    """The texture of a ground as a factor on its colour."""
    u, away = _perspective(scene, n, low)
    near = np.clip((_axis(n)[low:, None] - scene.backdrop.horizon) / 0.45, 0.15, 1.0)
    fine, coarse = noise(n, 150, 90, 1)[low:] - 0.5, rough(n, 2)[low:]
    if name == "grass":
        return 1.0 + near * (0.5 * fine + 0.3 * (noise(n, 90, 34, 5)[low:] - 0.5)) + 0.35 * coarse
    if name == "water":
        ripples = noise(n, 7, 64, 1)[low:] - 0.5
        return 1.0 + 0.3 * ripples + 0.2 * (noise(n, 16, 120, 2)[low:] - 0.5)
    if name == "sand":
        waves = np.sin(away * 9.0 + 3.0 * coarse + 1.5 * u) if scene.backdrop.ground == "dune" else 0.0 * u
        return 1.0 + 0.2 * fine + 0.16 * coarse + 0.07 * waves
    if name == "snow":
        return 1.0 + 0.06 * fine + 0.14 * coarse
    if name == "field":
        return 1.0 + 0.16 * np.sign(np.sin(u * 16.0)) + 0.25 * fine
    if name == "pavement":
        joints = ((u * 1.3) % 1.0 < 0.05) | ((away * 1.3) % 1.0 < 0.07)
        return 1.0 - 0.16 * joints + 0.14 * fine + 0.1 * coarse
    return 1.0 + 0.24 * fine + 0.12 * coarse


def _ground_marks(scene: Scene, region: Float32[np.ndarray, "r n 3"], n: int, low: int) -> None:
    """Foam at the shore, the line on the road."""
    y = _axis(n)[low:, None]
    tint = np.array(TINTS[scene.light], np.float32) * 250.0
    bright: RGB = (float(tint[0]), float(tint[1]), float(tint[2]))
    if scene.setting == "beach":
        edge = np.abs(y - shoreline(scene, n)[None, :])
        _blend(region, bright, (1.0 - smooth(edge, 0.006, 0.016)) * 0.85)
    if scene.backdrop.ground == "pavement":
        top, bottom = road(scene)
        middle = (top + bottom) / 2
        dashes = (np.abs(y - middle) < 0.008) & ((_axis(n)[None, :] * 6.0) % 1.0 < 0.55)
        curbs = (np.abs(y - top) < 0.006) | (np.abs(y - bottom) < 0.009) | np.zeros((1, n), bool)
        _blend(region, bright, dashes * np.float32(0.85) + curbs * np.float32(0.35))


# --- rooms ------------------------------------------------------------------------------------------------------


def _paint_room(scene: Scene, classes: Plan, canvas: Canvas) -> None:
    n, backdrop = len(classes), scene.backdrop
    low = round(backdrop.horizon * n)
    _paint_wall(scene, canvas[:low], n)
    _paint_floor(scene, canvas[low:], n, low)
    if backdrop.rug:
        _paint_rug(scene, classes, canvas)
    tint = np.array(TINTS[scene.light], np.float32)
    if scene.light == "lamplight":
        glow = np.hypot(_axis(n)[None, :] - 0.5, _axis(n)[:, None] - 0.3)
        canvas *= tint * (1.12 - 0.45 * glow)[..., None]
    if backdrop.window:
        _paint_window(scene, canvas, n)


def _paint_wall(scene: Scene, wall: Float32[np.ndarray, "r n 3"], n: int) -> None:
    backdrop = scene.backdrop
    x, y = _axis(n)[None, :], _axis(n)[: len(wall), None]
    base = np.array(mixed(natural(backdrop.wall, backdrop.variant), (255.0, 250.0, 240.0), 0.42), np.float32)
    wall[:] = base
    pattern = np.zeros((len(wall), n), np.float32)
    if backdrop.paper == "striped":
        pattern = np.broadcast_to(((x * 12.0) % 1.0 < 0.5).astype(np.float32), pattern.shape)
    elif backdrop.paper == "dotted":
        across, down = x * 14.0, y * 14.0
        shift = 0.5 * (np.floor(down) % 2)
        pattern = ((((across + shift) % 1.0 - 0.5) ** 2 + (down % 1.0 - 0.5) ** 2) < 0.045).astype(np.float32)
    lighter = base + 0.45 * (255.0 - base) if backdrop.wall != "white" else base * 0.86
    wall += pattern[..., None] * (lighter - base)
    wall *= (1.0 + 0.05 * (noise(n, 120, 120, 1)[: len(wall)] - 0.5) + 0.08 * (0.5 - x))[..., None]
    board = y > backdrop.horizon - 0.032
    np.copyto(wall, np.array((240.0, 236.0, 226.0), np.float32), where=(board & (x >= 0))[..., None])
    edge = (np.abs(y - (backdrop.horizon - 0.032)) < 0.004) & (x >= 0)
    np.copyto(wall, np.array((176.0, 168.0, 156.0), np.float32), where=edge[..., None])


def _paint_floor(scene: Scene, floor: Float32[np.ndarray, "r n 3"], n: int, low: int) -> None:
    backdrop = scene.backdrop
    u, away = _perspective(scene, n, low)
    base = np.array(natural(backdrop.floor, backdrop.variant + 3), np.float32)
    if backdrop.ground == "wooden":
        base = np.array((176.0, 122.0, 74.0), np.float32)
        plank = np.floor(u * 2.2)
        seam = (u * 2.2 - plank < 0.05) | ((away * 0.35 + 0.37 * (plank % 3)) % 1.0 < 0.025)
        light = 1.0 + 0.09 * np.sin(plank * 12.9) - 0.3 * seam + 0.2 * (noise(n, 160, 22, 3)[low:] - 0.5)
    elif backdrop.ground == "tiles":
        odd = (np.floor(u * 0.9) + np.floor(away * 0.9)) % 2
        grout = ((u * 0.9) % 1.0 < 0.04) | ((away * 0.9) % 1.0 < 0.05)
        light = 1.0 - 0.2 * odd - 0.12 * grout + 0.06 * (noise(n, 60, 60, 3)[low:] - 0.5)
    else:
        base = base * 0.8 + 40.0
        light = 1.0 + 0.2 * (noise(n, 160, 120, 3)[low:] - 0.5) + 0.2 * rough(n, 3)[low:]
    floor[:] = base * light[..., None]
    floor *= (0.86 + 0.2 * np.clip((_axis(n)[low:] - backdrop.horizon) / 0.3, 0, 1))[:, None, None]


def _paint_rug(scene: Scene, classes: Plan, canvas: Canvas) -> None:
    n, backdrop = len(classes), scene.backdrop
    middle = (backdrop.horizon + 1.0) / 2 + 0.03
    x, y = _axis(n)[None, :], _axis(n)[:, None]
    radius = np.sqrt(((x - 0.5) / 0.4) ** 2 + ((y - middle) / (0.3 * (1 - backdrop.horizon))) ** 2)
    base = np.array(natural(backdrop.rug, backdrop.variant), np.float32)
    rings = (np.abs(radius - 0.88) < 0.05) | (np.abs(radius - 0.5) < 0.05)
    colour = base * (1.0 + 0.2 * (noise(n, 150, 150, 4) - 0.5))[..., None]
    colour += rings[..., None] * 0.6 * (np.array((250.0, 240.0, 214.0), np.float32) - colour)
    np.copyto(canvas, colour, where=(classes == ID["rug"])[..., None])


def _paint_window(scene: Scene, canvas: Canvas, n: int) -> None:
    x, y = _axis(n)[None, :] - scene.backdrop.window, _axis(n)[:, None]
    outer = (np.abs(x) < 0.13) & (y > 0.09) & (y < 0.38)
    pane = (np.abs(x) < 0.115) & (y > 0.105) & (y < 0.365) & (np.abs(x) > 0.008) & (np.abs(y - 0.235) > 0.008)
    top, bottom = _SKIES["clear"] if scene.light == "day" else _SKIES["night"]
    share = np.clip((y - 0.1) / 0.27, 0, 1)[..., None]
    glass = np.array(top, np.float32) + share * (np.array(bottom, np.float32) - np.array(top, np.float32))
    frame = np.array((246.0, 242.0, 232.0), np.float32) * np.array(TINTS[scene.light], np.float32)
    np.copyto(canvas, frame, where=outer[..., None])
    np.copyto(canvas, np.broadcast_to(glass, canvas.shape), where=pane[..., None])
    sill = (np.abs(x) < 0.15) & (np.abs(y - 0.388) < 0.01)
    np.copyto(canvas, frame * np.float32(0.88), where=sill[..., None])
