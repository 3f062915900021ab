"""Outlines, and the pen that draws a thing; in units of the thing's height, with y upwards."""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from tavq.scenes.colours import RGB, scale_colour, vary_colour
from tavq.scenes.world import Thing

Outline = Sequence[tuple[float, float]]
"""Corners of a filled polygon."""

_TURN = tuple((math.cos(2 * math.pi * step / 28), math.sin(2 * math.pi * step / 28)) for step in range(28))


@dataclass(frozen=True)
class Part:
    """One filled polygon of a thing, in image coordinates, and how it is painted."""

    role: str  # as in the kind's parts; "body" has the colour that texts name
    points: Float[np.ndarray, "n 2"]
    colour: RGB
    second: RGB
    texture: str
    scale: float  # the texture's period in image coordinates
    origin: tuple[float, float]  # of the texture, so that it continues from part to part
    angle: float
    shade: float  # brightness difference between upper left and lower right
    glow: bool = False  # is lit at night


def ellipse(x: float, y: float, rx: float, ry: float) -> Outline:
    """An ellipse with 28 corners."""
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


def rounded_box(left: float, low: float, right: float, high: float, radius: float) -> Outline:
    """A rectangle with round corners."""
    r = min(radius, (right - left) / 2, (high - low) / 2)
    corners = ((right - r, high - r, 0), (left + r, high - r, 90), (left + r, low + r, 180), (right - r, low + r, 270))
    return [point for x, y, start in corners for point in arc(x, y, r, r, start, start + 90, 4)]


def stroke(points: Outline, width: float) -> Outline:
    """A thick line along points, as a polygon."""
    left, right = [], []
    for index, (x, y) in enumerate(points):
        before, after = points[max(0, index - 1)], points[min(len(points) - 1, index + 1)]
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
    """Collects the parts of a thing: mirrored if it faces left, scaled, and moved to its position."""

    def __init__(self, thing: Thing) -> None:
        self.thing = thing
        self.main = vary_colour(thing.colour, thing.variant)
        self.second = vary_colour(thing.second, thing.variant) if thing.second else scale_colour(self.main, 0.8)
        self.parts: list[Part] = []

    def part_colour(self, part: str) -> RGB:
        """The colour of a part by its name."""
        return vary_colour(self.thing.part(part), self.thing.variant)

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
        """Add a polygon.

        Args:
            outline: corners, in units of the thing's height.
            colour: the main colour.
            role: the part's name, if texts mention it.
            texture: a surface of `textures.SURFACES`.
            scale: the texture's period.
            shade: brightness difference between upper left and lower right.
            second: the texture's other colour; by default a darker shade.
            angle: the texture's rotation in degrees.
            glow: the part is lit at night.
        """
        thing = self.thing
        points = np.array(outline, dtype=np.float64)
        points[:, 0] = thing.x + thing.height * thing.facing * points[:, 0]
        points[:, 1] = thing.y - thing.height * points[:, 1]
        other = second if second is not None else scale_colour(colour, 0.75)
        self.parts.append(
            Part(role, points, colour, other, texture, scale * thing.height, (thing.x, thing.y), angle, shade, glow)
        )

    def body(
        self, outline: Outline, scale: float = 0.3, texture: str = "plain", shade: float = 0.16, angle: float = 0.0
    ) -> None:
        """Add a polygon in the thing's own colour and pattern; `texture` is used if it has no pattern."""
        pattern = self.thing.pattern
        if pattern != "plain":
            texture = pattern
        fine = {"brick": 0.11, "wooden": 0.12}.get(pattern, scale)
        second = self.second if self.thing.second else None
        self.fill(outline, self.main, "body", texture, fine, shade, second, angle)
