"""The eleven basic colour names: their colours, natural variations of them, and the name of a pixel's colour."""

import random
from functools import lru_cache

import numpy as np
from jaxtyping import Float

RGB = tuple[float, float, float]
"""Red, green and blue from 0 to 255."""

COLOURS: dict[str, RGB] = {
    "red": (206.0, 38.0, 36.0),
    "orange": (242.0, 132.0, 24.0),
    "yellow": (247.0, 214.0, 48.0),
    "green": (58.0, 152.0, 60.0),
    "blue": (44.0, 98.0, 208.0),
    "purple": (128.0, 58.0, 176.0),
    "pink": (247.0, 148.0, 190.0),
    "brown": (122.0, 74.0, 40.0),
    "black": (34.0, 34.0, 38.0),
    "white": (244.0, 244.0, 240.0),
    "gray": (136.0, 139.0, 143.0),
}

NAMES = tuple(COLOURS)

TINTS: dict[str, RGB] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.02, 0.92, 0.97),
    "sunset": (1.05, 0.85, 0.72),
    "night": (0.4, 0.46, 0.68),
    "lamplight": (0.92, 0.78, 0.58),
}
"""Factors by which each light multiplies the backdrop."""

SKIES: dict[str, tuple[RGB, RGB]] = {
    "clear": ((84.0, 152.0, 226.0), (198.0, 228.0, 247.0)),
    "cloudy": ((132.0, 156.0, 184.0), (206.0, 216.0, 224.0)),
    "rain": ((100.0, 112.0, 128.0), (160.0, 170.0, 180.0)),
    "snow": ((168.0, 180.0, 194.0), (220.0, 226.0, 232.0)),
    "fog": ((186.0, 193.0, 198.0), (214.0, 217.0, 218.0)),
    "dawn": ((122.0, 146.0, 206.0), (255.0, 206.0, 190.0)),
    "sunset": ((92.0, 78.0, 150.0), (255.0, 158.0, 80.0)),
    "night": ((12.0, 18.0, 50.0), (46.0, 58.0, 104.0)),
}
"""Sky colours at the top and at the horizon, by the weather in daylight, or by another light."""


_TO_LMS = np.array([[0.4122214708, 0.5363325363, 0.0514459929],
                    [0.2119034982, 0.6806995451, 0.1073969566],
                    [0.0883024619, 0.2817188376, 0.6299787005]])  # fmt: skip
_TO_LAB = np.array([[0.2104542553, 0.7936177850, -0.0040720468],
                    [1.9779984951, -2.4285922050, 0.4505937099],
                    [0.0259040371, 0.7827717662, -0.8086757660]])  # fmt: skip


def to_oklab(rgb: Float[np.ndarray, "n 3"]) -> Float[np.ndarray, "n 3"]:
    """Convert sRGB colours in 0..255 to OKLab: lightness and two hue axes.

    Source: B. Ottosson, "A perceptual color space for image processing" (2020).
    """
    unit = np.clip(rgb, 0.0, 255.0) / 255.0
    linear = np.where(unit <= 0.04045, unit / 12.92, ((unit + 0.055) / 1.055) ** 2.4)
    return np.cbrt(linear @ _TO_LMS.T) @ _TO_LAB.T


_ANCHORS = to_oklab(np.array(list(COLOURS.values())))
_WEIGHTS = np.array([0.7, 1.6, 1.6])  # hue separates the names better than lightness, which shading changes


def nearest_colour(rgb: RGB) -> str:
    """The basic colour name closest to a pixel's colour."""
    lab = to_oklab(np.array([rgb], dtype=np.float64))
    return NAMES[int((((lab - _ANCHORS) * _WEIGHTS) ** 2).sum(axis=1).argmin())]


@lru_cache(maxsize=4096)
def vary_colour(name: str, variant: int) -> RGB:
    """One of 64 natural variations of a named colour, the same for the same `variant`."""
    rng = random.Random(f"{name}/{variant % 64}")
    base = COLOURS[name]
    for _ in range(8):
        gain = rng.uniform(0.9, 1.1)
        candidate = tuple(min(255.0, max(0.0, channel * gain + rng.uniform(-9.0, 9.0))) for channel in base)
        if nearest_colour(candidate) == name:  # type: ignore[arg-type]
            return candidate  # type: ignore[return-value]
    return base


def scale_colour(rgb: RGB, gain: float) -> RGB:
    """Make a colour lighter (gain above 1) or darker."""
    return (min(255.0, rgb[0] * gain), min(255.0, rgb[1] * gain), min(255.0, rgb[2] * gain))


def mix_colours(rgb: RGB, other: RGB, fraction: float) -> RGB:
    """Mix a colour with a `fraction` of another."""
    keep = 1.0 - fraction
    return (
        rgb[0] * keep + other[0] * fraction,
        rgb[1] * keep + other[1] * fraction,
        rgb[2] * keep + other[2] * fraction,
    )


def blend(
    canvas: Float[np.ndarray, "_ _ 3"], colour: RGB | Float[np.ndarray, "..."], alpha: Float[np.ndarray, "..."]
) -> None:
    """Blend a colour over a strip of an image in place, with one `alpha` per pixel."""
    canvas += alpha[..., None] * (np.asarray(colour, np.float32) - canvas)
