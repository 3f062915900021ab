"""Outlines and the pen that figures are drawn with, in lengths of the thing's own height with y upwards."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tavq.scenes.colours import COLOURS, RGB, natural, scaled
from tavq.scenes.world import Thing

Outline = Sequence[tuple[float, float]]
"""Corners of a filled polygon."""

_TURN = tuple((math.cos(2 * math.pi * step / 28), math.sin(2 * math.pi * step / 28)) for step in range(28))


@dataclass(frozen=True)
class Part:
    """One filled polygon of a thing, in image coordinates, with what it is painted with."""

    role: str  # named as in the kind's parts; "body" is the part whose colour the text names
    points: Float[np.ndarray, "n 2"]
    colour: RGB
    second: RGB
    texture: str
    scale: float  # the texture's period in image coordinates
    origin: tuple[float, float]  # where the texture starts, so that it runs on from part to part
    angle: float
    shade: float  # how much lighter the upper left is than the lower right
    glow: bool = False  # keeps its own light at night


def ellipse(x: float, y: float, rx: float, ry: float) -> Outline:
    """An ellipse of 28 corners."""
    return [(x + rx * cos, y + ry * sin) for cos, sin in _TURN]


def arc(
    x: float, y: float, rx: float, ry: float, start: float, end: float, steps: int = 14
) -> list[tuple[float, float]]:
    """Points along an ellipse from `start` to `end` degrees, counted anticlockwise from the right."""
    angles = [math.radians(start + (end - start) * step / steps) for step in range(steps + 1)]
    return [(x + rx * math.cos(angle), y + ry * math.sin(angle)) for angle in angles]


def box(left: float, low: float, right: float, high: float) -> Outline:
    """An upright rectangle."""
    return [(left, low), (right, low), (right, high), (left, high)]


def rounded(left: float, low: float, right: float, high: float, radius: float) -> Outline:
    """A rectangle with round corners."""
    r = min(radius, (right - left) / 2, (high - low) / 2)
    corners = ((right - r, high - r, 0), (left + r, high - r, 90), (left + r, low + r, 180), (right - r, low + r, 270))
    return [point for x, y, start in corners for point in arc(x, y, r, r, start, start + 90, 4)]


def stroke(points: Outline, width: float) -> Outline:
    """A line of some width along points, as a polygon."""
    left, right = [], []
    for place, (x, y) in enumerate(points):
        before, after = points[max(0, place - 1)], points[min(len(points) - 1, place + 1)]
        dx, dy = after[0] - before[0], after[1] - before[1]
        length = math.hypot(dx, dy) or 1.0
        nx, ny = -dy / length * width / 2, dx / length * width / 2
        left.append((x + nx, y + ny))
        right.append((x - nx, y - ny))
    return left + right[::-1]


def blob(x: float, y: float, rx: float, ry: float, seed: int, bumps: int = 9, depth: float = 0.1) -> Outline:
    """A round outline with leafy bumps."""
    rng = random.Random(seed)
    phase = rng.uniform(0, 6.28)
    points = []
    for step in range(48):
        angle = 2 * math.pi * step / 48
        wave = 1.0 - depth + depth * abs(math.sin(bumps * angle / 2 + phase)) * 1.4
        points.append((x + rx * wave * math.cos(angle), y + ry * wave * math.sin(angle)))
    return points


class Pen:
    """Collects the parts of one thing, mirrored when it faces left, scaled and put in its place."""

    def __init__(self, thing: Thing) -> None:
        self.thing = thing
        self.main = natural(thing.colour, thing.variant)
        self.second = natural(thing.second, thing.variant) if thing.second else scaled(self.main, 0.8)
        self.parts: list[Part] = []

    def named(self, part: str) -> RGB:
        """The colour of a named part of the thing."""
        return natural(self.thing.part(part), self.thing.variant)

    def shade_of(self, name: str) -> RGB:
        """A basic colour by name, for parts that are always alike."""
        return COLOURS[name]

    def fill(
        self,
        outline: Outline,
        colour: RGB,
        role: str = "",
        texture: str = "plain",
        scale: float = 0.1,
        shade: float = 0.12,
        second: RGB | None = None,
        angle: float = 0.0,
        glow: bool = False,
    ) -> None:
        """Adds a polygon."""
        thing = self.thing
        points = np.array(outline, dtype=np.float64)
        points[:, 0] = thing.x + thing.height * thing.facing * points[:, 0]
        points[:, 1] = thing.y - thing.height * points[:, 1]
        other = second if second is not None else scaled(colour, 0.75)
        self.parts.append(
            Part(role, points, colour, other, texture, scale * thing.height, (thing.x, thing.y), angle, shade, glow)
        )

    def body(
        self, outline: Outline, scale: float = 0.3, texture: str = "plain", shade: float = 0.16, angle: float = 0.0
    ) -> None:
        """Adds a polygon in the thing's own colour and pattern; `texture` is its surface when it has no pattern."""
        pattern = self.thing.pattern
        if pattern != "plain":
            texture = pattern
        fine = {"brick": 0.11, "wooden": 0.12}.get(pattern, scale)
        second = self.second if self.thing.second else None
        self.fill(outline, self.main, "body", texture, fine, shade, second, angle)
