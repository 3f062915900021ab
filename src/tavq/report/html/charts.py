"""Line and bar charts as inline SVG: readable axes, one legend, colours that colour-blind readers can tell apart."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tavq.report.html.markup import Markup, tag

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6D1F", "#444444")
"""Okabe and Ito's palette, its yellow (unreadable on white) and black replaced."""

DASHES = (None, "6 3", "2 2")
"""Lines differ in dash too: one that lies on another is still seen, and no pair repeats within 24 lines."""

ALARM = "#C1121F"
WIDTH, HEIGHT = 540, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 38
COLUMNS = 468
"""Bars that can be told apart: one a pixel."""


@dataclass(frozen=True)
class Line:
    """One curve; points that are not finite are left out and interrupt it."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels, linearly or by their logarithm."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def place(self, value: float) -> float:
        """The pixel of a value."""
        low, high, value = (self._scale(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value


def ticks(low: float, high: float, count: int = 5) -> list[float]:
    """Multiples of 1, 2 or 5 times a power of ten from `low` to `high`: as many as fit, at most `count` + 1."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / (count + 1)))
    found: list[float] = []
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        found = [index * step for index in range(first, last + 1)]
        if len(found) <= count + 1:
            break
    return found


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between `low` and `high`, with 2 and 5 times them where there are few; `ticks` where none fits."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    found = [factor * 10.0**power for power in powers for factor in factors]
    inside = [value for value in found if low * 0.999 <= value <= high * 1.001]
    return inside if len(inside) > 1 else ticks(low, high)


def label(value: float) -> str:
    """A short name of a tick: 0.05, 1.2k, 3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _spread(low: float, high: float, log: bool) -> tuple[float, float]:
    """The range of an axis: never empty, with a little room."""
    if log:
        return (low, high) if high > low else (low / 2, high * 2)
    if high > low:
        room = (high - low) * 0.05
        return low - room if low < 0 or low - room > 0 else 0.0, high + room
    return (low - 1, high + 1) if low <= 0 else (0.0, high * 1.2)


def _number(value: float) -> str:
    return f"{value:.1f}"


def _text(x: float, y: float, text: str, anchor: str = "middle", class_: str = "tick") -> Markup:
    return tag("text", text, x=_number(x), y=_number(y), text_anchor=anchor, class_=class_)


def _rule(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=_number(x1), y1=_number(y1), x2=_number(x2), y2=_number(y2), class_=class_)


def _frame(x: Axis, y: Axis, x_label: str) -> list[Markup]:
    """Grid lines, tick names and the name of the x axis."""
    parts = []
    for value in log_ticks(y.low, y.high) if y.log else ticks(y.low, y.high, 4):
        place = y.place(value)
        parts += [
            _rule(LEFT, place, WIDTH - RIGHT, place, "grid"),
            _text(LEFT - 7, place + 4, label(value), "end"),
        ]
    for value in ticks(x.low, x.high, 6):
        parts.append(_text(x.place(value), HEIGHT - BOTTOM + 16, label(value)))
        parts.append(_rule(x.place(value), HEIGHT - BOTTOM, x.place(value), HEIGHT - BOTTOM + 4, "axis"))
    parts.append(_rule(LEFT, HEIGHT - BOTTOM, WIDTH - RIGHT, HEIGHT - BOTTOM, "axis"))
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 6, x_label))
    return parts


def _svg(title: str, parts: Sequence[Markup], height: float = HEIGHT) -> Markup:
    heading = _text(0, 15, title, "start", "title")
    return tag(
        "svg",
        tag("title", title),
        heading,
        *parts,
        viewBox=f"0 0 {WIDTH} {_number(height)}",
        role="img",
        class_="chart",
    )


def line_chart(
    title: str, lines: Sequence[Line], x_label: str = "step", log: bool = False, alarms: Sequence[float] = ()
) -> Markup:
    """Curves over one x axis; `alarms` are x values marked by red lines.

    With `log`, values of 0 or less are left out.
    """
    points = [[(x, y) if _shown(x, y, log) else None for x, y in zip(line.x, line.y, strict=True)] for line in lines]
    flat = [point for curve in points for point in curve if point is not None]
    if not flat:
        return _svg(title, [_text(WIDTH / 2, HEIGHT / 2, "nothing was logged")])
    xs, ys = zip(*flat, strict=True)
    low, high = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    x = Axis(low, high, LEFT, WIDTH - RIGHT)
    y = Axis(*_spread(min(ys), max(ys), log), HEIGHT - BOTTOM, TOP, log)
    drawn = [place for place, curve in enumerate(points) if any(curve)]
    legend = [] if len(lines) == 1 else _legend([line.name for line in lines], drawn)
    marks = [_rule(x.place(at), TOP, x.place(at), HEIGHT - BOTTOM, "alarm") for at in alarms if low <= at <= high]
    curves = [curve for index, found in enumerate(points) for curve in _curve(found, x, y, index)]
    height = HEIGHT + 18 * _legend_rows([lines[place].name for place in drawn]) if legend else HEIGHT
    return _svg(title, [*_frame(x, y, x_label), *marks, *curves, *legend], height)


def _shown(x: float, y: float, log: bool) -> bool:
    return math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)


def _curve(points: Sequence[tuple[float, float] | None], x: Axis, y: Axis, index: int) -> list[Markup]:
    """One curve, broken where a point is missing; a point that stands alone is a dot."""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    parts: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            parts.append([])
        else:
            parts[-1].append((x.place(point[0]), y.place(point[1])))
    found = []
    for part in parts:
        if len(part) == 1:
            found.append(tag("circle", cx=_number(part[0][0]), cy=_number(part[0][1]), r=3, fill=colour))
        elif part:
            path = " ".join(f"{_number(a)},{_number(b)}" for a, b in part)
            found.append(tag("polyline", points=path, class_="curve", stroke=colour, stroke_dasharray=dash))
    return found


def _legend_places(names: Sequence[str]) -> list[tuple[float, int]]:
    """Where each name begins (pixel, row): side by side as far as they fit."""
    places, across, row = [], float(LEFT), 0
    for name in names:
        width = 42 + 7.2 * min(len(name), 40)
        if across + width > WIDTH and across > LEFT:
            across, row = float(LEFT), row + 1
        places.append((across, row))
        across += width
    return places


def _legend_rows(names: Sequence[str]) -> int:
    return _legend_places(names)[-1][1] + 1


def _legend(names: Sequence[str], drawn: Sequence[int]) -> list[Markup]:
    """The names of the lines that have a point."""
    parts = []
    for index, (across, row) in zip(drawn, _legend_places([names[place] for place in drawn]), strict=True):
        name, height = names[index], HEIGHT + 10 + 18 * row
        stroke = {"stroke": COLOURS[index % len(COLOURS)], "stroke_dasharray": DASHES[index % len(DASHES)]}
        parts.append(tag("line", x1=across, x2=across + 20, y1=height, y2=height, class_="curve", **stroke))
        parts.append(_text(across + 25, height + 4, name if len(name) <= 40 else name[:39] + "…", "start", "legend"))
    return parts


def histogram(title: str, values: Sequence[float], x_label: str, log: bool = False, colour: int = 0) -> Markup:
    """Bars from left to right in the order given; more than `COLUMNS` are drawn as means of neighbours.

    With `log`, bars of 0 are not drawn.
    """
    heights = _columns(values)
    shown = [value for value in heights if value > 0]
    if not shown:
        return _svg(title, [_text(WIDTH / 2, HEIGHT / 2, "nothing was counted")])
    x = Axis(0, len(values), LEFT, WIDTH - RIGHT)
    y = Axis(min(shown) / 1.5 if log else 0.0, max(shown) * (1.5 if log else 1.05), HEIGHT - BOTTOM, TOP, log)
    edges = [x.place(len(values) * column / len(heights)) for column in range(len(heights) + 1)]
    path = "".join(
        f"M{edges[column]:.2f} {HEIGHT - BOTTOM}V{y.place(value):.1f}H{edges[column + 1]:.2f}V{HEIGHT - BOTTOM}Z"
        for column, value in enumerate(heights)
        if value > 0
    )
    return _svg(title, [*_frame(x, y, x_label), tag("path", d=path, fill=COLOURS[colour % len(COLOURS)])])


def _columns(values: Sequence[float]) -> list[float]:
    """At most `COLUMNS` means of neighbouring values."""
    count = min(len(values), COLUMNS)
    edges = [len(values) * column // count for column in range(count + 1)] if count else [0]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]
