"""Vehicles that drive, sail and fly."""

import math

from tavq.scenes.colours import RGB, mix_colours, scale_colour
from tavq.scenes.shapes import Pen, arc, box, ellipse, rounded_box, stroke

TYRE: RGB = (42.0, 42.0, 46.0)
RIM: RGB = (196.0, 198.0, 202.0)
GLASS: RGB = (160.0, 204.0, 230.0)


def wheel(pen: Pen, x: float, r: float) -> None:
    """A tyre with its rim, standing on the ground."""
    pen.fill(ellipse(x, r, r, r), TYRE, "wheel", shade=0.2)
    pen.fill(ellipse(x, r, r * 0.55, r * 0.55), RIM, shade=0.3)
    pen.fill(ellipse(x, r, r * 0.18, r * 0.18), TYRE, shade=0.0)


def car(pen: Pen) -> None:
    roof = [(-0.62, 0.5), (-0.4, 0.96), (0.24, 1.0), (0.36, 0.94), (0.62, 0.5)]
    pen.body(roof, 0.3, "metal", 0.3)
    pen.fill([(-0.5, 0.53), (-0.35, 0.88), (-0.06, 0.9), (-0.06, 0.53)], GLASS, "window", shade=0.35, glow=True)
    pen.fill([(0.0, 0.53), (0.0, 0.9), (0.26, 0.89), (0.5, 0.53)], GLASS, "window", shade=0.35, glow=True)
    pen.body(
        [(-0.95, 0.2), (0.95, 0.2), (0.95, 0.38), (0.88, 0.5), (0.6, 0.57), (-0.9, 0.57), (-0.95, 0.44)],
        0.3,
        "metal",
        0.25,
    )
    pen.fill(box(-0.95, 0.16, 0.95, 0.23), (72.0, 72.0, 76.0))
    pen.fill(stroke([(-0.03, 0.24), (-0.03, 0.56)], 0.018), scale_colour(pen.main, 0.62), shade=0.0)
    pen.fill(box(-0.14, 0.44, -0.06, 0.47), scale_colour(pen.main, 0.5), shade=0.0)
    pen.fill(ellipse(0.9, 0.42, 0.05, 0.055), (255.0, 240.0, 170.0), glow=True)
    pen.fill(box(-0.95, 0.38, -0.89, 0.48), (190.0, 40.0, 40.0))
    wheel(pen, -0.54, 0.2)
    wheel(pen, 0.54, 0.2)


def bus(pen: Pen) -> None:
    pen.body(rounded_box(-0.87, 0.14, 0.87, 1.0, 0.1), 0.3, "metal", 0.2)
    pen.fill(box(-0.87, 0.36, 0.87, 0.4), mix_colours(pen.main, (255.0, 255.0, 255.0), 0.6), shade=0.0)
    for index in range(4):
        x = -0.78 + 0.31 * index
        pen.fill(rounded_box(x, 0.52, x + 0.26, 0.84, 0.03), GLASS, "window", shade=0.35, glow=True)
    pen.fill(rounded_box(0.5, 0.17, 0.66, 0.84, 0.03), GLASS, "door", shade=0.3)
    pen.fill(stroke([(0.58, 0.17), (0.58, 0.84)], 0.02), scale_colour(pen.main, 0.6))
    pen.fill(rounded_box(0.71, 0.48, 0.87, 0.84, 0.03), GLASS, "window", shade=0.35, glow=True)
    pen.fill(ellipse(0.84, 0.28, 0.035, 0.04), (255.0, 240.0, 170.0), glow=True)
    wheel(pen, -0.5, 0.15)
    wheel(pen, 0.34, 0.15)


def truck(pen: Pen) -> None:
    load = pen.part_colour("load")
    pen.fill(box(-0.85, 0.24, 0.85, 0.31), (66.0, 66.0, 70.0))
    pen.fill(box(-0.84, 0.3, 0.28, 0.92), load, "load", "wooden", 0.1)
    pen.fill(box(-0.84, 0.88, 0.28, 0.92), scale_colour(load, 0.7))
    pen.body([(0.33, 0.24), (0.85, 0.24), (0.85, 0.56), (0.74, 0.62), (0.66, 0.94), (0.33, 0.94)], 0.3, "metal", 0.25)
    pen.fill([(0.43, 0.6), (0.68, 0.6), (0.61, 0.86), (0.43, 0.86)], GLASS, "window", shade=0.3, glow=True)
    pen.fill(ellipse(0.82, 0.38, 0.035, 0.045), (255.0, 240.0, 170.0), glow=True)
    wheel(pen, -0.5, 0.165)
    wheel(pen, 0.56, 0.165)


def _ring(pen: Pen, x: float, r: float) -> None:
    for step in range(12):
        pen.fill(stroke(arc(x, r, r - 0.03, r - 0.03, 30 * step, 30 * step + 31, 3), 0.06), TYRE, "wheel", shade=0.0)
    for angle in (20, 80, 140):
        turn = math.radians(angle)
        dx, dy = (r - 0.05) * math.cos(turn), (r - 0.05) * math.sin(turn)
        pen.fill(stroke([(x - dx, r - dy), (x + dx, r + dy)], 0.014), (170.0, 172.0, 176.0), shade=0.0)


def bicycle(pen: Pen) -> None:
    _ring(pen, -0.42, 0.3)
    _ring(pen, 0.42, 0.3)
    frame = (((-0.42, 0.3), (-0.16, 0.74)), ((-0.42, 0.3), (-0.04, 0.3)), ((-0.04, 0.3), (0.28, 0.74)),
             ((-0.16, 0.74), (0.28, 0.74)), ((-0.04, 0.3), (-0.18, 0.82)), ((0.42, 0.3), (0.26, 0.9)))  # fmt: skip
    for ends in frame:
        pen.body(stroke(ends, 0.075), 0.3, "metal", 0.0)
    pen.fill(rounded_box(-0.3, 0.82, -0.06, 0.9, 0.04), TYRE, "saddle")
    pen.fill(stroke([(0.2, 0.96), (0.27, 0.92), (0.38, 0.97)], 0.05), TYRE, "handlebar")
    pen.fill(ellipse(-0.04, 0.3, 0.06, 0.06), (110.0, 110.0, 114.0))


def boat(pen: Pen) -> None:
    sail = pen.part_colour("sail")
    pen.fill(stroke([(-0.03, 0.2), (-0.03, 1.0)], 0.03), (110.0, 78.0, 52.0), "mast")
    pen.fill([(0.01, 0.3), (0.01, 0.98), (0.38, 0.32)], sail, "sail", "cloth", 0.12, 0.24)
    pen.fill([(-0.07, 0.3), (-0.07, 0.88), (-0.34, 0.32)], scale_colour(sail, 0.93), "sail", "cloth", 0.12, 0.24)
    pen.body([(-0.45, 0.26), (0.45, 0.26), (0.3, 0.0), (-0.32, 0.0)], 0.08, "plain", 0.25)
    pen.fill(
        [(-0.46, 0.22), (-0.46, 0.27), (0.46, 0.27), (0.45, 0.22)], mix_colours(pen.main, (255.0, 255.0, 255.0), 0.55)
    )


def airplane(pen: Pen) -> None:
    pen.fill([(-0.05, 0.55), (0.3, 0.55), (0.02, 0.95), (-0.12, 0.95)], scale_colour(pen.main, 0.82), "wing")
    pen.body([(-1.12, 0.98), (-0.96, 0.98), (-0.72, 0.56), (-1.02, 0.5)], 0.3, "metal", 0.1)
    pen.body(
        [(-1.1, 0.6), (-0.7, 0.34), (0.86, 0.3), (1.16, 0.42), (1.12, 0.54), (0.86, 0.64), (-0.6, 0.64)],
        0.3,
        "metal",
        0.35,
    )
    pen.fill([(-0.1, 0.44), (0.34, 0.44), (-0.22, 0.0), (-0.42, 0.0)], scale_colour(pen.main, 0.74), "wing", shade=0.2)
    for index in range(6):
        pen.fill(ellipse(-0.46 + 0.22 * index, 0.52, 0.05, 0.045), (70.0, 110.0, 150.0), "window", shade=0.0)
    pen.fill([(0.9, 0.52), (1.08, 0.52), (0.94, 0.6), (0.86, 0.6)], (70.0, 110.0, 150.0), shade=0.0)


FIGURES = {"car": car, "bus": bus, "truck": truck, "bicycle": bicycle, "boat": boat, "airplane": airplane}
