"""The SVG: well-formed, inside its frame, in the right order."""

import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resd.report.chart import (
    BOTTOM,
    HEIGHT,
    LEFT,
    MOST_BARS,
    MOST_MARKERS,
    MOST_POINTS,
    RIGHT,
    TOP,
    WIDTH,
    Frame,
    Line,
    line_chart,
    stacked_bars,
    swatch,
    thinned,
)


def places(chart: str) -> list[tuple[float, float]]:
    points = ET.fromstring(chart).findall("polyline")[0].attrib["points"]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


@example([0.0, 5e-324])
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_points_are_in_the_frame_and_in_order(values: list[float]) -> None:
    points = tuple((float(step), value) for step, value in enumerate(values, start=1))
    chart = line_chart("t", "u", [Line("a", points)], Frame(len(values)))
    drawn = places(chart)
    assert all(LEFT <= x <= WIDTH - RIGHT and TOP <= y <= HEIGHT - BOTTOM for x, y in drawn)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    by_value = [y for _, (_, y) in sorted(zip(values, drawn, strict=True), key=lambda pair: pair[0])]
    assert by_value == sorted(by_value, reverse=True)


def test_zeros_lie_on_the_bottom() -> None:
    for values in ((0.0,), (0.0, 0.0)):
        points = tuple((float(step), value) for step, value in enumerate(values))
        drawn = places(line_chart("t", "u", [Line("a", points)], Frame(2)))
        assert {y for _, y in drawn} == {HEIGHT - BOTTOM}


def test_labels_are_escaped() -> None:
    line = Line("<b>&", ((1.0, 1.0),))
    for chart in (
        line_chart("<i>", "<u>", [line], Frame(1)),
        stacked_bars("<i>", "<u>", [line], Frame(1), 1.0),
    ):
        assert not re.search("<[biu]>", chart)
        ET.fromstring(chart)


def test_batches_and_markers_are_left_out_when_there_are_too_many() -> None:
    few, many = 5, MOST_MARKERS + 1
    for count, marked in ((few, few), (many, 0)):
        points = tuple((float(i), 1.0) for i in range(1, count + 1))
        chart = line_chart(
            "t", "u", [Line("a", points)], Frame(count, [i + 0.5 for i in range(1, count + 2)])
        )
        tree = ET.fromstring(chart)
        assert len(tree.findall("circle")) == marked
        batches = [line for line in tree.findall("line") if line.attrib["class"] == "batch"]
        assert bool(batches) == bool(marked)


def test_bars_stack_to_the_sum_and_share_when_there_are_many() -> None:
    parts = [Line("a", ((1.0, 1.0), (2.0, 2.0))), Line("b", ((1.0, 3.0), (2.0, 2.0)), 1)]
    bars = ET.fromstring(stacked_bars("t", "s", parts, Frame(2), 4.0)).findall("rect")
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] + heights[1] == heights[2] + heights[3] == HEIGHT - TOP - BOTTOM
    assert [float(bar.attrib["y"]) for bar in bars][1] == TOP
    many = Line("a", tuple((float(i), 1.0) for i in range(1, 1001)))
    bars = ET.fromstring(stacked_bars("t", "s", [many], Frame(1000), 1.0)).findall("rect")
    assert 0 < len(bars) <= MOST_BARS


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=1000))
def test_long_curves_are_thinned_to_means(values: list[float]) -> None:
    points = tuple((float(i), value) for i, value in enumerate(values))
    thin = thinned(points)
    assert len(thin) <= MOST_POINTS
    assert (thin == points) == (len(points) <= MOST_POINTS)
    size = math.ceil(len(points) / MOST_POINTS)
    assert thin[0][1] == pytest.approx(sum(values[:size]) / size)
    assert points[0][0] <= thin[0][0] <= thin[-1][0] <= points[-1][0]


def test_swatches() -> None:
    assert "fill1" in swatch(Line("a", (), 1), bar=True)
    assert 'class="line2" stroke-dasharray="6 4"' in swatch(Line("a", (), 2, 1))
