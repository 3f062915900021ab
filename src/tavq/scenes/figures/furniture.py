"""Furniture, seen from the front."""

import random

from tavq.scenes.colours import COLOURS, RGB, scale_colour
from tavq.scenes.shapes import Pen, box, ellipse, rounded_box, stroke

PALE: RGB = (246.0, 244.0, 236.0)
METAL: RGB = (178.0, 182.0, 186.0)


def bench(pen: Pen) -> None:
    dark: RGB = (62.0, 58.0, 58.0)
    for x in (-0.72, 0.72):
        pen.fill(box(x - 0.045, 0.0, x + 0.045, 1.0), dark)
    for y in (0.62, 0.82):
        pen.body(box(-0.95, y, 0.95, y + 0.15), shade=0.2)
    pen.body(box(-0.97, 0.38, 0.97, 0.54), shade=0.2)
    pen.fill(box(-0.97, 0.32, 0.97, 0.385), scale_colour(pen.main, 0.66))


def sofa(pen: Pen) -> None:
    for x in (-0.78, 0.78):
        pen.fill(box(x - 0.05, 0.0, x + 0.05, 0.1), (82.0, 58.0, 42.0))
    pen.body(rounded_box(-0.86, 0.2, 0.86, 1.0, 0.14), 0.3, "cloth", 0.2)
    pen.fill(rounded_box(-0.84, 0.08, 0.84, 0.34, 0.06), scale_colour(pen.main, 0.84), texture="cloth", scale=0.06)
    for left in (-0.7, 0.01):
        pen.body(rounded_box(left, 0.32, left + 0.69, 0.55, 0.09), 0.3, "cloth", 0.28)
    for side in (-1, 1):
        arm = sorted((side * 0.7, side * 1.0))
        pen.body(rounded_box(arm[0], 0.08, arm[1], 0.66, 0.13), 0.3, "cloth", 0.3)


def chair(pen: Pen) -> None:
    dark = scale_colour(pen.main, 0.72)
    for x in (-0.19, 0.2):
        pen.fill(box(x - 0.03, 0.0, x + 0.03, 0.44), dark)
    pen.body(box(-0.29, 0.4, -0.215, 1.0), shade=0.1)
    pen.body(box(0.06, 0.56, 0.125, 1.0), shade=0.1)
    for y in (0.62, 0.76, 0.9):
        pen.body(box(-0.25, y, 0.1, y + 0.085), shade=0.1)
    pen.body([(-0.29, 0.42), (0.3, 0.42), (0.2, 0.54), (-0.26, 0.54)], shade=0.2)
    pen.fill(box(-0.29, 0.37, 0.3, 0.425), dark)
    for x in (-0.255, 0.265):
        pen.fill(box(x - 0.035, 0.0, x + 0.035, 0.4), scale_colour(pen.main, 0.88))


def table(pen: Pen) -> None:
    for x in (-0.62, 0.62):
        pen.fill(box(x - 0.045, 0.1, x + 0.045, 0.84), scale_colour(pen.main, 0.62), "leg")
    for x in (-0.84, 0.84):
        pen.fill(box(x - 0.06, 0.0, x + 0.06, 0.84), scale_colour(pen.main, 0.84), "leg", "wooden", 0.2)
    pen.fill(box(-0.88, 0.7, 0.88, 0.82), scale_colour(pen.main, 0.74))
    pen.body([(-0.95, 0.82), (0.95, 0.82), (0.86, 1.06), (-0.86, 1.06)], shade=0.12)
    pen.fill(box(-0.95, 0.77, 0.95, 0.83), scale_colour(pen.main, 0.88))


def bed(pen: Pen) -> None:
    frame = pen.part_colour("frame")
    pen.fill(rounded_box(-0.97, 0.0, -0.84, 1.0, 0.05), frame, "frame", "wooden", 0.12)
    pen.fill(rounded_box(0.86, 0.0, 0.97, 0.62, 0.05), frame, "frame", "wooden", 0.12)
    pen.fill(box(-0.9, 0.12, 0.9, 0.3), scale_colour(frame, 0.85), "frame", "wooden", 0.12)
    pen.fill(rounded_box(-0.86, 0.26, 0.88, 0.5, 0.06), PALE, texture="cloth", scale=0.06)
    pen.fill(rounded_box(-0.82, 0.44, -0.4, 0.68, 0.1), (250.0, 250.0, 246.0), "pillow", "cloth", 0.06, 0.2)
    pen.body(rounded_box(-0.42, 0.2, 0.9, 0.6, 0.09), 0.2, "cloth", 0.25)


def bookcase(pen: Pen) -> None:
    rng = random.Random(pen.thing.variant)
    pen.body(box(-0.4, 0.0, 0.4, 1.0), shade=0.1)
    spines = [colour for name, colour in COLOURS.items() if name not in ("white", "gray", "black")]
    for low in (0.06, 0.37, 0.68):
        pen.fill(box(-0.345, low, 0.345, low + 0.26), scale_colour(pen.main, 0.45))
        x = -0.335
        while x < 0.28:
            wide, high = rng.uniform(0.055, 0.09), rng.uniform(0.16, 0.23)
            if rng.random() < 0.9:
                colour = scale_colour(rng.choice(spines), rng.uniform(0.75, 1.0))
                pen.fill(box(x, low, min(x + wide, 0.335), low + high), colour, "book", shade=0.2)
            x += wide + 0.008


def fridge(pen: Pen) -> None:
    pen.body(rounded_box(-0.265, 0.02, 0.265, 1.0, 0.04), 0.3, "metal", 0.22)
    pen.fill(box(-0.265, 0.615, 0.265, 0.635), scale_colour(pen.main, 0.6), shade=0.0)
    for low, high in ((0.4, 0.57), (0.68, 0.82)):
        pen.fill(rounded_box(0.17, low, 0.2, high, 0.015), (92.0, 94.0, 98.0))
    pen.fill(box(-0.16, 0.76, -0.08, 0.86), (250.0, 226.0, 120.0), shade=0.0)
    pen.fill(box(-0.05, 0.72, 0.03, 0.8), (230.0, 130.0, 120.0), shade=0.0)


def stove(pen: Pen) -> None:
    pen.body(rounded_box(-0.46, 0.0, 0.46, 0.95, 0.03), 0.3, "metal", 0.2)
    pen.fill(box(-0.47, 0.93, 0.47, 1.0), (70.0, 72.0, 76.0))
    pen.fill(box(-0.46, 0.74, 0.46, 0.76), scale_colour(pen.main, 0.6), shade=0.0)
    for x in (-0.32, -0.11, 0.11, 0.32):
        pen.fill(ellipse(x, 0.845, 0.05, 0.05), (48.0, 48.0, 52.0) if pen.thing.colour != "black" else METAL)
    pen.fill(rounded_box(-0.36, 0.14, 0.36, 0.58, 0.05), (56.0, 50.0, 52.0), "window", shade=0.4)
    pen.fill(rounded_box(-0.34, 0.64, 0.34, 0.68, 0.02), METAL)


def television(pen: Pen) -> None:
    pen.fill(box(-0.3, 0.0, 0.3, 0.06), (70.0, 70.0, 74.0))
    pen.fill(box(-0.06, 0.04, 0.06, 0.16), (70.0, 70.0, 74.0))
    pen.body(rounded_box(-0.75, 0.13, 0.75, 1.0, 0.04), 0.3, "plain", 0.1)
    pen.fill(box(-0.7, 0.18, 0.7, 0.95), scale_colour(pen.main, 0.9), "body", "screen", 0.3, 0.5)
    pen.fill(stroke([(-0.6, 0.5), (-0.24, 0.9)], 0.08), scale_colour(pen.main, 1.25), "body", shade=0.0)


FIGURES = {
    "bench": bench,
    "sofa": sofa,
    "chair": chair,
    "table": table,
    "bed": bed,
    "bookcase": bookcase,
    "fridge": fridge,
    "stove": stove,
    "television": television,
}
