"""The class map of the backdrop: where sky, horizon, ground, walls and floors are."""

import random
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, UInt8

from tavq.scenes.kinds import CLASSES
from tavq.scenes.textures import noise
from tavq.scenes.world import Scene

ClassMap = UInt8[np.ndarray, "_ _"]  # some rows of the image, or all
Canvas = Float32[np.ndarray, "_ _ 3"]
PixelValues = Float[np.ndarray, "..."]  # one value per pixel, or per row
RowValues = Float32[np.ndarray, "_"]

ID = {name: code for code, name in enumerate(CLASSES)}
"""The class index of each name."""

FAR_CLASS = {"hills": "hills", "mountains": "mountains", "peaks": "mountains", "forest": "forest",
              "tall forest": "forest", "buildings": "buildings", "field": "field"}  # fmt: skip
"""The class of each background at the horizon."""


@lru_cache(maxsize=8)
def pixel_centres(n: int) -> RowValues:
    """The centre of each of n pixels, as fractions of the side."""
    return (np.arange(n, dtype=np.float32) + 0.5) / n


def skyline(scene: Scene, n: int) -> RowValues:
    """The upper edge of the background at the horizon, for each pixel column."""
    backdrop = scene.backdrop
    x, h = pixel_centres(n), backdrop.horizon
    rng = random.Random(backdrop.variant)
    if backdrop.far in ("mountains", "peaks"):
        high = h - 0.16 if backdrop.far == "peaks" else 0.14
        knots = np.linspace(-0.1, 1.1, 8)
        heights = [(rng.uniform(0.6, 1.0) if index % 2 else rng.uniform(0.2, 0.5)) * high for index in range(8)]
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
        edges, heights = sample_buildings(rng)
        return np.array(heights, np.float32)[np.searchsorted(edges, x) - 1] * -1.0 + h
    return np.full(n, h, np.float32)


def sample_buildings(rng: random.Random) -> tuple[list[float], list[float]]:
    """Sample the left edges and the heights of a row of buildings."""
    edges, heights, x = [], [], -0.05
    while x < 1.0:
        edges.append(x)
        heights.append(rng.uniform(0.1, 0.3))
        x += rng.uniform(0.1, 0.19)
    return edges, heights


def map_classes(scene: Scene, n: int) -> ClassMap:
    """Compute the class of each pixel of the backdrop."""
    backdrop = scene.backdrop
    x, y = pixel_centres(n)[None, :], pixel_centres(n)[:, None]
    if scene.place.indoor:
        return _map_room(scene, n)
    classes = np.full((n, n), ID["sky"], np.uint8)
    if backdrop.far in FAR_CLASS:
        classes[y > skyline(scene, n)[None, :]] = ID[FAR_CLASS[backdrop.far]]
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
    """The y of the road's upper and lower edge."""
    h = scene.backdrop.horizon
    return h + 0.2 * (1 - h), h + 0.7 * (1 - h)


def shoreline(scene: Scene, n: int) -> RowValues:
    """The y of the water's edge, for each pixel column."""
    phase = scene.backdrop.variant % 63 / 10
    return scene.backdrop.shore + 0.012 * np.sin(7.0 * pixel_centres(n) + phase)


def _path(scene: Scene, y: PixelValues) -> tuple[PixelValues, PixelValues]:
    """Centre and half the width of the path at each row."""
    nearness = np.clip((y - scene.backdrop.horizon) / (1 - scene.backdrop.horizon), 0, 1)
    side = 1 if scene.backdrop.variant % 2 else -1
    centre = 0.5 + side * (0.18 * np.sin(3.4 * nearness) - 0.08)
    return centre, 0.012 + 0.13 * nearness


def _map_room(scene: Scene, n: int) -> ClassMap:
    backdrop = scene.backdrop
    x, y = pixel_centres(n)[None, :], pixel_centres(n)[:, None]
    classes = np.full((n, n), ID["wall"], np.uint8)
    classes[round(backdrop.horizon * n) :] = ID["floor"]
    if backdrop.window:
        classes[(np.abs(x - backdrop.window) < 0.13) & (y > 0.09) & (y < 0.38)] = ID["window"]
    if backdrop.rug:
        middle = (backdrop.horizon + 1.0) / 2 + 0.03
        round_ = ((x - 0.5) / 0.4) ** 2 + ((y - middle) / (0.3 * (1 - backdrop.horizon))) ** 2
        classes[round_ < 1.0] = ID["rug"]
    return classes


def perspective(scene: Scene, n: int, low: int) -> tuple[PixelValues, PixelValues]:
    """Coordinates of each pixel on the ground: across, and away from the viewer."""
    y = pixel_centres(n)[low:, None]
    away = 1.0 / (y - scene.backdrop.horizon + 0.09)
    return (pixel_centres(n)[None, :] - 0.5) * away, away
