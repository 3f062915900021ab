"""House, barn, tent, windmill and lighthouse."""

import math

from tavq.scenes.colours import RGB, scale_colour
from tavq.scenes.shapes import Pen, box, ellipse, stroke

GLASS: RGB = (150.0, 195.0, 225.0)
FRAME: RGB = (236.0, 232.0, 222.0)
DARK: RGB = (52.0, 44.0, 42.0)


def window(pen: Pen, x: float, y: float, half: float, frame: RGB = FRAME) -> None:
    """A window with a cross, lit at night."""
    pen.fill(box(x - half - 0.02, y - half - 0.02, x + half + 0.02, y + half + 0.02), frame, shade=0.05)
    pen.fill(box(x - half, y - half, x + half, y + half), GLASS, "window", shade=0.3, glow=True)
    pen.fill(box(x - 0.01, y - half, x + 0.01, y + half), frame, shade=0.0)
    pen.fill(box(x - half, y - 0.01, x + half, y + 0.01), frame, shade=0.0)


def house(pen: Pen) -> None:
    frame = FRAME if pen.thing.colour != "white" else (110.0, 90.0, 75.0)
    pen.fill(box(0.2, 0.7, 0.32, 1.0), (150.0, 84.0, 66.0), "chimney", "brick", 0.08)
    pen.fill(box(0.18, 0.97, 0.34, 1.0), (110.0, 66.0, 54.0))
    pen.body(box(-0.48, 0.0, 0.48, 0.56), texture="plaster", shade=0.1)
    pen.fill(box(-0.48, 0.0, 0.48, 0.045), (128.0, 120.0, 112.0), texture="stone", scale=0.1)
    roof = [(-0.57, 0.53), (0.57, 0.53), (0.4, 0.92), (-0.4, 0.92)]
    pen.fill(roof, pen.part_colour("roof"), "roof", "shingle", 0.085, 0.16)
    pen.fill(box(-0.57, 0.5, 0.57, 0.535), scale_colour(pen.part_colour("roof"), 0.7))
    pen.fill(box(-0.11, 0.0, 0.11, 0.4), frame)
    pen.fill(box(-0.085, 0.0, 0.085, 0.375), pen.part_colour("door"), "door", "wooden", 0.06)
    pen.fill(ellipse(0.055, 0.18, 0.016, 0.016), (240.0, 205.0, 90.0))
    window(pen, -0.29, 0.28, 0.085, frame)
    window(pen, 0.29, 0.28, 0.085, frame)


def barn(pen: Pen) -> None:
    pen.body([(-0.58, 0), (0.58, 0), (0.58, 0.5), (0.44, 0.8), (0, 1.0), (-0.44, 0.8), (-0.58, 0.5)])
    roof = pen.part_colour("roof")
    for side in (-1, 1):
        edge = [
            (side * 0.65, 0.46),
            (side * 0.47, 0.82),
            (0, 1.03),
            (0, 0.93),
            (side * 0.41, 0.75),
            (side * 0.56, 0.45),
        ]
        pen.fill(edge, roof, "roof", "shingle", 0.08)
    pen.fill(box(-0.24, 0, 0.24, 0.44), FRAME)
    pen.fill(box(-0.21, 0, 0.21, 0.41), scale_colour(pen.main, 0.6), "door", "wooden", 0.08)
    for ends in (((-0.21, 0.0), (0.21, 0.41)), ((-0.21, 0.41), (0.21, 0.0)), ((0, 0), (0, 0.41))):
        pen.fill(stroke(ends, 0.03), FRAME, shade=0.0)
    pen.fill(ellipse(0, 0.66, 0.1, 0.1), FRAME)
    pen.fill(ellipse(0, 0.66, 0.075, 0.075), GLASS, "window", glow=True)


def tent(pen: Pen) -> None:
    pen.fill([(0.1, 0.95), (0.68, 0.06), (0.4, 0.0)], scale_colour(pen.main, 0.62), texture="cloth", scale=0.1)
    pen.body([(-0.68, 0.0), (0.45, 0.0), (0.02, 1.0)], scale=0.26, texture="cloth")
    pen.fill([(-0.2, 0.0), (0.16, 0.0), (0.01, 0.62)], DARK, "opening")
    pen.fill([(0.16, 0.0), (0.28, 0.0), (0.01, 0.62)], scale_colour(pen.main, 1.2), texture="cloth", scale=0.1)
    pen.fill(stroke([(-0.01, 0.94), (0.03, 1.02)], 0.03), DARK)


def windmill(pen: Pen) -> None:
    pen.body([(-0.24, 0.0), (0.24, 0.0), (0.14, 0.66), (-0.14, 0.66)], texture="plaster", shade=0.3)
    pen.fill(
        [(-0.19, 0.64), (0.19, 0.64), (0.1, 0.8), (0, 0.84), (-0.1, 0.8)],
        pen.part_colour("cap"),
        "cap",
        "shingle",
        0.06,
    )
    pen.fill(box(-0.06, 0, 0.06, 0.2), DARK, "door", "wooden", 0.05)
    window(pen, 0, 0.42, 0.045)
    hub = (0.0, 0.68)
    for quarter in range(4):
        angle = math.radians(22 + 90 * quarter)
        cos, sin = math.cos(angle), math.sin(angle)
        tip = (hub[0] + 0.36 * cos, hub[1] + 0.36 * sin)
        start = (hub[0] + 0.08 * cos, hub[1] + 0.08 * sin)
        wide = (-0.1 * sin, 0.1 * cos)
        sail = [start, tip, (tip[0] + wide[0], tip[1] + wide[1]), (start[0] + wide[0], start[1] + wide[1])]
        pen.fill(sail, (238.0, 228.0, 206.0), "sail", "lattice", 0.07)
        pen.fill(stroke([hub, tip], 0.026), (92.0, 66.0, 46.0))
    pen.fill(ellipse(*hub, 0.035, 0.035), DARK)


def lighthouse(pen: Pen) -> None:
    pen.fill([(-0.17, 0), (0.17, 0), (0.15, 0.06), (-0.15, 0.06)], (128.0, 124.0, 120.0), texture="stone")
    pen.body([(-0.13, 0.05), (0.13, 0.05), (0.08, 0.76), (-0.08, 0.76)], 0.24, "plaster", 0.3, angle=90.0)
    pen.fill(box(-0.11, 0.75, 0.11, 0.78), DARK)
    pen.fill(box(-0.06, 0.78, 0.06, 0.88), (255.0, 226.0, 120.0), "window", glow=True)
    pen.fill(stroke([(0, 0.78), (0, 0.88)], 0.012), DARK)
    pen.fill([(-0.1, 0.87), (0.1, 0.87), (0.03, 0.97), (-0.03, 0.97)], pen.part_colour("roof"), "roof")
    pen.fill(ellipse(0, 0.975, 0.025, 0.025), DARK)
    pen.fill(box(-0.045, 0.05, 0.045, 0.17), DARK, "door")


FIGURES = {"house": house, "barn": barn, "tent": tent, "windmill": windmill, "lighthouse": lighthouse}
