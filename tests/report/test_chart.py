"""The SVG: well-formed, inside its frame, in the right order."""

import itertools
import math
import re
import xml.etree.ElementTree as ET

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from resd.report.bars import MOST_BARS, stacked_bars, swatch
from resd.report.chart import (
    LINE_OF_TEXT,
    MOST_BOUNDARIES,
    MOST_MARKERS,
    MOST_POINTS,
    SMALL,
    WIDE,
    Frame,
    Line,
    labelled,
    line_chart,
    spread_out,
    thinned,
)

BOTTOM = SMALL.height - SMALL.bottom


def places(chart: str) -> list[tuple[float, float]]:
    points = ET.fromstring(chart).findall("polyline")[0].attrib["points"]
    return [(float(x), float(y)) for x, y in (pair.split(",") for pair in points.split())]


@example([0.0, 5e-324])
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30))
def test_points_are_in_the_frame_and_in_order(values: list[float]) -> None:
    points = tuple((float(step), value) for step, value in enumerate(values, start=1))
    chart = line_chart("t", "u", [Line("a", points)], Frame(len(values)))
    drawn = places(chart)
    assert all(SMALL.left <= x <= SMALL.width - SMALL.right and SMALL.top <= y <= BOTTOM for x, y in drawn)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)
    by_value = [y for _, (_, y) in sorted(zip(values, drawn, strict=True), key=lambda pair: pair[0])]
    assert by_value == sorted(by_value, reverse=True)


def test_zeros_lie_on_the_bottom() -> None:
    for values in ((0.0,), (0.0, 0.0)):
        points = tuple((float(step), value) for step, value in enumerate(values))
        drawn = places(line_chart("t", "u", [Line("a", points)], Frame(2)))
        assert {y for _, y in drawn} == {BOTTOM}


def test_labels_are_escaped() -> None:
    line = Line("<b>&", ((1.0, 1.0),))
    for chart in (
        line_chart("<i>", "<u>", [line], Frame(1)),
        stacked_bars("<i>", "<u>", [line], Frame(1), 1.0),
    ):
        assert not re.search("<[biu]>", chart)
        ET.fromstring(chart)


def test_batches_and_markers_are_left_out_when_there_are_too_many() -> None:
    few, many = 5, max(MOST_MARKERS, MOST_BOUNDARIES) + 1
    for count, marked in ((few, few), (many, 0)):
        points = tuple((float(i), 1.0) for i in range(1, count + 1))
        chart = line_chart(
            "t", "u", [Line("a", points)], Frame(count, boundaries=[i + 0.5 for i in range(1, count + 2)])
        )
        tree = ET.fromstring(chart)
        assert len(tree.findall("circle")) == marked
        batches = [line for line in tree.findall("line") if line.attrib["class"] == "batch"]
        assert bool(batches) == bool(marked)


def test_bars_stack_to_the_sum_and_share_when_there_are_many() -> None:
    parts = [Line("a", ((1.0, 1.0), (2.0, 2.0))), Line("b", ((1.0, 3.0), (2.0, 2.0)), 1)]
    bars = ET.fromstring(stacked_bars("t", "s", parts, Frame(2), 4.0)).findall("rect")
    heights = [float(bar.attrib["height"]) for bar in bars]
    assert heights[0] + heights[1] == heights[2] + heights[3] == BOTTOM - SMALL.top
    assert [float(bar.attrib["y"]) for bar in bars][1] == SMALL.top
    many = Line("a", tuple((float(i), 1.0) for i in range(1, 1001)))
    bars = ET.fromstring(stacked_bars("t", "s", [many], Frame(1000), 1.0)).findall("rect")
    assert 0 < len(bars) <= MOST_BARS


@given(st.lists(st.floats(-10, 10), min_size=1, max_size=1000))
def test_long_curves_are_thinned_to_means(values: list[float]) -> None:
    points = tuple((float(i), value) for i, value in enumerate(values))
    whole = len(values) // 2 or None
    thin = thinned(Line("a", points, 0, [1.0] * len(values), whole))
    assert len(thin.points) == len(thin.errors) <= MOST_POINTS
    assert (thin.points == points) == (len(points) <= MOST_POINTS)
    size = math.ceil(len(points) / MOST_POINTS)
    assert thin.points[0][1] == pytest.approx(sum(values[:size]) / size)
    assert points[0][0] <= thin.points[0][0] <= thin.points[-1][0] <= points[-1][0]
    assert thin.whole is None or 0 < thin.whole <= len(thin.points)


def test_a_band_is_as_high_as_its_errors() -> None:
    line = Line("a", ((0.0, 1.0), (1.0, 2.0)), errors=[0.5, 1.0])
    tree = ET.fromstring(line_chart("t", "u", [line], Frame(1)))
    (band,) = tree.findall("polygon")
    left_up, right_up, right_down, left_down = (
        float(pair.split(",")[1]) for pair in band.attrib["points"].split()
    )
    assert right_down - right_up == pytest.approx(2 * (left_down - left_up), abs=0.3)
    assert "± 0.5" in str(ET.tostring(tree), "utf-8").replace("&#177;", "±")


def test_where_seeds_are_missing_the_curve_is_dotted() -> None:
    line = Line("a", tuple((float(i), 1.0) for i in range(5)), whole=3)
    solid, dotted = ET.fromstring(line_chart("t", "u", [line], Frame(4))).findall("polyline")
    assert (len(solid.attrib["points"].split()), solid.attrib["class"]) == (3, "line0")
    assert (len(dotted.attrib["points"].split()), dotted.attrib["class"]) == (3, "line0 partial")


@given(st.lists(st.floats(0, 200), min_size=1, max_size=8))
def test_labels_do_not_overlap_and_keep_their_order(heights: list[float]) -> None:
    moved = spread_out(heights, LINE_OF_TEXT, 0, 200)
    ordered = sorted(moved)
    assert all(b - a >= LINE_OF_TEXT - 1e-6 for a, b in itertools.pairwise(ordered))
    assert ordered[-1] <= 200
    pairs = sorted(zip(heights, moved, strict=True))
    assert [m for _, m in pairs] == ordered
    if all(abs(a - b) >= LINE_OF_TEXT for i, a in enumerate(heights) for b in heights[:i]):
        assert moved == heights


def test_curves_are_named_at_their_ends_where_there_is_room() -> None:
    short, long = [Line("RESD", ((0.0, 1.0),)), Line("SDPO", ((0.0, 1.0),))], Line("x" * 40, ((0.0, 1.0),))
    assert labelled(short, SMALL)
    assert not labelled(short[:1], SMALL)
    assert not labelled([*short, long], WIDE)
    names = ET.fromstring(line_chart("t", "u", short, Frame(1))).findall("text")
    assert [t.text for t in names if "name" in t.attrib["class"]] == ["RESD", "SDPO"]


def test_swatches() -> None:
    assert 'class="fill1"' in swatch(1)
    assert 'class="share3"' in swatch(3, kind="share")
    assert 'class="line2 again"' in swatch(10, kind="line")
