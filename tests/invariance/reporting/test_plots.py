"""Plots in SVG: lines lie where their values are, text stays text."""

import itertools
import math
import re
import xml.etree.ElementTree as ElementTree

import pytest
from ctinv.invariance.reporting.plots import Axis, Line, line_plot


def drawn(plot, kind="polyline"):
    """The points of each line, in the picture's own units."""
    return [
        [tuple(map(float, point.split(","))) for point in node.get("points").split()]
        for node in ElementTree.fromstring(str(plot)).iter(kind)
    ]


def ticks(plot, axis):
    """Text and place of an axis's ticks."""
    nodes = [n for n in ElementTree.fromstring(str(plot)).iter("text") if n.get("class") is None]
    across = [n for n in nodes if n.get("text-anchor") == "middle"]
    chosen = across if axis == "x" else [n for n in nodes if n not in across]
    return {float(n.text.replace("−", "-")): float(n.get(axis)) - (4 if axis == "y" else 0) for n in chosen}


@pytest.mark.parametrize("log", [False, True])
def test_points_lie_where_the_ticks_say(log):
    points = [(1.0, 10.0), (2.0, 20.0), (5.0, 50.0), (10.0, 100.0)]
    plot = line_plot("t", [Line("a", points)], Axis("x", log=log), Axis("y", log=log))
    (line,) = drawn(plot)
    for axis, place in (("x", 0), ("y", 1)):
        marks = ticks(plot, axis)
        assert len(marks) >= 2
        for point, at in zip(points, line, strict=True):
            if point[place] in marks:
                assert at[place] == pytest.approx(marks[point[place]], abs=0.11)
    assert [a[0] for a in line] == sorted(a[0] for a in line)
    assert [a[1] for a in line] == sorted((a[1] for a in line), reverse=True)
    if not log:
        slopes = {round((b[1] - a[1]) / (b[0] - a[0]), 2) for a, b in itertools.pairwise(line)}
        assert len(slopes) == 1


def test_nothing_lies_outside_the_picture():
    points = [(0.01 * 3**n, 7.0**n) for n in range(7)]
    plot = line_plot("t", [Line("a", points)], Axis("x", log=True), Axis("y", log=True))
    for x, y in drawn(plot)[0]:
        assert 58 <= x <= 406
        assert 12 <= y <= 218


def test_what_cannot_be_drawn_is_left_out():
    points = [(0.0, 1.0), (1.0, math.nan), (2.0, 3.0), (3.0, 4.0)]
    (line,) = drawn(line_plot("t", [Line("a", points)], Axis("x", log=True), Axis("y")))
    assert len(line) == 2
    assert line_plot("t", [Line("a", [(0.0, 1.0)])], Axis("x", log=True), Axis("y")) is None
    assert line_plot("t", [Line("a", []), Line("b", [(1.0, 1.0)], dashed=True)], Axis("x"), Axis("y")) is None


def test_a_single_value_has_an_axis():
    plot = line_plot("t", [Line("a", [(1.0, 5.0), (2.0, 5.0)])], Axis("x"), Axis("y"))
    (line,) = drawn(plot)
    assert all(12 < y < 218 for _, y in line)
    assert len(ticks(plot, "y")) >= 2


def test_names_are_text():
    nasty = '<script>"&'
    plot = str(line_plot(nasty, [Line(nasty, [(1.0, 2.0), (2.0, 3.0)])], Axis(nasty), Axis(nasty)))
    assert "<script" not in plot
    assert plot.count("&lt;script&gt;&#34;&amp;") == 4


def test_dashed_lines_take_no_colour():
    lines = [
        Line("a", [(0, 0), (1, 1)], dashed=True),
        Line("b", [(0, 0), (1, 1)]),
        Line("c", [(0, 0), (1, 2)]),
    ]
    plot = str(line_plot("t", lines, Axis("x"), Axis("y")))
    assert re.findall(r'<polyline class="(\w+)"', plot) == ["dashed", "line0", "line1"]
    assert re.findall(r'<i class="(\w+)"', plot) == ["dashed", "line0", "line1"]
