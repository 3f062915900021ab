"""Renders a scene: the image, an instance map and a segmentation map."""

import itertools
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from jaxtyping import Float32, Int16, Int32, UInt8
from PIL import Image, ImageDraw, ImageFilter

from tavq.core.errors import UsageError
from tavq.scenes.backdrop import paint_backdrop
from tavq.scenes.class_map import ID, map_classes
from tavq.scenes.colours import RGB
from tavq.scenes.figures import draw_figure
from tavq.scenes.shapes import Part, ellipse
from tavq.scenes.textures import paint
from tavq.scenes.world import Scene

SMALLEST, LARGEST = 16, 2048

_TINTS: dict[str, RGB] = {
    "day": (1.0, 1.0, 1.0),
    "dawn": (1.0, 0.95, 0.97),
    "sunset": (1.03, 0.91, 0.82),
    "night": (0.62, 0.66, 0.84),
    "lamplight": (0.97, 0.88, 0.74),
}
"""Factors by which each light multiplies things: weaker than for the backdrop, so that colours stay recognizable."""


@dataclass(frozen=True)
class Rendering:
    """A rendered scene."""

    image: UInt8[np.ndarray, "y x 3"]
    instances: Int16[np.ndarray, "y x"]  # index into scene.things, or -1
    segmentation: UInt8[np.ndarray, "y x"]  # index into CLASSES
    body: Int16[np.ndarray, "y x"]  # like instances, but only for the part with the named colour


def render(scene: Scene, size: int) -> Rendering:
    """Render a scene as an image of size x size pixels.

    Raises UsageError if `size` is below 16 or above 2048.
    """
    check_size(size)
    factor = _choose_supersampling(size)
    n = size * factor
    classes = map_classes(scene, n)
    canvas = paint_backdrop(scene, classes)
    _paint_shadows(scene, canvas)
    parts, owners = collect_parts(scene)
    index = rasterize(parts, n)
    _paint_things(scene, canvas, index, parts, owners)
    _paint_weather(scene, canvas)
    pixels = Image.fromarray(np.clip(canvas, 0.0, 255.0).astype(np.uint8))
    image = np.asarray(pixels.reduce(factor) if factor > 1 else pixels)
    # Maps hold indices, which cannot be averaged: they take the middle pixel of each block.
    middle = slice(factor // 2, None, factor)
    visible = index[middle, middle]
    return Rendering(image, *_make_maps(scene, visible, classes[middle, middle], parts, owners))


def _choose_supersampling(size: int) -> int:
    """How many times larger an image is drawn before it is scaled down for antialiasing."""
    for limit, factor in ((40, 4), (96, 3), (1024, 2)):
        if size <= limit:
            return factor
    return 1


def check_size(size: int) -> None:
    """Raise UsageError unless images can have a side of `size` pixels."""
    if not SMALLEST <= size <= LARGEST:
        raise UsageError(f"Scenes cannot be {size} pixels wide; use a size from {SMALLEST} to {LARGEST}.")


@lru_cache(maxsize=16)
def collect_parts(scene: Scene) -> tuple[tuple[Part, ...], tuple[int, ...]]:
    """All parts in drawing order, and the index of the thing that each belongs to."""
    figures = [draw_figure(thing) for thing in scene.things]
    owners = tuple(index for index, parts in enumerate(figures) for _ in parts)
    return tuple(itertools.chain.from_iterable(figures)), owners


def rasterize(parts: Sequence[Part], n: int) -> Int32[np.ndarray, "n n"]:
    """The number of the topmost part at each pixel, counted from 1; 0 for the backdrop."""
    image = Image.new("I", (n, n), 0)
    pencil = ImageDraw.Draw(image)
    for number, part in enumerate(parts, 1):
        pencil.polygon((part.points * n - 0.5).ravel().tolist(), fill=number)
    return np.asarray(image)


def _make_maps(
    scene: Scene,
    visible: Int32[np.ndarray, "y x"],
    classes: UInt8[np.ndarray, "y x"],
    parts: Sequence[Part],
    owners: Sequence[int],
) -> tuple[Int16[np.ndarray, "y x"], UInt8[np.ndarray, "y x"], Int16[np.ndarray, "y x"]]:
    instance = np.array([-1, *owners], np.int16)
    bodies = [owner if part.role == "body" else -1 for owner, part in zip(owners, parts, strict=True)]
    body = np.array([-1, *bodies], np.int16)
    kinds = np.array([0, *[ID[scene.things[owner].kind] for owner in owners]], np.uint8)
    return instance[visible], np.where(visible > 0, kinds[visible], classes), body[visible]


def _paint_shadows(scene: Scene, canvas: Float32[np.ndarray, "n n 3"]) -> None:
    """Paint soft shadows where things touch the ground."""
    n = len(canvas)
    coarse = max(16, n // 4)
    image = Image.new("L", (coarse, coarse), 0)
    pencil = ImageDraw.Draw(image)
    for thing in scene.things:
        if thing.zone in ("ground", "water"):
            wide = min(thing.width, thing.height * 1.6) * 0.54
            outline = ellipse(thing.x + 0.1 * wide, thing.y - 0.004, wide, 0.02 + 0.05 * thing.height)
            pencil.polygon([(x * coarse, y * coarse) for x, y in outline], fill=110 if scene.light == "day" else 80)
    soft = image.filter(ImageFilter.BoxBlur(coarse / 90)).resize((n, n), Image.Resampling.BILINEAR)
    canvas *= (1.0 - np.asarray(soft, np.float32) / 255.0)[..., None]


def _paint_things(
    scene: Scene,
    canvas: Float32[np.ndarray, "n n 3"],
    index: Int32[np.ndarray, "n n"],
    parts: Sequence[Part],
    owners: Sequence[int],
) -> None:
    n = len(canvas)
    flat = np.flatnonzero(index)
    if not len(flat):
        return
    owner = index.ravel()[flat] - 1
    colour = paint(n, flat, owner, parts)
    colour *= np.array(_TINTS[scene.light], np.float32)
    dark = scene.light in ("night", "sunset", "lamplight")
    glowing = np.array([part.glow and dark for part in parts])[owner]
    if glowing.any():
        colour[glowing] = (255.0, 214.0, 122.0)
    if scene.weather == "fog":
        hazes = [_compute_haze(scene, scene.things[thing].y, scene.things[thing].zone) for thing in owners]
        haze = np.array(hazes, np.float32)[owner]
        fog = np.array((212.0, 215.0, 217.0) if scene.light == "day" else (84.0, 92.0, 112.0), np.float32)
        colour += haze[:, None] * (fog - colour)
    canvas.reshape(-1, 3)[flat] = colour


def _compute_haze(scene: Scene, y: float, zone: str) -> float:
    horizon = scene.backdrop.horizon
    distance = 0.5 if zone == "sky" else 1.0 - (y - horizon) / (1.0 - horizon)
    return min(0.22, max(0.04, 0.26 * distance))


def _paint_weather(scene: Scene, canvas: Float32[np.ndarray, "n n 3"]) -> None:
    """Paint falling rain or snow over everything."""
    if scene.weather not in ("rain", "snow"):
        return
    n = len(canvas)
    rng = random.Random(scene.backdrop.variant + 2)
    image = Image.new("L", (n, n), 0)
    pencil = ImageDraw.Draw(image)
    for _ in range(110):
        x, y, reach = rng.uniform(-0.05, 1.05) * n, rng.uniform(-0.05, 1.0) * n, rng.uniform(0.6, 1.4)
        if scene.weather == "rain":
            wide = max(1, round(n * 0.004))
            pencil.line((x, y, x - 0.016 * n * reach, y + 0.055 * n * reach), fill=round(90 * reach), width=wide)
        else:
            r = n * 0.0068 * reach
            pencil.ellipse((x - r, y - r, x + r, y + r), fill=235)
    alpha = np.asarray(image, np.float32) / 255.0
    tone = np.array((214.0, 222.0, 232.0) if scene.weather == "rain" else (252.0, 252.0, 255.0), np.float32)
    if scene.light == "night":
        tone = tone * np.float32(0.72)
    canvas += alpha[..., None] * (tone - canvas)
