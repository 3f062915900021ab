"""Animals, seen from the side and facing right unless mirrored."""

from tavq.scenes.colours import RGB, mix_colours, scale_colour
from tavq.scenes.shapes import Pen, arc, blob, ellipse, rounded_box, stroke

DARK: RGB = (40.0, 34.0, 34.0)
PINK: RGB = (232.0, 150.0, 150.0)
PALE: RGB = (250.0, 246.0, 238.0)


def eye(pen: Pen, x: float, y: float, r: float = 0.03) -> None:
    """A dark eye, ringed with white on a dark coat."""
    if pen.thing.colour == "black":
        pen.fill(ellipse(x, y, r * 1.5, r * 1.5), (236.0, 214.0, 110.0))
    pen.fill(ellipse(x, y, r, r), DARK, shade=0.0)


def cat(pen: Pen) -> None:
    if pen.thing.pose == "lying":
        _lying_cat(pen)
        return
    shadow = scale_colour(pen.main, 0.85)
    pen.fill(stroke([(-0.2, 0.08), (-0.38, 0.12), (-0.44, 0.32), (-0.36, 0.44)], 0.085), shadow, "tail", "fur", 0.08)
    pen.body(arc(-0.02, 0.0, 0.28, 0.62, 0, 180), 0.2, "fur", 0.22, angle=90.0)
    pen.body(rounded_box(-0.28, 0.0, 0.26, 0.16, 0.08), 0.2, "fur", 0.1, angle=90.0)
    for x in (0.04, 0.17):
        pen.fill(
            rounded_box(x - 0.055, 0.0, x + 0.055, 0.3, 0.05),
            mix_colours(pen.main, PALE, 0.15),
            texture="fur",
            scale=0.08,
        )
    _cat_head(pen, 0.1, 0.7)


def _cat_head(pen: Pen, x: float, y: float) -> None:
    for side in (-1, 1):
        pen.body(
            [(x + side * 0.22, y + 0.04), (x + side * 0.05, y + 0.17), (x + side * 0.19, y + 0.3)], 0.2, "fur", 0.1
        )
        pen.fill([(x + side * 0.18, y + 0.1), (x + side * 0.1, y + 0.16), (x + side * 0.165, y + 0.24)], PINK)
    pen.body(ellipse(x, y, 0.235, 0.2), 0.18, "fur", 0.2)
    pen.fill(ellipse(x, y - 0.085, 0.1, 0.07), PALE, shade=0.05)
    for side in (-1, 1):
        pen.fill(ellipse(x + side * 0.09, y + 0.03, 0.045, 0.05), (170.0, 205.0, 90.0), shade=0.0)
        pen.fill(ellipse(x + side * 0.09, y + 0.03, 0.02, 0.045), DARK, shade=0.0)
    pen.fill([(x - 0.03, y - 0.05), (x + 0.03, y - 0.05), (x, y - 0.085)], PINK, shade=0.0)


def _lying_cat(pen: Pen) -> None:
    shadow = scale_colour(pen.main, 0.85)
    pen.fill(stroke([(-0.4, 0.12), (-0.56, 0.08), (-0.58, 0.26)], 0.09), shadow, "tail", "fur", 0.08)
    pen.body(arc(-0.1, 0.0, 0.44, 0.5, 0, 180), 0.2, "fur", 0.22)
    pen.fill(rounded_box(0.1, 0.0, 0.5, 0.12, 0.06), mix_colours(pen.main, PALE, 0.15), texture="fur", scale=0.08)
    _cat_head(pen, 0.28, 0.42)


def dog(pen: Pen) -> None:
    main, shadow = pen.main, scale_colour(pen.main, 0.78)
    if pen.thing.pose == "sitting":
        pen.fill(stroke([(-0.24, 0.06), (-0.42, 0.1), (-0.48, 0.22)], 0.075), shadow, "tail", "fur", 0.08)
        pen.body([(-0.3, 0.0), (0.2, 0.0), (0.24, 0.62), (0.02, 0.62), (-0.22, 0.36)], 0.2, "fur", 0.2)
        pen.body(ellipse(-0.14, 0.17, 0.2, 0.18), 0.2, "fur", 0.25)
        pen.fill(rounded_box(0.08, 0.0, 0.2, 0.42, 0.05), scale_colour(main, 0.92), texture="fur", scale=0.08)
        pen.fill(rounded_box(0.1, 0.0, 0.28, 0.08, 0.04), mix_colours(main, PALE, 0.3))
        _dog_head(pen, 0.16, 0.78)
        return
    pen.fill(stroke([(-0.4, 0.5), (-0.52, 0.62), (-0.54, 0.76)], 0.075), main, "tail", "fur", 0.08)
    for x, colour in ((-0.26, shadow), (0.14, shadow), (-0.36, main), (0.24, main)):
        pen.fill(rounded_box(x - 0.055, 0.0, x + 0.055, 0.38, 0.04), colour, texture="fur", scale=0.08)
    pen.body(rounded_box(-0.44, 0.28, 0.34, 0.6, 0.16), 0.2, "fur", 0.25)
    pen.body([(0.1, 0.44), (0.34, 0.4), (0.42, 0.74), (0.2, 0.76)], 0.2, "fur", 0.1)
    _dog_head(pen, 0.34, 0.78)


def _dog_head(pen: Pen, x: float, y: float) -> None:
    main = pen.main
    collar = pen.part_colour("collar")
    pen.fill(stroke([(x - 0.16, y - 0.12), (x + 0.1, y - 0.19)], 0.07), collar, "collar")
    pen.body(ellipse(x, y, 0.18, 0.165), 0.2, "fur", 0.2)
    pen.body(rounded_box(x + 0.04, y - 0.13, x + 0.29, y + 0.03, 0.07), 0.2, "fur", 0.1)
    pen.fill(
        ellipse(x + 0.28, y - 0.02, 0.045, 0.04), DARK if pen.thing.colour != "black" else (90.0, 80.0, 80.0), shade=0.0
    )
    ear = [(x - 0.1, y + 0.14), (x - 0.02, y + 0.1), (x - 0.06, y - 0.16), (x - 0.17, y - 0.14), (x - 0.18, y + 0.04)]
    pen.fill(ear, scale_colour(main, 0.62) if pen.thing.colour != "black" else (70.0, 66.0, 70.0), "ear", "fur", 0.08)
    eye(pen, x + 0.08, y + 0.05, 0.028)


def _legs(pen: Pen, positions: tuple[float, ...], high: float, half: float, hoof: RGB = DARK) -> None:
    for count, x in enumerate(positions):
        colour = scale_colour(pen.main, 0.74 if count < 2 else 0.94)
        pen.fill(rounded_box(x - half, 0.0, x + half, high, 0.03), colour, texture="fur", scale=0.08)
        pen.fill(rounded_box(x - half, 0.0, x + half, 0.065, 0.02), hoof)


def cow(pen: Pen) -> None:
    light: RGB = (230.0, 206.0, 190.0)
    pen.fill(stroke([(-0.58, 0.72), (-0.68, 0.6), (-0.68, 0.34)], 0.04), scale_colour(pen.main, 0.8))
    pen.fill(ellipse(-0.68, 0.31, 0.04, 0.07), DARK)
    _legs(pen, (-0.36, 0.28, -0.5, 0.4), 0.36, 0.055)
    pen.fill(ellipse(-0.3, 0.3, 0.12, 0.08), PINK, "udder")
    pen.body(rounded_box(-0.62, 0.3, 0.5, 0.8, 0.18), 0.36, "fur", 0.25)
    pen.body([(0.3, 0.5), (0.5, 0.5), (0.6, 0.9), (0.42, 0.86)], 0.36, "fur", 0.1)
    for x in (0.44, 0.62):
        pen.fill(stroke([(x, 0.94), (x + 0.03, 1.03)], 0.045), light)
    pen.fill(ellipse(0.38, 0.87, 0.09, 0.045), scale_colour(pen.main, 0.7))
    pen.body([(0.42, 0.96), (0.64, 0.96), (0.72, 0.62), (0.6, 0.56), (0.5, 0.62)], 0.36, "fur", 0.1)
    pen.fill(ellipse(0.66, 0.62, 0.1, 0.09), light, "muzzle")
    eye(pen, 0.58, 0.82, 0.026)


def sheep(pen: Pen) -> None:
    face: RGB = (62.0, 54.0, 52.0)
    for x in (-0.3, 0.2, -0.4, 0.32):
        pen.fill(rounded_box(x - 0.045, 0.0, x + 0.045, 0.36, 0.03), face)
    pen.body(blob(-0.05, 0.58, 0.54, 0.42, pen.thing.variant, 13, 0.12), 0.15, "wool", 0.24)
    pen.fill(ellipse(0.32, 0.66, 0.09, 0.04), scale_colour(face, 1.3))
    pen.fill(rounded_box(0.36, 0.4, 0.6, 0.82, 0.11), face, "face", shade=0.2)
    pen.body(blob(0.44, 0.82, 0.16, 0.11, pen.thing.variant + 1, 8, 0.12), 0.15, "wool", 0.2)
    pen.fill(ellipse(0.51, 0.68, 0.03, 0.035), PALE, shade=0.0)
    pen.fill(ellipse(0.515, 0.68, 0.015, 0.02), DARK, shade=0.0)


def horse(pen: Pen) -> None:
    mane = DARK if pen.thing.colour != "black" else (96.0, 88.0, 84.0)
    tail = [(-0.4, 0.68), (-0.54, 0.6), (-0.58, 0.3), (-0.5, 0.2), (-0.47, 0.5)]
    pen.fill(tail, mane, "tail", "fur", 0.1)
    _legs(pen, (-0.26, 0.16, -0.36, 0.25), 0.44, 0.042)
    pen.body(rounded_box(-0.44, 0.4, 0.34, 0.72, 0.15), 0.3, "fur", 0.3)
    pen.body([(0.12, 0.6), (0.34, 0.5), (0.46, 0.92), (0.3, 0.98)], 0.3, "fur", 0.15)
    pen.fill([(0.02, 0.68), (0.14, 0.66), (0.34, 0.96), (0.36, 1.0), (0.24, 0.98)], mane, "mane", "fur", 0.1)
    pen.body([(0.3, 0.97), (0.42, 0.98), (0.62, 0.76), (0.58, 0.68), (0.5, 0.68), (0.36, 0.8)], 0.3, "fur", 0.1)
    pen.body([(0.34, 0.95), (0.42, 0.95), (0.39, 1.04)], 0.3, "fur", 0.1)
    eye(pen, 0.44, 0.88, 0.02)
    pen.fill(ellipse(0.57, 0.73, 0.018, 0.015), DARK, shade=0.0)


def duck(pen: Pen) -> None:
    pen.body(
        [(-0.6, 0.48), (-0.42, 0.3), (-0.5, 0.02), (0.42, 0.0), (0.56, 0.22), (0.3, 0.46), (-0.2, 0.42)],
        0.2,
        "fur",
        0.2,
    )
    pen.fill(
        [(-0.34, 0.36), (0.2, 0.36), (-0.05, 0.12), (-0.38, 0.14)], scale_colour(pen.main, 0.86), "wing", "fur", 0.1
    )
    pen.body(stroke([(0.36, 0.2), (0.36, 0.7)], 0.24), 0.2, "fur", 0.1)
    pen.body(ellipse(0.38, 0.76, 0.21, 0.21), 0.2, "fur", 0.2)
    pen.fill([(0.54, 0.8), (0.78, 0.7), (0.56, 0.64)], pen.part_colour("beak"), "beak")
    eye(pen, 0.44, 0.82, 0.04)


def bird(pen: Pen) -> None:
    wing = scale_colour(pen.main, 0.75) if pen.thing.colour != "black" else (74.0, 74.0, 82.0)
    if pen.thing.pose == "flying":
        pen.fill([(-0.1, 0.5), (0.3, 0.52), (0.28, 0.98), (0.1, 1.04)], wing, "wing", "fur", 0.1)
        pen.body([(-0.8, 0.5), (-0.36, 0.34), (-0.78, 0.3)], 0.2, "fur", 0.1)
        pen.body(ellipse(0.06, 0.4, 0.5, 0.23), 0.2, "fur", 0.3)
        pen.body(ellipse(0.5, 0.5, 0.2, 0.19), 0.2, "fur", 0.2)
        pen.fill([(-0.22, 0.48), (0.26, 0.5), (-0.1, 1.0), (-0.3, 0.96)], scale_colour(wing, 0.92), "wing", "fur", 0.1)
        pen.fill([(0.67, 0.56), (0.87, 0.47), (0.67, 0.42)], pen.part_colour("beak"), "beak")
        eye(pen, 0.56, 0.54, 0.04)
        return
    for x in (0.0, 0.14):
        pen.fill(stroke([(x, 0.0), (x, 0.2)], 0.05), (120.0, 90.0, 60.0))
    pen.body([(-0.8, 0.2), (-0.2, 0.56), (-0.2, 0.26)], 0.2, "fur", 0.1)
    pen.body(ellipse(0.06, 0.45, 0.42, 0.32), 0.2, "fur", 0.3)
    pen.body(ellipse(0.34, 0.76, 0.24, 0.23), 0.2, "fur", 0.2)
    pen.fill([(-0.34, 0.4), (0.1, 0.66), (0.18, 0.4), (-0.1, 0.24)], wing, "wing", "fur", 0.1)
    pen.fill([(0.55, 0.84), (0.78, 0.74), (0.55, 0.67)], pen.part_colour("beak"), "beak")
    eye(pen, 0.42, 0.82, 0.045)


def butterfly(pen: Pen) -> None:
    for side in (-1, 1):
        pen.body(ellipse(side * 0.32, 0.66, 0.28, 0.32), 0.3, "plain", 0.2)
        pen.body(ellipse(side * 0.25, 0.26, 0.2, 0.24), 0.3, "plain", 0.2)
        pen.fill(stroke([(0, 0.75), (side * 0.14, 1.0)], 0.035), DARK)
    pen.fill(rounded_box(-0.055, 0.12, 0.055, 0.84, 0.05), DARK)


FIGURES = {
    "cat": cat,
    "dog": dog,
    "cow": cow,
    "sheep": sheep,
    "horse": horse,
    "duck": duck,
    "bird": bird,
    "butterfly": butterfly,
}
