"""Charts: where ticks stand, what a gap does, and that every chart is well-formed SVG."""

import math
from itertools import pairwise
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tavq.report.html.charts import (
    COLOURS,
    COLUMNS,
    Axis,
    Line,
    choose_log_ticks,
    choose_ticks,
    format_tick,
    histogram,
    line_chart,
)

SCRIPT = "<script>alert(\"1\")</script> & 'x'"


def texts(svg: str) -> list[str]:
    return [part.text or "" for part in ElementTree.fromstring(svg).iter("text")]


def test_ticks_are_round_and_stand_inside() -> None:
    assert choose_ticks(0, 10) == [0, 2, 4, 6, 8, 10]
    assert choose_ticks(0.13, 0.52, 4) == pytest.approx([0.2, 0.3, 0.4, 0.5])
    assert choose_ticks(-3, 3, 3) == [-2, 0, 2]
    assert choose_ticks(5, 5) == [5]
    assert choose_ticks(1, 400402, 2) == [200000, 400000]  # no multiple of 500,000 lies inside
    assert choose_ticks(1.1, 1.9, 4) == pytest.approx([1.2, 1.4, 1.6, 1.8])


@given(st.floats(-1e6, 1e6), st.floats(1e-3, 1e6), st.integers(2, 8))
@settings(max_examples=300, deadline=None)
def test_ticks_of_any_range_are_few_even_and_inside(low: float, width: float, count: int) -> None:
    found = choose_ticks(low, low + width, count)
    assert 1 <= len(found) <= count + 1
    assert all(low - 1e-6 * width <= value <= low + width * (1 + 1e-6) for value in found)
    steps = {round((b - a) / width, 6) for a, b in pairwise(found)}
    assert len(steps) <= 1


def test_logarithmic_ticks() -> None:
    assert choose_log_ticks(1, 1e6) == [1, 10, 100, 1e3, 1e4, 1e5, 1e6]
    assert choose_log_ticks(1, 60) == [1, 2, 5, 10, 20, 50]
    assert choose_log_ticks(0.01, 0.1) == pytest.approx([0.01, 0.02, 0.05, 0.1])
    assert len(choose_log_ticks(2.05, 4.6)) >= 2  # no power of ten in it, nor 5 times one


def test_labels_are_short() -> None:
    assert [format_tick(value) for value in (0.05, 0, 12, 1200, 3e6, 2e9, -4500)] == [
        "0.05",
        "0",
        "12",
        "1.2k",
        "3M",
        "2G",
        "-4.5k",
    ]


def test_axes_place_by_hand() -> None:
    assert Axis(0, 10, 100, 200).to_pixel(5) == 150
    assert Axis(1, 100, 0, 80, log=True).to_pixel(10) == pytest.approx(40)


def test_a_gap_breaks_a_curve_and_a_lone_point_is_a_dot() -> None:
    values = [1.0, 2.0, math.nan, 3.0, math.inf, 1.0, 2.0]
    svg = ElementTree.fromstring(line_chart("loss", [Line("loss", list(range(7)), values)]))
    assert [len((part.get("points") or "").split()) for part in svg.iter("polyline")] == [2, 2]
    assert len(list(svg.iter("circle"))) == 1


def test_a_logarithmic_chart_leaves_out_what_has_no_logarithm() -> None:
    svg = ElementTree.fromstring(line_chart("loss", [Line("loss", [0, 1, 2, 3], [0, 1, 10, 1000])], log=True))
    assert [len((part.get("points") or "").split()) for part in svg.iter("polyline")] == [3]


@pytest.mark.parametrize("values", [[], [math.nan], [2.0], [0.0, 0.0], [-1.0, -1.0], [1e-12, 1e12], [3.0, 3.0 + 1e-15]])
@pytest.mark.parametrize("log", [False, True])
def test_any_curve_gives_well_formed_svg_inside_its_frame(values: list[float], log: bool) -> None:
    chart = line_chart("loss", [Line("loss", list(range(len(values))), values)], log=log, alarms=[0.5, 99])
    assert "nan" not in chart.replace("nothing", "")
    svg = ElementTree.fromstring(chart)
    width, height = (float(part) for part in (svg.get("viewBox") or "").split()[2:])
    for line in svg.iter("polyline"):
        for point in (line.get("points") or "").split():
            x, y = (float(part) for part in point.split(","))
            assert 0 <= x <= width
            assert 0 <= y <= height


def test_names_are_escaped_and_stand_in_the_legend() -> None:
    lines = [Line(SCRIPT, [0, 1], [1, 2]), Line("plain", [0, 1], [2, 3])]
    chart = line_chart(SCRIPT, lines, x_label=SCRIPT)
    assert "<script" not in chart
    assert {SCRIPT[:39] + "…" if len(SCRIPT) > 40 else SCRIPT, "plain"} <= set(texts(chart))


def test_a_long_legend_takes_rows_and_the_chart_grows() -> None:
    few, many = ([Line(f"a rather long name {n}", [0, 1], [n, n]) for n in range(count)] for count in (2, 9))
    heights = [
        float((ElementTree.fromstring(line_chart("x", lines)).get("viewBox") or "").split()[3]) for lines in (few, many)
    ]
    assert heights[1] > heights[0] + 30
    dashes = {part.get("stroke-dasharray") for part in ElementTree.fromstring(line_chart("x", many)).iter("polyline")}
    assert len(dashes) == 3  # the ninth repeats a colour, not its dash


def test_a_line_without_a_point_is_not_in_the_legend_and_keeps_the_others_colours() -> None:
    lines = [Line("absent", [], []), Line("there", [0, 1], [1, 2])]
    chart = line_chart("x", lines)
    assert "there" in texts(chart)
    assert "absent" not in texts(chart)
    [curve] = ElementTree.fromstring(chart).iter("polyline")
    assert curve.get("stroke") == COLOURS[1]


def test_names_in_a_legend_do_not_overlap() -> None:
    lines = [Line(name, [0, 1], [1, 2]) for name in ("codebook", "commitment", "codebook/low", "MMMMWWWW")]
    marks = [part for part in ElementTree.fromstring(line_chart("x", lines)).iter("line") if part.get("stroke")]
    starts = [float(part.get("x1") or 0) for part in marks]
    for (a, b), line in zip(pairwise(starts), lines, strict=False):
        assert b < a or b - a >= 25 + 6.9 * len(line.name)  # 12.5 px letters are about 6.9 px wide


def test_bars_are_as_high_as_their_values() -> None:
    svg = ElementTree.fromstring(histogram("counts", [4, 2, 0], "entries"))
    [path] = svg.iter("path")
    bars = (path.get("d") or "").strip("Z").split("Z")
    assert len(bars) == 2  # nothing is drawn for 0
    base = float(bars[0].split("V")[0].split()[1])
    heights = [base - float(bar.split("V")[1].split("H")[0]) for bar in bars]
    assert heights[0] == pytest.approx(2 * heights[1], abs=0.2)


def test_many_bars_are_means_of_neighbours_and_none_is_told() -> None:
    [path] = ElementTree.fromstring(histogram("counts", [1.0] * (3 * COLUMNS), "entries")).iter("path")
    assert (path.get("d") or "").count("Z") == COLUMNS
    assert "nothing was counted" in texts(histogram("counts", [0, 0], "entries", log=True))
    assert "nothing was counted" in texts(histogram("counts", [], "entries"))
