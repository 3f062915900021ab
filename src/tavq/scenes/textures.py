"""Surfaces: value noise, and the patterns of parts, computed for all pixels of one texture at once."""

import math
import random
from collections.abc import Callable, Sequence
from functools import lru_cache

import numpy as np
from jaxtyping import Float, Float32, Int
from PIL import Image

from tavq.scenes.shapes import Part

Values = Float[np.ndarray, "_"]


@lru_cache(maxsize=96)
def noise(n: int, across: int, down: int, key: int = 0) -> Float32[np.ndarray, "n n"]:
    """Value noise in [0, 1] with a lattice of `across` x `down` cells; the same image at every resolution n."""
    raw = random.Random(f"noise/{across}/{down}/{key}").randbytes(across * down)
    lattice = np.frombuffer(raw, np.uint8).reshape(down, across).astype(np.float32) / 255.0
    smoothstep = Image.fromarray(lattice).resize((n, n), Image.Resampling.BICUBIC)
    return np.clip(np.asarray(smoothstep, np.float32), 0.0, 1.0)


@lru_cache(maxsize=16)
def fractal_noise(n: int, key: int = 0) -> Float32[np.ndarray, "n n"]:
    """Noise of four octaves, around 0 and mostly within ±0.5."""
    octaves = ((8, 0.4), (16, 0.3), (34, 0.3), (70, 0.25))
    layers = (weight * (noise(n, cells, cells, key) - 0.5) for cells, weight in octaves)
    return sum(layers, np.zeros((n, n), np.float32))


class Pixels:
    """The pixels of one texture, with coordinates (u, v) in the texture and (dx, dy) in the part."""

    def __init__(self, n: int, flat: Int[np.ndarray, "n"], u: Values, v: Values, dx: Values, dy: Values) -> None:
        self.n = n
        self.flat = flat
        self.u = u
        self.v = v
        self.dx = dx
        self.dy = dy

    def noise(self, across: int, down: int, key: int = 0) -> Values:
        """Value noise at these pixels, around 0."""
        return noise(self.n, across, down, key).ravel()[self.flat] - 0.5


Surface = tuple[Values | float, Values | float]
"""The fraction of the second colour, and a factor on the brightness."""


def _fraction(values: Values) -> Values:
    return values - np.floor(values)


def _plain(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.07 * at.noise(60, 60)


def _striped(at: Pixels) -> Surface:
    return (_fraction(at.u + 0.18) < 0.36).astype(np.float32), 1.0 + 0.06 * at.noise(60, 60)


def _dotted(at: Pixels) -> Surface:
    column = np.floor(at.u)
    across, down = at.u - column - 0.5, _fraction(at.v + 0.5 * (column % 2)) - 0.5
    return (across**2 + down**2 < 0.095).astype(np.float32), 1.0 + 0.06 * at.noise(60, 60)


def _checkered(at: Pixels) -> Surface:
    u, v = np.floor(at.u * 2.0), np.floor(at.v * 2.0)
    odd = (u + v) % 2 == 1
    inside = (np.abs(_fraction(at.u * 2.0) - 0.5) < 0.44) & (np.abs(_fraction(at.v * 2.0) - 0.5) < 0.44)
    return (odd & inside).astype(np.float32), 1.0 + 0.06 * at.noise(60, 60)


def _spotted(at: Pixels) -> Surface:
    patches = noise(at.n, 22, 22, 5).ravel()[at.flat]
    return (patches > 0.64).astype(np.float32), 1.0 + 0.12 * at.noise(90, 90)


def _brick(at: Pixels) -> Surface:
    row = np.floor(at.v)
    along = at.u * 0.5 + 0.5 * (row % 2)
    mortar = (_fraction(at.v) < 0.17) | (_fraction(along) < 0.09)
    tone = np.sin(np.floor(along) * 12.9898 + row * 78.233) * 0.1
    return 0.0, np.where(mortar, np.float32(1.22), 1.0 + tone.astype(np.float32)) + 0.1 * at.noise(80, 80)


def _wooden(at: Pixels) -> Surface:
    row = np.floor(at.v)
    seam = _fraction(at.v) < 0.13
    tone = np.sin(row * 51.7) * 0.07
    grain = 0.2 * at.noise(24, 130, 2)
    return 0.0, np.where(seam, np.float32(0.74), 1.0 + tone.astype(np.float32)) + grain


def _shingle(at: Pixels) -> Surface:
    row = np.floor(at.v)
    along = at.u * 0.7 + 0.5 * (row % 2)
    edge = _fraction(at.v)
    gap = _fraction(along) < 0.1
    tone = np.sin(np.floor(along) * 33.1 + row * 17.7) * 0.08
    return 0.0, np.where(gap, np.float32(0.8), 0.86 + 0.24 * edge + tone.astype(np.float32))


def _fur(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.3 * at.noise(130, 70) + 0.12 * at.noise(40, 40)


def _foliage(at: Pixels) -> Surface:
    leaves = at.noise(64, 64, 1)
    return 0.0, 1.0 + 0.5 * leaves + 0.3 * at.noise(150, 150)


def _needles(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.34 * at.noise(130, 60, 3) + 0.2 * at.noise(60, 130, 4)


def _bark(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.45 * at.noise(130, 30, 1)


def _stone(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.35 * at.noise(30, 30, 2) + 0.25 * at.noise(90, 90, 3)


def _wool(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.26 * at.noise(58, 58, 2) + 0.1 * at.noise(130, 130)


def _cloth(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.1 * at.noise(120, 120) + 0.1 * at.noise(14, 14, 2)


def _plaster(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.1 * at.noise(80, 80, 1) + 0.07 * at.noise(20, 20)


def _metal(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.16 * np.exp(-((at.dy + 0.45) ** 2) * 18.0)


def _gloss(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.32 * np.exp(-((at.dx + 0.36) ** 2 + (at.dy + 0.4) ** 2) * 9.0)


def _ribs(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.16 * np.sin(at.u * np.float32(2 * math.pi)) + 0.1 * at.noise(90, 90)


def _rings(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.2 * np.sin(at.v * np.float32(2 * math.pi)) + 0.1 * at.noise(90, 90)


def _pages(at: Pixels) -> Surface:
    return 0.0, 1.0 - 0.14 * (_fraction(at.v) < 0.4)


def _lattice(at: Pixels) -> Surface:
    bars = (_fraction(at.u) < 0.2) | (_fraction(at.v) < 0.2)
    return 0.6 * bars.astype(np.float32), 1.0


def _petal(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.14 * at.noise(110, 110)


def _screen(at: Pixels) -> Surface:
    return 0.0, 1.0 + 0.2 * (at.dx + at.dy < -0.5)


SURFACES: dict[str, Callable[[Pixels], Surface]] = {
    "plain": _plain,
    "striped": _striped,
    "dotted": _dotted,
    "checkered": _checkered,
    "spotted": _spotted,
    "brick": _brick,
    "wooden": _wooden,
    "shingle": _shingle,
    "fur": _fur,
    "foliage": _foliage,
    "grass": _foliage,
    "needles": _needles,
    "bark": _bark,
    "stone": _stone,
    "wool": _wool,
    "cloth": _cloth,
    "plaster": _plaster,
    "snow": _plaster,
    "cardboard": _plaster,
    "sponge": _wool,
    "metal": _metal,
    "gloss": _gloss,
    "ribs": _ribs,
    "rings": _rings,
    "pages": _pages,
    "lattice": _lattice,
    "petal": _petal,
    "screen": _screen,
}

_CODES = {name: code for code, name in enumerate(SURFACES)}


def paint(
    n: int, flat: Int[np.ndarray, "n"], owner: Int[np.ndarray, "n"], parts: Sequence[Part]
) -> Float[np.ndarray, "n 3"]:
    """The colours of the pixels `flat` of an n x n image, where pixel i belongs to `parts[owner[i]]`.

    All parts are shaded together, so the cost depends on the painted area and hardly on the number of parts.
    """
    table = _PartArrays(parts)
    x = ((flat % n).astype(np.float32) + 0.5) / n
    y = ((flat // n).astype(np.float32) + 0.5) / n
    centre, half = table.centre[owner], table.half[owner]
    dx, dy = (x - centre[:, 0]) / half[:, 0], (y - centre[:, 1]) / half[:, 1]
    light = 1.0 - table.shade[owner] * (0.5 * dx + 0.75 * dy)
    mix = np.zeros(len(flat), np.float32)
    left, down = x - table.origin[owner, 0], y - table.origin[owner, 1]
    cos, sin = table.cos[owner], table.sin[owner]
    u, v = left * cos + down * sin, down * cos - left * sin
    codes = table.texture[owner]
    for code in np.unique(codes):
        chosen = np.flatnonzero(codes == code)
        surface = SURFACES[tuple(SURFACES)[code]]
        fraction, factor = surface(Pixels(n, flat[chosen], u[chosen], v[chosen], dx[chosen], dy[chosen]))
        mix[chosen] = fraction
        light[chosen] *= factor
    colour = table.colour[owner]
    colour += mix[:, None] * (table.second[owner] - colour)
    return colour * light[:, None]


class _PartArrays:
    """The parameters of all parts as arrays, indexed by part."""

    def __init__(self, parts: Sequence[Part]) -> None:
        def column(values: Sequence[object]) -> Float[np.ndarray, "..."]:
            return np.array(values, np.float32)

        self.colour = column([part.colour for part in parts])
        self.second = column([part.second for part in parts])
        self.origin = column([part.origin for part in parts])
        lows = np.array([part.points.min(axis=0) for part in parts], np.float32)
        highs = np.array([part.points.max(axis=0) for part in parts], np.float32)
        self.centre = (lows + highs) / 2
        self.half = np.maximum((highs - lows) / 2, 1e-4)
        self.shade = column([part.shade for part in parts])
        angles = np.radians(column([part.angle for part in parts]))
        scales = column([part.scale for part in parts])
        self.cos, self.sin = np.cos(angles) / scales, np.sin(angles) / scales
        self.texture = np.array([_CODES[part.texture] for part in parts], np.int16)


def smoothstep(
    values: Float[np.ndarray, "..."], low: float | np.ndarray, high: float | np.ndarray
) -> Float[np.ndarray, "..."]:
    """0 below `low`, 1 above `high`, and a smooth step in between."""
    t = np.clip((values - low) / (high - low), 0.0, 1.0)
    return t * t * (3.0 - 2.0 * t)
