"""Where sky, horizon, ground, walls and floors lie behind the things, as classes."""

import random
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, UInt8

from tavq.scenes.kinds import CLASSES
from tavq.scenes.textures import noise
from tavq.scenes.world import Scene

Plan = UInt8[np.ndarray, "_ _"]  # a strip of rows or all of them
Canvas = Float32[np.ndarray, "_ _ 3"]
Share = Float[np.ndarray, "..."]  # how much of a colour, pixel by pixel or row by row
Row = Float32[np.ndarray, "_"]

ID = {name: code for code, name in enumerate(CLASSES)}
"""The class of each name."""

FAR_CLASS = {"hills": "hills", "mountains": "mountains", "peaks": "mountains", "forest": "forest",
              "tall forest": "forest", "buildings": "buildings", "field": "field"}  # fmt: skip
"""What stands at the horizon, by how it looks."""


@lru_cache(maxsize=8)
def axis(n: int) -> Row:
    """The middle of each of n pixels, as shares of the side."""
    return (np.arange(n, dtype=np.float32) + 0.5) / n


def skyline(scene: Scene, n: int) -> Row:
    """The height of what stands at the horizon, for each column of pixels."""
    backdrop = scene.backdrop
    x, h = axis(n), backdrop.horizon
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
        edges, heights = blocks(rng)
        return np.array(heights, np.float32)[np.searchsorted(edges, x) - 1] * -1.0 + h
    return np.full(n, h, np.float32)


def blocks(rng: random.Random) -> tuple[list[float], list[float]]:
    """The left edges and the heights of a row of buildings."""
    edges, heights, x = [], [], -0.05
    while x < 1.0:
        edges.append(x)
        heights.append(rng.uniform(0.1, 0.3))
        x += rng.uniform(0.1, 0.19)
    return edges, heights


def plan(scene: Scene, n: int) -> Plan:
    """The class of each pixel of the backdrop."""
    backdrop = scene.backdrop
    x, y = axis(n)[None, :], axis(n)[:, None]
    if scene.place.indoor:
        return _room_plan(scene, n)
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
    """The upper and lower edge of the road."""
    h = scene.backdrop.horizon
    return h + 0.2 * (1 - h), h + 0.7 * (1 - h)


def shoreline(scene: Scene, n: int) -> Row:
    """The edge of the water for each column."""
    phase = scene.backdrop.variant % 63 / 10
    return scene.backdrop.shore + 0.012 * np.sin(7.0 * axis(n) + phase)


def _path(scene: Scene, y: Share) -> tuple[Share, Share]:
    share = np.clip((y - scene.backdrop.horizon) / (1 - scene.backdrop.horizon), 0, 1)
    side = 1 if scene.backdrop.variant % 2 else -1
    centre = 0.5 + side * (0.18 * np.sin(3.4 * share) - 0.08)
    return centre, 0.012 + 0.13 * share


def _room_plan(scene: Scene, n: int) -> Plan:
    backdrop = scene.backdrop
    x, y = axis(n)[None, :], axis(n)[:, None]
    classes = np.full((n, n), ID["wall"], np.uint8)
    classes[round(backdrop.horizon * n) :] = ID["floor"]
    if backdrop.window:
        classes[(np.abs(x - backdrop.window) < 0.13) & (y > 0.09) & (y < 0.38)] = ID["window"]
    if backdrop.rug:
        middle = (backdrop.horizon + 1.0) / 2 + 0.03
        round_ = ((x - 0.5) / 0.4) ** 2 + ((y - middle) / (0.3 * (1 - backdrop.horizon))) ** 2
        classes[round_ < 1.0] = ID["rug"]
    return classes


def perspective(scene: Scene, n: int, low: int) -> tuple[Share, Share]:
    """Coordinates on the ground: across, and away from the viewer."""
    y = axis(n)[low:, None]
    away = 1.0 / (y - scene.backdrop.horizon + 0.09)
    return (axis(n)[None, :] - 0.5) * away, away
