"""Toys, household things and street furniture."""

import math

from tavq.scenes.colours import RGB, mix_colours, scale_colour
from tavq.scenes.figures.animals import DARK
from tavq.scenes.shapes import Pen, arc, blob, box, ellipse, rounded_box, stroke

WHITE: RGB = (255.0, 255.0, 255.0)
LEAF: RGB = (66.0, 150.0, 66.0)
METAL: RGB = (120.0, 122.0, 128.0)


def balloon(pen: Pen) -> None:
    pen.fill(
        stroke([(0, 0.44), (0.03, 0.3), (-0.03, 0.14), (0.0, 0.0)], 0.022), (120.0, 112.0, 106.0), "string", shade=0.0
    )
    pen.fill([(-0.05, 0.38), (0.05, 0.38), (0, 0.45)], scale_colour(pen.main, 0.75))
    pen.body(ellipse(0, 0.71, 0.26, 0.29), 0.2, "gloss", 0.34)
    pen.fill(ellipse(-0.1 * pen.thing.facing, 0.82, 0.05, 0.075), mix_colours(pen.main, WHITE, 0.65), shade=0.0)


def kite(pen: Pen) -> None:
    pen.fill(stroke([(0, 0.36), (0.05, 0.26), (-0.05, 0.14), (0.02, 0.0)], 0.025), METAL, "tail", shade=0.0)
    for x, y in ((0.04, 0.26), (-0.04, 0.14), (0.02, 0.03)):
        bow = [(x - 0.07, y + 0.035), (x + 0.07, y - 0.035), (x + 0.07, y + 0.035), (x - 0.07, y - 0.035)]
        pen.fill(bow, scale_colour(pen.main, 0.85))
    pen.body([(0, 0.34), (0.33, 0.74), (0, 1.0), (-0.33, 0.74)], 0.26, "cloth", 0.2, angle=45.0)
    pen.fill(stroke([(0, 0.34), (0, 1.0)], 0.022), scale_colour(pen.main, 0.55), shade=0.0)
    pen.fill(stroke([(-0.33, 0.74), (0.33, 0.74)], 0.022), scale_colour(pen.main, 0.55), shade=0.0)


def ball(pen: Pen) -> None:
    pen.body(ellipse(0, 0.5, 0.5, 0.5), 0.42, "gloss", 0.42, angle=20.0)


def bucket(pen: Pen) -> None:
    pen.fill(stroke(arc(0, 0.72, 0.4, 0.28, 0, 180), 0.05), METAL, "handle", shade=0.0)
    pen.body([(-0.3, 0), (0.3, 0), (0.44, 0.7), (-0.44, 0.7)], 0.3, "plain", 0.35)
    pen.fill(ellipse(0, 0.7, 0.45, 0.1), scale_colour(pen.main, 0.6))
    pen.fill(ellipse(0, 0.68, 0.38, 0.065), scale_colour(pen.main, 0.4))


def umbrella(pen: Pen) -> None:
    pen.fill(stroke([(0, 0), (0, 0.98)], 0.035), (236.0, 230.0, 220.0), "pole", shade=0.2)
    scallops = [point for step in range(6) for point in arc(0.4 - 0.16 * step, 0.56, 0.08, 0.045, 0, 180, 5)]
    pen.body([*arc(0, 0.56, 0.48, 0.4, 180, 0), *scallops], 0.24, "cloth", 0.3)
    pen.fill(ellipse(0, 0.975, 0.025, 0.03), scale_colour(pen.main, 0.7))


def lamppost(pen: Pen) -> None:
    pen.body(box(-0.022, 0.05, 0.022, 0.8), shade=0.2)
    pen.body([(-0.08, 0), (0.08, 0), (0.045, 0.07), (-0.045, 0.07)], shade=0.2)
    pen.body(box(-0.05, 0.775, 0.05, 0.8), shade=0.1)
    pen.fill([(-0.05, 0.8), (0.05, 0.8), (0.08, 0.94), (-0.08, 0.94)], pen.part_colour("lantern"), "lantern", glow=True)
    pen.body([(-0.1, 0.935), (0.1, 0.935), (0.0, 1.0)], shade=0.2)


def mailbox(pen: Pen) -> None:
    pen.fill(box(-0.05, 0, 0.05, 0.55), (118.0, 84.0, 56.0), "post", "wooden", 0.1)
    pen.body([(-0.33, 0.5), (0.33, 0.5), (0.33, 0.8), *arc(0.0, 0.8, 0.33, 0.2, 0, 180)], 0.3, "metal", 0.25)
    pen.fill(rounded_box(-0.2, 0.7, 0.2, 0.76, 0.02), DARK, "slot", shade=0.0)
    pen.fill(box(0.3, 0.72, 0.36, 0.98), scale_colour(pen.main, 0.55))


def lamp(pen: Pen) -> None:
    stand: RGB = (150.0, 116.0, 70.0)
    pen.fill(rounded_box(-0.17, 0.0, 0.17, 0.07, 0.03), stand)
    pen.fill(box(-0.03, 0.05, 0.03, 0.56), stand, "stand", shade=0.2)
    pen.body([(-0.33, 0.5), (0.33, 0.5), (0.18, 1.0), (-0.18, 1.0)], 0.2, "cloth", 0.16)


def plant(pen: Pen) -> None:
    seed = pen.thing.variant
    for angle, length in ((160, 0.42), (132, 0.5), (108, 0.58), (84, 0.6), (60, 0.54), (36, 0.48), (14, 0.38)):
        turn = math.radians(angle + (seed >> 3) % 9 - 4)
        tip = (length * math.cos(turn) * 0.85, 0.36 + length * math.sin(turn))
        side = (-0.075 * math.sin(turn), 0.075 * math.cos(turn))
        middle = (0.55 * tip[0], 0.36 + 0.6 * (tip[1] - 0.36))
        leaf = [(0, 0.36), (middle[0] + side[0], middle[1] + side[1]), tip, (middle[0] - side[0], middle[1] - side[1])]
        pen.body(leaf, 0.08, "needles", 0.3)
    pot = pen.part_colour("pot")
    pen.fill([(-0.15, 0), (0.15, 0), (0.2, 0.34), (-0.2, 0.34)], pot, "pot", shade=0.25)
    pen.fill(box(-0.22, 0.32, 0.22, 0.39), scale_colour(pot, 0.88), "pot", shade=0.2)


def vase(pen: Pen) -> None:
    profile = ((0.13, 0), (0.22, 0.16), (0.27, 0.36), (0.22, 0.56), (0.1, 0.74), (0.09, 0.86), (0.16, 1.0))
    pen.body([*profile, *[(-x, y) for x, y in reversed(profile)]], 0.24, "gloss", 0.4)
    pen.fill(ellipse(0, 0.985, 0.15, 0.03), scale_colour(pen.main, 0.5))


def cup(pen: Pen) -> None:
    pen.fill(stroke(arc(0.36, 0.5, 0.2, 0.24, -90, 90), 0.09), scale_colour(pen.main, 0.9), "handle")
    pen.body([(-0.32, 0), (0.3, 0), (0.4, 0.96), (-0.42, 0.96)], 0.34, "gloss", 0.35)
    pen.fill(ellipse(-0.01, 0.95, 0.41, 0.09), mix_colours(pen.main, WHITE, 0.35))
    pen.fill(ellipse(-0.01, 0.935, 0.35, 0.06), (96.0, 60.0, 40.0), shade=0.0)


def bowl(pen: Pen) -> None:
    for x, y, colour in (
        (-0.3, 0.62, (226.0, 60.0, 48.0)),
        (0.32, 0.62, (246.0, 150.0, 40.0)),
        (0.02, 0.72, (140.0, 190.0, 60.0)),
    ):
        pen.fill(ellipse(x, y, 0.26, 0.26), colour, "fruit", shade=0.35)
    pen.body(arc(0, 0.56, 0.72, 0.56, 180, 360), 0.3, "gloss", 0.35)
    pen.fill(box(-0.73, 0.53, 0.73, 0.6), scale_colour(pen.main, 0.82))
    pen.fill(box(-0.25, 0.0, 0.25, 0.05), scale_colour(pen.main, 0.7))


def apple(pen: Pen) -> None:
    pen.body(ellipse(-0.16, 0.42, 0.31, 0.42), 0.3, "gloss", 0.3)
    pen.body(ellipse(0.16, 0.42, 0.31, 0.42), 0.3, "gloss", 0.3)
    pen.fill(stroke([(0, 0.74), (0.04, 0.95)], 0.06), (96.0, 64.0, 40.0), shade=0.0)
    pen.fill(
        [(0.04, 0.86), (0.2, 0.98), (0.32, 0.9), (0.18, 0.8)],
        LEAF if pen.thing.colour != "green" else (44.0, 104.0, 44.0),
    )


def cake(pen: Pen) -> None:
    pen.fill(ellipse(0, 0.06, 0.64, 0.06), (224.0, 224.0, 226.0))
    pen.fill(box(-0.5, 0.06, 0.5, 0.32), (204.0, 152.0, 96.0), "cake", "sponge", 0.08)
    pen.body(rounded_box(-0.52, 0.24, 0.52, 0.62, 0.06), 0.1, "plain", 0.25)
    for step in range(5):
        pen.body(ellipse(-0.4 + 0.2 * step, 0.26, 0.09, 0.09), 0.1, "plain", 0.1)
    for x in (-0.28, 0.0, 0.28):
        pen.fill(box(x - 0.035, 0.6, x + 0.035, 0.84), (120.0, 170.0, 220.0), "candle", shade=0.0)
        pen.fill(ellipse(x, 0.91, 0.05, 0.09), (255.0, 200.0, 70.0), "flame", shade=0.0, glow=True)


def book(pen: Pen) -> None:
    pen.fill(
        [(-0.66, 0.12), (0.7, 0.12), (0.7, 0.46), (-0.66, 0.46)], (246.0, 240.0, 224.0), "pages", "pages", 0.1, 0.1
    )
    pen.body([(-0.74, 0.4), (0.74, 0.4), (0.56, 1.0), (-0.56, 1.0)], 0.3, "plain", 0.16)
    pen.body(box(-0.74, 0.0, 0.74, 0.14), 0.3, "plain", 0.1)
    pen.body(rounded_box(-0.76, 0.0, -0.62, 0.52, 0.06), 0.3, "plain", 0.1)
    pen.fill([(-0.3, 0.66), (0.3, 0.66), (0.26, 0.8), (-0.26, 0.8)], mix_colours(pen.main, WHITE, 0.6), shade=0.0)


def teddy(pen: Pen) -> None:
    light = mix_colours(pen.main, WHITE, 0.45)
    for side in (-1, 1):
        pen.body(ellipse(side * 0.22, 0.86, 0.11, 0.11), 0.1, "fur", 0.2)
        pen.fill(ellipse(side * 0.22, 0.86, 0.06, 0.06), light)
        pen.body(ellipse(side * 0.3, 0.36, 0.1, 0.18), 0.1, "fur", 0.2)
    pen.body(ellipse(0, 0.32, 0.27, 0.3), 0.1, "fur", 0.25)
    pen.fill(ellipse(0, 0.3, 0.15, 0.17), light, "belly", "fur", 0.1)
    for side in (-1, 1):
        pen.body(ellipse(side * 0.24, 0.11, 0.15, 0.12), 0.1, "fur", 0.2)
        pen.fill(ellipse(side * 0.26, 0.1, 0.08, 0.07), light)
    pen.body(ellipse(0, 0.7, 0.26, 0.22), 0.1, "fur", 0.25)
    pen.fill(ellipse(0, 0.63, 0.12, 0.09), light)
    pen.fill(ellipse(0, 0.665, 0.045, 0.035), DARK, shade=0.0)
    for side in (-1, 1):
        pen.fill(ellipse(side * 0.1, 0.75, 0.032, 0.035), DARK, shade=0.0)


def box_(pen: Pen) -> None:
    pen.body(box(-0.52, 0.0, 0.52, 0.82), 0.3, "cardboard", 0.15)
    pen.body([(-0.52, 0.82), (0.52, 0.82), (0.42, 1.0), (-0.42, 1.0)], 0.3, "cardboard", 0.05)
    pen.fill(box(-0.52, 0.8, 0.52, 0.83), scale_colour(pen.main, 0.7), shade=0.0)
    pen.fill(box(-0.07, 0.0, 0.07, 0.82), scale_colour(pen.main, 0.78), "tape", shade=0.0)


def clock(pen: Pen) -> None:
    pen.body(ellipse(0, 0.5, 0.5, 0.5), 0.3, "plain", 0.3)
    pen.fill(ellipse(0, 0.5, 0.37, 0.37), (250.0, 248.0, 240.0), "face", shade=0.08)
    for step in range(12):
        turn = math.radians(30 * step)
        ends = [
            (0.29 * math.cos(turn), 0.5 + 0.29 * math.sin(turn)),
            (0.35 * math.cos(turn), 0.5 + 0.35 * math.sin(turn)),
        ]
        pen.fill(stroke(ends, 0.03), DARK, shade=0.0)
    hour = math.radians(pen.thing.variant % 12 * 30)
    minute = math.radians(pen.thing.variant // 12 % 12 * 30)
    pen.fill(stroke([(0, 0.5), (0.19 * math.cos(hour), 0.5 + 0.19 * math.sin(hour))], 0.055), DARK, "hand", shade=0.0)
    pen.fill(
        stroke([(0, 0.5), (0.27 * math.cos(minute), 0.5 + 0.27 * math.sin(minute))], 0.035), DARK, "hand", shade=0.0
    )


def framed_picture(pen: Pen) -> None:
    pen.body(box(-0.62, 0.0, 0.62, 1.0), 0.15, "plain", 0.2)
    pen.fill(box(-0.5, 0.12, 0.5, 0.88), (168.0, 208.0, 236.0), shade=0.1)
    pen.fill(ellipse(0.28, 0.7, 0.08, 0.08), (250.0, 220.0, 110.0), shade=0.0)
    pen.fill(
        [(-0.5, 0.12), (-0.5, 0.4), (-0.2, 0.66), (0.08, 0.38), (0.26, 0.5), (0.5, 0.34), (0.5, 0.12)],
        (120.0, 134.0, 160.0),
    )
    pen.fill(box(-0.5, 0.12, 0.5, 0.3), (106.0, 168.0, 84.0), texture="grass", scale=0.1)
    pen.fill(blob(-0.26, 0.36, 0.1, 0.1, 3, 6), (58.0, 120.0, 58.0), shade=0.3)


FIGURES = {
    "balloon": balloon,
    "kite": kite,
    "ball": ball,
    "bucket": bucket,
    "umbrella": umbrella,
    "lamppost": lamppost,
    "mailbox": mailbox,
    "lamp": lamp,
    "plant": plant,
    "vase": vase,
    "cup": cup,
    "bowl": bowl,
    "apple": apple,
    "cake": cake,
    "book": book,
    "teddy": teddy,
    "box": box_,
    "clock": clock,
    "picture": framed_picture,
}
