"""Man, woman, child and snowman, seen from the front."""

from tavq.scenes.colours import RGB, scale_colour
from tavq.scenes.shapes import Pen, arc, box, ellipse, rounded_box, stroke

SKINS: tuple[RGB, ...] = ((244.0, 205.0, 172.0), (222.0, 172.0, 132.0), (176.0, 122.0, 86.0), (118.0, 78.0, 54.0))
HAIRS: tuple[RGB, ...] = (
    (52.0, 36.0, 30.0),
    (112.0, 68.0, 38.0),
    (214.0, 172.0, 92.0),
    (34.0, 32.0, 34.0),
    (150.0, 78.0, 40.0),
)
SHOE: RGB = (54.0, 44.0, 42.0)


def _face(pen: Pen, y: float, r: float, skin: RGB) -> None:
    pen.fill(box(-r * 0.35, y - r * 1.35, r * 0.35, y - r * 0.6), scale_colour(skin, 0.88))
    pen.fill(ellipse(0, y, r, r * 1.08), skin, "face", shade=0.14)
    for side in (-1, 1):
        pen.fill(ellipse(side * r * 0.38, y + r * 0.05, r * 0.14, r * 0.16), SHOE, shade=0.0)
    pen.fill(arc(0, y - r * 0.3, r * 0.4, r * 0.3, 180, 360), (196.0, 86.0, 84.0), shade=0.0)


def _arms(pen: Pen, shoulder: float, x: float, skin: RGB, width: float, reach: float) -> None:
    """Both arms; the right one is up when the person waves."""
    hands = [(-x - 0.06, shoulder - reach)]
    elbows = [(-x - 0.07, shoulder - reach * 0.5)]
    if pen.thing.pose == "waving":
        hands.append((x + 0.11, shoulder + reach * 0.8))
        elbows.append((x + 0.12, shoulder + reach * 0.1))
    else:
        hands.append((x + 0.06, shoulder - reach))
        elbows.append((x + 0.07, shoulder - reach * 0.5))
    for side, (hand, elbow) in enumerate(zip(hands, elbows, strict=True)):
        start = ((-x if side == 0 else x) * 0.9, shoulder - 0.02)
        pen.fill(stroke([elbow, hand], width * 0.8), skin)
        pen.fill(ellipse(*hand, width * 0.55, width * 0.55), skin)
        pen.body(stroke([start, elbow], width), 0.14, "cloth", 0.1)


def _looks(pen: Pen) -> tuple[RGB, RGB]:
    variant = pen.thing.variant
    return SKINS[variant % len(SKINS)], HAIRS[variant // 7 % len(HAIRS)]


def _dressed(pen: Pen, hip: float, shoulder: float, half: float, head: float) -> None:
    """A person in shirt and trousers."""
    skin, hair = _looks(pen)
    trousers = pen.part_colour("trousers")
    for side in (-1, 1):
        leg = box(min(side * half * 0.9, side * 0.01), 0.04, max(side * half * 0.9, side * 0.01), hip + 0.03)
        pen.fill(leg, trousers if side > 0 else scale_colour(trousers, 0.92), "trousers", "cloth", 0.08)
        pen.fill(rounded_box(side * half * 0.55 - 0.055, 0.0, side * half * 0.55 + 0.055, 0.05, 0.025), SHOE)
    _arms(pen, shoulder, half, skin, half * 0.62, (shoulder - hip) * 1.05)
    pen.body(rounded_box(-half, hip, half, shoulder + 0.02, 0.05), 0.14, "cloth", 0.2, angle=90.0)
    centre = shoulder + head * 1.2
    _face(pen, centre, head, skin)
    cap = [*arc(0, centre + head * 0.1, head * 1.08, head * 1.0, -10, 190), (-head * 0.6, centre + head * 0.42),
           (head * 0.5, centre + head * 0.5)]  # fmt: skip
    pen.fill(cap, hair, "hair", "fur", 0.05)


def man(pen: Pen) -> None:
    _dressed(pen, 0.42, 0.77, 0.125, 0.095)


def child(pen: Pen) -> None:
    _dressed(pen, 0.33, 0.64, 0.13, 0.145)


def woman(pen: Pen) -> None:
    skin, hair = _looks(pen)
    pen.fill(rounded_box(-0.14, 0.62, 0.14, 0.97, 0.12), hair, "hair", "fur", 0.06)
    for side in (-1, 1):
        pen.fill(box(side * 0.055 - 0.03, 0.03, side * 0.055 + 0.03, 0.3), skin)
        pen.fill(rounded_box(side * 0.06 - 0.045, 0.0, side * 0.06 + 0.045, 0.04, 0.02), SHOE)
    _arms(pen, 0.76, 0.1, skin, 0.07, 0.32)
    pen.body(
        [(-0.115, 0.78), (0.115, 0.78), (0.085, 0.56), (0.21, 0.22), (-0.21, 0.22), (-0.085, 0.56)], 0.13, "cloth", 0.2
    )
    _face(pen, 0.885, 0.09, skin)
    fringe = [*arc(0, 0.9, 0.105, 0.1, -5, 185), (-0.06, 0.93), (0.03, 0.955)]
    pen.fill(fringe, hair, "hair", "fur", 0.05)


def snowman(pen: Pen) -> None:
    coal: RGB = (40.0, 40.0, 44.0)
    for side in (-1, 1):
        arm = [(side * 0.18, 0.52), (side * 0.36, 0.64), (side * 0.42, 0.74)]
        pen.fill(stroke(arm, 0.03), (102.0, 66.0, 42.0))
    pen.body(ellipse(0, 0.21, 0.29, 0.23), 0.2, "snow", 0.24)
    pen.body(ellipse(0, 0.5, 0.21, 0.18), 0.2, "snow", 0.24)
    pen.body(ellipse(0, 0.74, 0.155, 0.14), 0.2, "snow", 0.24)
    scarf = pen.part_colour("scarf")
    pen.fill(rounded_box(-0.15, 0.6, 0.15, 0.67, 0.03), scarf, "scarf", "cloth", 0.05)
    pen.fill(box(0.05, 0.44, 0.12, 0.63), scarf, "scarf", "cloth", 0.05)
    for y in (0.56, 0.47, 0.38):
        pen.fill(ellipse(-0.01, y, 0.02, 0.02), coal, shade=0.0)
    for side in (-1, 1):
        pen.fill(ellipse(side * 0.055, 0.78, 0.02, 0.02), coal, shade=0.0)
    pen.fill([(0.0, 0.76), (0.0, 0.71), (0.15, 0.725)], pen.part_colour("nose"), "nose")
    pen.fill(rounded_box(-0.19, 0.845, 0.19, 0.875, 0.015), coal)
    pen.fill(box(-0.115, 0.86, 0.115, 1.0), coal, "hat")


FIGURES = {"man": man, "woman": woman, "child": child, "snowman": snowman}
