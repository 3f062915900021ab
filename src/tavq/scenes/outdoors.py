"""Paints sky, horizon and ground."""

import random

import numpy as np

from tavq.scenes.class_map import (
    FAR_CLASS,
    ID,
    Canvas,
    ClassMap,
    PixelValues,
    perspective,
    pixel_centres,
    road,
    sample_buildings,
    shoreline,
    skyline,
)
from tavq.scenes.colours import RGB, SKIES, TINTS, blend, mix_colours
from tavq.scenes.kinds import CLASSES
from tavq.scenes.textures import fractal_noise, noise, smoothstep
from tavq.scenes.world import Scene


def choose_sky_colours(scene: Scene) -> tuple[RGB, RGB]:
    """The sky's colours at the top and at the horizon."""
    if scene.light == "day":
        return SKIES[scene.weather]
    top, bottom = SKIES[scene.light]
    if scene.weather == "clear":
        return top, bottom
    veil: RGB = (54.0, 58.0, 70.0) if scene.light == "night" else (170.0, 160.0, 170.0)
    return mix_colours(top, veil, 0.45), mix_colours(bottom, veil, 0.35)


def paint_outdoors(scene: Scene, classes: ClassMap, canvas: Canvas) -> None:
    """Fill the image, with values from 0 to 255."""
    n, backdrop = len(classes), scene.backdrop
    low = round(backdrop.horizon * n)
    _paint_sky(scene, canvas[: low + 1], n)
    _paint_far(scene, classes, canvas, low)
    _paint_ground(scene, classes, canvas, low)
    if scene.weather == "fog":
        haze = 1.0 - np.abs(pixel_centres(n) - backdrop.horizon) * 1.1
        fog: RGB = (212.0, 215.0, 217.0) if scene.light == "day" else (84.0, 92.0, 112.0)
        blend(canvas, fog, np.repeat(np.clip(haze * 0.75, 0.25, 0.75)[:, None], n, axis=1))


def _paint_sky(scene: Scene, sky: Canvas, n: int) -> None:
    rows = len(sky)
    top, bottom = choose_sky_colours(scene)
    lowness = (np.arange(rows, dtype=np.float32) / max(1, rows - 1))[:, None] ** 1.3
    gradient = np.array(top, np.float32) + lowness * (np.array(bottom, np.float32) - np.array(top, np.float32))
    sky[:] = gradient[:, None, :]
    if scene.light == "night" and scene.weather == "clear":
        _paint_stars(scene, sky, n)
    if scene.backdrop.disc:
        _paint_disc(scene, sky, n)
    _paint_clouds(scene, sky, n)


def _paint_stars(scene: Scene, sky: Canvas, n: int) -> None:
    rng = random.Random(scene.backdrop.variant + 1)
    reach = max(1, n // 190)
    for _ in range(60):
        x, y, bright = int(rng.random() * n), int(rng.random() * len(sky)), rng.uniform(120.0, 255.0)
        sky[y : y + reach, x : x + reach] = (bright, bright, bright * 0.92)


def locate_disc(scene: Scene) -> tuple[float, float]:
    """The centre of the sun or moon."""
    backdrop = scene.backdrop
    low = scene.light in ("dawn", "sunset")
    ridge = float(skyline(scene, 64)[int(backdrop.disc * 64)])
    return backdrop.disc, max(0.09, ridge - 0.07) if low else 0.12


def _paint_disc(scene: Scene, sky: Canvas, n: int) -> None:
    x0, y0 = locate_disc(scene)
    distance = np.hypot(pixel_centres(n)[None, :] - x0, pixel_centres(n)[: len(sky), None] - y0)
    colour: dict[str, RGB] = {"day": (255.0, 246.0, 200.0), "dawn": (255.0, 232.0, 200.0),
                              "sunset": (255.0, 216.0, 120.0), "night": (244.0, 244.0, 226.0)}  # fmt: skip
    paint = colour[scene.light]
    blend(sky, paint, (0.75 if scene.light != "night" else 0.35) * np.exp(-((distance / 0.13) ** 2)))
    blend(sky, paint, 1.0 - smoothstep(distance, 0.052, 0.06))
    if scene.light == "night":
        craters = noise(n, 40, 40, 6)[: len(sky)]
        blend(sky, (206.0, 206.0, 196.0), (1.0 - smoothstep(distance, 0.05, 0.058)) * smoothstep(craters, 0.5, 0.8))


_CLOUD_COVER = {"clear": (0.62, 0.86, 0.9), "cloudy": (0.34, 0.66, 0.92), "rain": (0.2, 0.75, 0.7),
                "snow": (0.3, 0.9, 0.5), "fog": (0.3, 1.0, 0.3)}  # fmt: skip


def _paint_clouds(scene: Scene, sky: Canvas, n: int) -> None:
    low, high, strength = _CLOUD_COVER[scene.weather]
    key = scene.backdrop.variant % 40
    field = 0.62 * noise(n, 5, 11, key) + 0.26 * noise(n, 11, 26, key) + 0.12 * noise(n, 26, 60, key)
    alpha = smoothstep(field[: len(sky)], low, high) * strength
    colours: dict[str, RGB] = {"day": (255.0, 255.0, 255.0), "dawn": (255.0, 226.0, 216.0),
                               "sunset": (255.0, 190.0, 140.0), "night": (84.0, 92.0, 124.0)}  # fmt: skip
    colour = colours[scene.light]
    if scene.weather == "rain":
        colour = mix_colours(colour, (70.0, 78.0, 92.0), 0.75)
    elif scene.weather == "cloudy":
        colour = mix_colours(colour, (150.0, 156.0, 166.0), 0.25)
    blend(sky, colour, alpha)


_FAR_COLOURS: dict[str, RGB] = {
    "hills": (112.0, 158.0, 104.0),
    "mountains": (124.0, 132.0, 152.0),
    "forest": (52.0, 98.0, 60.0),
    "buildings": (150.0, 142.0, 140.0),
}


def _paint_far(scene: Scene, classes: ClassMap, canvas: Canvas, low: int) -> None:
    far = FAR_CLASS.get(scene.backdrop.far)
    if far not in _FAR_COLOURS:
        return
    n = len(classes)
    region = canvas[: low + 1]
    mask = classes[: low + 1] == ID[far]
    line = skyline(scene, n)
    below = pixel_centres(n)[: low + 1, None] - line[None, :]
    colour = np.empty(region.shape, np.float32)
    base = _FAR_COLOURS[far] if scene.backdrop.ground != "snow" or far != "hills" else (206.0, 216.0, 228.0)
    if scene.backdrop.ground == "dune" and far == "hills":
        base = (206.0, 158.0, 104.0)
    colour[:] = base
    if far == "mountains":
        _paint_rocks(scene, colour, below, n)
    elif far == "forest":
        _paint_trees(scene, colour, below, n)
    elif far == "buildings":
        _paint_facades(scene, colour, below, n)
    else:
        colour *= (1.0 + 0.3 * fractal_noise(n, 1)[: low + 1] - 0.5 * np.clip(0.12 - below, 0, 0.1))[..., None]
    colour *= np.array(TINTS[scene.light], np.float32)
    bottom = np.array(choose_sky_colours(scene)[1], np.float32)
    colour += (0.12 if far == "buildings" else 0.2) * (bottom - colour)
    np.copyto(region, colour, where=mask[..., None])


def _paint_rocks(scene: Scene, colour: Canvas, below: PixelValues, n: int) -> None:
    rows = len(colour)
    facets = noise(n, 26, 18, 4)[:rows]
    slope = np.sign(np.gradient(skyline(scene, n)))[None, :]
    colour *= (1.0 + 0.12 * slope + 0.3 * (facets - 0.5) + 0.25 * (noise(n, 70, 50, 2)[:rows] - 0.5))[..., None]
    cap = 0.05 + 0.05 * facets
    if scene.backdrop.ground != "dune":
        snow = 1.0 - smoothstep(below, cap * 0.8, cap)
        blend(colour, (240.0, 244.0, 250.0), snow * (0.93 - 0.16 * (slope > 0)))


def _paint_trees(scene: Scene, colour: Canvas, below: PixelValues, n: int) -> None:
    rows = len(colour)
    leaves = noise(n, 44, 44, 1)[:rows] - 0.5
    colour *= (1.0 + 0.7 * leaves + 0.4 * (noise(n, 110, 110, 2)[:rows] - 0.5) - 0.6 * np.clip(below, 0, 0.5))[
        ..., None
    ]
    if scene.backdrop.far == "tall forest":
        trunks = noise(n, 48, 3, 6)[:rows]
        blend(colour, (74.0, 56.0, 42.0), smoothstep(trunks, 0.66, 0.74) * smoothstep(below, 0.14, 0.24) * 0.85)
    if scene.weather == "snow" or scene.backdrop.ground == "snow":
        blend(colour, (236.0, 240.0, 246.0), smoothstep(leaves, 0.1, 0.35) * 0.7)


def _paint_facades(scene: Scene, colour: Canvas, below: PixelValues, n: int) -> None:
    edges, _ = sample_buildings(random.Random(scene.backdrop.variant))
    x = pixel_centres(n)
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
        glow = np.array(
            (640.0, 460.0, 180.0), np.float32
        )  # bright enough to remain visible after the tint of the night
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


def _paint_ground(scene: Scene, classes: ClassMap, canvas: Canvas, low: int) -> None:
    n = len(classes)
    region, kinds = canvas[low:], classes[low:]
    nearness = (np.arange(n - low, dtype=np.float32) / max(1, n - low - 1))[:, None]
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
        colour = (far + nearness * (near - far))[:, None, :] * _relief(scene, name, n, low)[..., None] * tint
        if name == "water":
            sky = np.array(choose_sky_colours(scene)[1], np.float32)
            colour += 0.3 * (sky - colour)
        np.copyto(region, colour, where=(kinds == code)[..., None])
    _ground_marks(scene, region, n, low)


def _relief(scene: Scene, name: str, n: int, low: int) -> PixelValues:
    """The texture of a ground, as a factor on its colour."""
    u, away = perspective(scene, n, low)
    near = np.clip((pixel_centres(n)[low:, None] - scene.backdrop.horizon) / 0.45, 0.15, 1.0)
    fine, coarse = noise(n, 150, 90, 1)[low:] - 0.5, fractal_noise(n, 2)[low:]
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


def _ground_marks(scene: Scene, region: Canvas, n: int, low: int) -> None:
    """Paint foam at the shore, and lines on the road."""
    y = pixel_centres(n)[low:, None]
    tint = np.array(TINTS[scene.light], np.float32) * 250.0
    bright: RGB = (float(tint[0]), float(tint[1]), float(tint[2]))
    if scene.setting == "beach":
        edge = np.abs(y - shoreline(scene, n)[None, :])
        blend(region, bright, (1.0 - smoothstep(edge, 0.006, 0.016)) * 0.85)
    if scene.backdrop.ground == "pavement":
        top, bottom = road(scene)
        middle = (top + bottom) / 2
        dashes = (np.abs(y - middle) < 0.008) & ((pixel_centres(n)[None, :] * 6.0) % 1.0 < 0.55)
        curbs = (np.abs(y - top) < 0.006) | (np.abs(y - bottom) < 0.009) | np.zeros((1, n), bool)
        blend(region, bright, dashes * np.float32(0.85) + curbs * np.float32(0.35))
