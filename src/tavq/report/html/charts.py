"""Line charts, bar charts and heat maps as inline SVG, with colours that colour-blind readers can distinguish."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tavq.report.html.markup import Markup, tag

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#8C6D1F", "#444444")
"""Okabe and Ito's palette, its yellow (unreadable on white) and black replaced."""

DASHES = (None, "6 3", "2 2")
"""Lines also differ in dash: overlapping lines stay visible, and no (colour, dash) pair repeats within 24 lines."""

WIDTH, HEIGHT = 540, 240
LEFT, RIGHT, TOP, BOTTOM = 58, 14, 34, 38
COLUMNS = 468
"""Number of bars that a chart can resolve: one per pixel."""


@dataclass(frozen=True)
class Line:
    """One curve; it breaks at points that are not finite."""

    name: str
    x: Sequence[float]
    y: Sequence[float]


@dataclass(frozen=True)
class Axis:
    """Maps values to pixels on a linear or logarithmic scale."""

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def to_pixel(self, value: float) -> float:
        """The pixel coordinate of a value."""
        low, high, value = (self._scale(v) for v in (self.low, self.high, value))
        return self.start + (value - low) / (high - low) * (self.end - self.start)

    def _scale(self, value: float) -> float:
        return math.log10(value) if self.log else value


def choose_ticks(low: float, high: float, count: int = 5) -> list[float]:
    """At most `count` + 1 round tick values from `low` to `high`, in steps of 1, 2 or 5 times a power of ten."""
    if not high > low:
        return [low]
    power = 10.0 ** math.floor(math.log10((high - low) / (count + 1)))
    values: list[float] = []
    for factor in (1, 2, 5, 10, 20):
        step = factor * power
        first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
        values = [index * step for index in range(first, last + 1)]
        if len(values) <= count + 1:
            break
    return values


def choose_log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten between `low` and `high`, with their 2 and 5 fold if few; linear ticks if fewer than two fit."""
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    factors = (1,) if len(powers) > 4 else (1, 2, 5)
    values = [factor * 10.0**power for power in powers for factor in factors]
    inside = [value for value in values if low * 0.999 <= value <= high * 1.001]
    return inside if len(inside) > 1 else choose_ticks(low, high)


def format_tick(value: float) -> str:
    """A short tick label: 0.05, 1.2k, 3M."""
    for size, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= size:
            return f"{value / size:.4g}{letter}"
    return f"{value:.4g}"


def _pad_range(low: float, high: float, log: bool) -> tuple[float, float]:
    """The range of an axis: never empty, with a margin."""
    if log:
        return (low, high) if high > low else (low / 2, high * 2)
    if high > low:
        margin = (high - low) * 0.05
        bottom = low - margin
        return bottom if low < 0 or bottom > 0 else 0.0, high + margin
    return (low - 1, high + 1) if low <= 0 else (0.0, high * 1.2)


def _number(value: float) -> str:
    return f"{value:.1f}"


def _text(x: float, y: float, text: str, anchor: str = "middle", class_: str = "tick") -> Markup:
    return tag("text", text, x=_number(x), y=_number(y), text_anchor=anchor, class_=class_)


def _rule(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    return tag("line", x1=_number(x1), y1=_number(y1), x2=_number(x2), y2=_number(y2), class_=class_)


def _frame(x: Axis, y: Axis, x_label: str) -> list[Markup]:
    """Grid lines, tick labels and the label of the x axis."""
    parts = []
    for value in choose_log_ticks(y.low, y.high) if y.log else choose_ticks(y.low, y.high, 4):
        height = y.to_pixel(value)
        parts += [
            _rule(LEFT, height, WIDTH - RIGHT, height, "grid"),
            _text(LEFT - 7, height + 4, format_tick(value), "end"),
        ]
    for value in choose_ticks(x.low, x.high, 6):
        parts.append(_text(x.to_pixel(value), HEIGHT - BOTTOM + 16, format_tick(value)))
        parts.append(_rule(x.to_pixel(value), HEIGHT - BOTTOM, x.to_pixel(value), HEIGHT - BOTTOM + 4, "axis"))
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
    """Curves over a shared x axis.

    Args:
        title: of the chart.
        lines: the curves; a legend names them if there are several.
        x_label: of the x axis.
        log: use a logarithmic y axis and omit values of 0 or less.
        alarms: x values to mark with red lines.
    """
    curves = [_mask_points(line, log) for line in lines]
    points = [point for curve in curves for point in curve if point is not None]
    if not points:
        return _svg(title, [_text(WIDTH / 2, HEIGHT / 2, "nothing was logged")])
    xs, ys = zip(*points, strict=True)
    low, high = (min(xs), max(xs)) if max(xs) > min(xs) else (min(xs) - 1, max(xs) + 1)
    x = Axis(low, high, LEFT, WIDTH - RIGHT)
    y = Axis(*_pad_range(min(ys), max(ys), log), HEIGHT - BOTTOM, TOP, log)
    visible = [index for index, curve in enumerate(curves) if any(curve)]
    legend = [] if len(lines) == 1 else _legend([line.name for line in lines], visible)
    shown_alarms = [x.to_pixel(alarm) for alarm in alarms if low <= alarm <= high]
    marks = [_rule(pixel, TOP, pixel, HEIGHT - BOTTOM, "alarm") for pixel in shown_alarms]
    drawn = [part for index, curve in enumerate(curves) for part in _curve(curve, x, y, index)]
    height = HEIGHT + 18 * _count_legend_rows([lines[index].name for index in visible]) if legend else HEIGHT
    return _svg(title, [*_frame(x, y, x_label), *marks, *drawn, *legend], height)


def _mask_points(line: Line, log: bool) -> list[tuple[float, float] | None]:
    """The points of a line, None for those that cannot be drawn."""
    return [(x, y) if _can_draw(x, y, log) else None for x, y in zip(line.x, line.y, strict=True)]


def _can_draw(x: float, y: float, log: bool) -> bool:
    return math.isfinite(x) and math.isfinite(y) and (y > 0 or not log)


def _curve(points: Sequence[tuple[float, float] | None], x: Axis, y: Axis, index: int) -> list[Markup]:
    """One curve, broken where a point is missing; an isolated point is a dot."""
    colour, dash = COLOURS[index % len(COLOURS)], DASHES[index % len(DASHES)]
    segments: list[list[tuple[float, float]]] = [[]]
    for point in points:
        if point is None:
            segments.append([])
        else:
            segments[-1].append((x.to_pixel(point[0]), y.to_pixel(point[1])))
    elements = []
    for segment in segments:
        if len(segment) == 1:
            elements.append(tag("circle", cx=_number(segment[0][0]), cy=_number(segment[0][1]), r=3, fill=colour))
        elif segment:
            path = " ".join(f"{_number(a)},{_number(b)}" for a, b in segment)
            elements.append(tag("polyline", points=path, class_="curve", stroke=colour, stroke_dasharray=dash))
    return elements


def _lay_out_legend(names: Sequence[str]) -> list[tuple[float, int]]:
    """Where each name starts (pixel, row), with line breaks where a row is full."""
    positions, across, row = [], float(LEFT), 0
    for name in names:
        width = 42 + 7.2 * min(len(name), 40)
        if across + width > WIDTH and across > LEFT:
            across, row = float(LEFT), row + 1
        positions.append((across, row))
        across += width
    return positions


def _count_legend_rows(names: Sequence[str]) -> int:
    return _lay_out_legend(names)[-1][1] + 1


def _legend(names: Sequence[str], visible: Sequence[int]) -> list[Markup]:
    """The names of the lines at the indices `visible`."""
    parts = []
    for index, (across, row) in zip(visible, _lay_out_legend([names[index] for index in visible]), strict=True):
        name, height = names[index], HEIGHT + 10 + 18 * row
        stroke = {"stroke": COLOURS[index % len(COLOURS)], "stroke_dasharray": DASHES[index % len(DASHES)]}
        parts.append(tag("line", x1=across, x2=across + 20, y1=height, y2=height, class_="curve", **stroke))
        parts.append(_text(across + 25, height + 4, name if len(name) <= 40 else name[:39] + "…", "start", "legend"))
    return parts


def histogram(title: str, values: Sequence[float], x_label: str, log: bool = False, colour: int = 0) -> Markup:
    """A bar chart of `values` in their order; more than `COLUMNS` are averaged with their neighbours.

    Args:
        title: of the chart.
        values: heights of the bars.
        x_label: of the x axis.
        log: use a logarithmic y axis and omit bars of 0.
        colour: index into `COLOURS`.
    """
    heights = _average_columns(values)
    visible = [value for value in heights if value > 0]
    if not visible:
        return _svg(title, [_text(WIDTH / 2, HEIGHT / 2, "nothing was counted")])
    x = Axis(0, len(values), LEFT, WIDTH - RIGHT)
    bottom, margin = (min(visible) / 1.5, 1.5) if log else (0.0, 1.05)
    y = Axis(bottom, max(visible) * margin, HEIGHT - BOTTOM, TOP, log)
    edges = [x.to_pixel(len(values) * column / len(heights)) for column in range(len(heights) + 1)]
    path = "".join(
        f"M{edges[column]:.2f} {HEIGHT - BOTTOM}V{y.to_pixel(value):.1f}H{edges[column + 1]:.2f}V{HEIGHT - BOTTOM}Z"
        for column, value in enumerate(heights)
        if value > 0
    )
    return _svg(title, [*_frame(x, y, x_label), tag("path", d=path, fill=COLOURS[colour % len(COLOURS)])])


def _average_columns(values: Sequence[float]) -> list[float]:
    """Means of neighbouring values, at most `COLUMNS` of them."""
    count = min(len(values), COLUMNS)
    edges = [len(values) * column // count for column in range(count + 1)] if count else [0]
    return [sum(values[a:b]) / (b - a) for a, b in pairwise(edges)]


CELL = 22
NAMES = 118
"""Height of a heat map's cells, and the width that the names of its rows have."""

LONGEST_NAME = 16


def heat_map(title: str, names: Sequence[str], values: Sequence[Sequence[float]]) -> Markup:
    """A square matrix of values from -1 (orange) over 0 (white) to 1 (blue), with the value in each cell.

    Args:
        title: of the chart.
        names: of the rows, and of the columns in the same order.
        values: the rows; those that are not finite are left white.
    """
    width, bottom = (WIDTH - NAMES) / max(len(names), 1), TOP + CELL * len(names)
    cells, numbers, labels = [], [], []
    for row, (name, own) in enumerate(zip(names, values, strict=True)):
        short = name if len(name) <= LONGEST_NAME else name[: LONGEST_NAME - 1] + "…"
        middle, top = NAMES + (row + 0.5) * width, TOP + row * CELL
        turned = f"translate({_number(middle)} {bottom + 13}) rotate(-30)"
        labels += [_text(NAMES - 7, top + 15, short, "end"), tag("text", short, text_anchor="end", transform=turned)]
        for column, value in enumerate(own):
            x, known = NAMES + column * width, value if math.isfinite(value) else 0.0
            box = {"x": _number(x), "y": top, "width": _number(width), "height": CELL}
            cells.append(tag("rect", fill=_diverging(known), **box))
            ink = "#fff" if abs(known) > 0.6 else None
            shown = f"{value:.2f}".replace("-", "−") if math.isfinite(value) else "–"
            numbers.append(tag("text", shown, x=_number(x + width / 2), y=top + 15, fill=ink))
    groups = [tag("g", *numbers, text_anchor="middle", class_="cells"), tag("g", *labels, class_="tick")]
    return _svg(title, [*cells, *groups], bottom + 64)


def _diverging(value: float) -> str:
    """White at 0, the palette's blue at 1 and its orange at -1."""
    strength = min(abs(value), 1.0)
    end = COLOURS[0] if value >= 0 else COLOURS[1]
    parts = (int(end[start : start + 2], 16) for start in (1, 3, 5))
    return "#" + "".join(f"{round(255 + (part - 255) * strength):02x}" for part in parts)
