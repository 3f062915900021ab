"""Trees, flowers, rocks and fences."""

import math
import random

from tavq.scenes.colours import RGB, scale_colour
from tavq.scenes.shapes import Pen, arc, blob, box, ellipse, rounded_box, stroke

STEM: RGB = (70.0, 142.0, 62.0)


def tree(pen: Pen) -> None:
    seed = pen.thing.variant
    bark = pen.part_colour("trunk")
    trunk = [(-0.075, 0), (0.085, 0), (0.05, 0.12), (0.045, 0.5), (-0.04, 0.5), (-0.045, 0.12)]
    pen.fill(trunk, bark, "trunk", "bark", 0.06, 0.3)
    pen.fill(stroke([(0.02, 0.32), (0.14, 0.46)], 0.035), bark)
    rng = random.Random(seed)
    crown = (
        (-0.17, 0.55, 0.21),
        (0.18, 0.56, 0.2),
        (0.0, 0.5, 0.2),
        (0.0, 0.76, 0.25),
        (-0.1, 0.67, 0.22),
        (0.12, 0.69, 0.22),
    )
    for index, (x, y, r) in enumerate(crown):
        r *= rng.uniform(0.92, 1.06)
        pen.body(blob(x, y, r, r * 0.92, seed + index, 8), 0.11, "foliage", 0.34)


def pine(pen: Pen) -> None:
    pen.fill(box(-0.04, 0, 0.04, 0.2), pen.part_colour("trunk"), "trunk", "bark", 0.06)
    for low, high, half in ((0.12, 0.5, 0.27), (0.32, 0.7, 0.22), (0.52, 0.87, 0.165), (0.7, 1.0, 0.105)):
        teeth = [(half * (1 - 2 * step / 8), low + (0.035 if step % 2 else 0.0)) for step in range(9)]
        pen.body([(0.0, high), *teeth], 0.09, "needles", 0.3)


def palm(pen: Pen) -> None:
    curve = [(0.1, 0.0), (0.07, 0.25), (0.02, 0.5), (-0.03, 0.74)]
    pen.fill(stroke(curve, 0.075), pen.part_colour("trunk"), "trunk", "rings", 0.075, 0.25)
    for angle, length in (
        (168, 0.36),
        (140, 0.4),
        (105, 0.3),
        (70, 0.32),
        (38, 0.4),
        (8, 0.38),
        (-25, 0.3),
        (205, 0.3),
    ):
        turn = math.radians(angle)
        tip = (-0.03 + length * math.cos(turn), 0.76 + length * math.sin(turn) * 0.7 - 0.06)
        middle = (-0.03 + 0.55 * length * math.cos(turn), 0.8 + 0.6 * length * math.sin(turn) * 0.7 + 0.05)
        root = (-0.03, 0.75)
        pen.body([root, (middle[0], middle[1] + 0.045), tip, (middle[0], middle[1] - 0.045)], 0.07, "needles", 0.25)
    for x in (-0.06, 0.0):
        pen.fill(ellipse(x, 0.735, 0.03, 0.03), (92.0, 58.0, 34.0))


def bush(pen: Pen) -> None:
    seed = pen.thing.variant
    for index, (x, y, rx, ry) in enumerate(((-0.4, 0.36, 0.3, 0.36), (0.4, 0.36, 0.3, 0.36), (0.0, 0.5, 0.4, 0.5))):
        pen.body(blob(x, y, rx, ry, seed + index, 8), 0.2, "foliage", 0.34)
    pen.body(box(-0.5, 0.0, 0.5, 0.25), 0.2, "foliage", 0.1)


def flower(pen: Pen) -> None:
    lean = (pen.thing.variant % 7 - 3) * 0.015
    pen.fill(stroke([(0, 0), (lean, 0.35), (lean, 0.72)], 0.04), STEM, "stem")
    for side in (-1, 1):
        pen.fill(
            [(0, 0.12), (side * 0.1, 0.3), (side * 0.2, 0.34), (side * 0.14, 0.2)], scale_colour(STEM, 0.9), shade=0.3
        )
    for step in range(6):
        angle = math.radians(60 * step + 15)
        pen.body(
            ellipse(lean + 0.135 * math.cos(angle), 0.76 + 0.135 * math.sin(angle), 0.095, 0.095), 0.1, "petal", 0.2
        )
    pen.fill(ellipse(lean, 0.76, 0.085, 0.085), pen.part_colour("center"), "center", shade=0.25)


def mushroom(pen: Pen) -> None:
    stem = [(-0.14, 0), (0.14, 0), (0.1, 0.25), (0.1, 0.5), (-0.1, 0.5), (-0.1, 0.25)]
    pen.fill(stem, pen.part_colour("stem"), "stem", shade=0.2)
    pen.fill(arc(0, 0.44, 0.42, 0.1, 180, 360), (226.0, 210.0, 186.0), shade=0.0)
    pen.body(arc(0, 0.42, 0.47, 0.56, 0, 180), 0.32, "plain", 0.3)


def cactus(pen: Pen) -> None:
    pen.body(rounded_box(-0.3, 0.36, -0.19, 0.72, 0.06), 0.055, "ribs", 0.25)
    pen.body(box(-0.26, 0.36, 0.0, 0.46), 0.055, "ribs", 0.1)
    pen.body(rounded_box(0.18, 0.46, 0.29, 0.8, 0.06), 0.055, "ribs", 0.25)
    pen.body(box(0.0, 0.46, 0.25, 0.56), 0.055, "ribs", 0.1)
    pen.body(rounded_box(-0.11, -0.06, 0.11, 1.0, 0.11), 0.06, "ribs", 0.3)
    pen.fill(ellipse(0.03, 1.0, 0.035, 0.03), (240.0, 120.0, 170.0))


def rock(pen: Pen) -> None:
    rng = random.Random(pen.thing.variant)
    profile = ((-0.74, 0.0), (-0.6, 0.42), (-0.3, 0.84), (0.12, 1.0), (0.5, 0.7), (0.68, 0.28), (0.74, 0.0))
    points = [(x + rng.uniform(-0.06, 0.06), y * rng.uniform(0.86, 1.0)) for x, y in profile]
    pen.body(points, 0.22, "stone", 0.3)
    pen.fill([points[1], points[2], points[3], (0.0, 0.5)], scale_colour(pen.main, 1.16), "body", "stone", 0.22, 0.1)


def fence(pen: Pen) -> None:
    for y in (0.26, 0.64):
        pen.body(box(-1.4, y, 1.4, y + 0.14), shade=0.1)
    for index in range(7):
        x = -1.26 + 0.42 * index
        pen.body([(x - 0.1, 0), (x + 0.1, 0), (x + 0.1, 0.86), (x, 1.0), (x - 0.1, 0.86)], shade=0.25)


FIGURES = {
    "tree": tree,
    "pine": pine,
    "palm": palm,
    "bush": bush,
    "flower": flower,
    "mushroom": mushroom,
    "cactus": cactus,
    "rock": rock,
    "fence": fence,
}
