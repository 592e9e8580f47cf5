"""Charts as inline SVG: pure functions from numbers to markup. Colours are classes of the style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from markupsafe import Markup

from resd.report.runs import Points
from resd.report.scales import Scale, label, ticks, widen

COLORS = 8  # in the style sheet
# More than this are not drawn one by one.
MOST_BOUNDARIES = 60
MOST_POINTS = 120  # of a curve
MOST_MARKERS = 80  # of all curves of a chart
LINE_OF_TEXT = 14.0
# Lines longer than this share of a chart's width are named in a legend below it.
WIDEST_LABEL = 0.34


@dataclass(frozen=True, slots=True)
class Size:
    """The nominal size of a chart in pixels; the browser scales it a little."""

    width: float
    height: float
    left: float = 44
    right: float = 14
    top: float = 24
    bottom: float = 38


SMALL, WIDE = Size(380, 220), Size(780, 300)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. `color` counts from 0 and repeats.

    `errors` are by point: half the height of the band, 0 for none. From point `whole` on, some of the runs
    that the curve averages are missing: it is dotted there.
    """

    label: str
    points: Points
    color: int = 0
    errors: Sequence[float] = ()
    whole: int | None = None


@dataclass(frozen=True, slots=True)
class Frame:
    """Shared by charts side by side: the horizontal axis, and where batches end on it."""

    last: float
    unit: str = "update"
    boundaries: Sequence[float] = ()

    def x(self, size: Size, first: float = 0.0) -> Scale:
        return Scale(*widen(first, max(self.last, 1e-9)), size.left, size.width - size.right)


def line_chart(title: str, unit: str, lines: Sequence[Line], frame: Frame, size: Size = SMALL) -> Markup:
    """Curves, thinned if they are long, and named at their ends if there is room (`labelled`).

    The vertical axis starts at 0, or at values below.
    """
    named = labelled(lines, size)
    if named:
        size = replace(size, right=max(size.right, 10 + max(text_width(line.label) for line in lines)))
    lines = [thinned(line) for line in lines if line.points]
    ends = [value + sign * e for line in lines for value, e in _with_errors(line) for sign in (-1, 1)]
    x, marks = frame.x(size), axis_marks(min(0.0, *ends, 0.0), max(0.0, *ends, 0.0))
    y = Scale(marks[0], marks[-1], size.height - size.bottom, size.top)
    parts = [*axes(unit, frame, x, y, marks, size), *(_band(line, x, y) for line in lines)]
    marked = sum(len(line.points) for line in lines) <= MOST_MARKERS
    parts += [_curve(line, x, y, frame.unit, marked=marked) for line in lines]
    return svg(title, [*parts, *(_end_labels(lines, x, y) if named else ())], size)


def labelled(lines: Sequence[Line], size: Size) -> bool:
    """Whether the curves are named at their ends: there are several, and the names are short."""
    longest = max((text_width(line.label) for line in lines), default=0.0)
    return 1 < len(lines) <= COLORS and longest <= WIDEST_LABEL * size.width


def thinned(line: Line) -> Line:
    """The line itself, or the means of as many neighbours as leave at most `MOST_POINTS`."""
    size = -(-len(line.points) // MOST_POINTS) or 1
    if size == 1:
        return line
    starts = range(0, len(line.points), size)
    groups = [line.points[i : i + size] for i in starts]
    points = tuple((fmean(x for x, _ in group), fmean(y for _, y in group)) for group in groups)
    errors = [fmean(line.errors[i : i + size]) for i in starts] if line.errors else ()
    return replace(line, points=points, errors=errors, whole=line.whole and -(-line.whole // size))


def axis_marks(low: float, high: float) -> tuple[float, ...]:
    """Tick marks of the vertical axis; if all values are 0 it goes up to 1."""
    return ticks(low, high if low < high else 1.0)


def svg(title: str, parts: Iterable[Markup], size: Size) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        f"{size.width:g}", f"{size.height:g}", title, Markup("").join(parts)
    )


def axes(unit: str, frame: Frame, x: Scale, y: Scale, marks: Sequence[float], size: Size) -> list[Markup]:
    """Grid, ticks, units, and where batches end."""
    bottom, right = size.height - size.bottom, size.width - size.right
    parts = [text(2, 12, unit, "unit")]
    if len(frame.boundaries) <= MOST_BOUNDARIES:
        parts += [rule("batch", x(end), x(end), size.top, bottom) for end in frame.boundaries if end < x.high]
    for mark in marks:
        parts.append(rule("axis" if mark == 0 else "grid", size.left, right, y(mark), y(mark)))
        parts.append(text(size.left - 7, y(mark) + 4, label(mark, marks[1] - marks[0]), "tick end"))
    wanted = max(3, int((right - size.left) / 62))
    across = ticks(0, max(frame.last, 1e-9), wanted, whole=frame.unit == "update")
    for mark in (mark for mark in across if x.low <= mark <= x.high):
        parts.append(rule("axis", x(mark), x(mark), bottom, bottom + 4))
        parts.append(text(x(mark), bottom + 17, label(mark, across[1] - across[0]), "tick middle"))
    return [*parts, text(right, size.height - 4, frame.unit, "unit end")]


def rule(kind: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    ends = [f"{end:.1f}" for end in (x1, x2, y1, y2)]
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(kind, *ends)


def text(x: float, y: float, words: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, f"{x:.1f}", f"{y:.1f}", words)


def spread_out(places: Sequence[float], gap: float, lowest: float, highest: float) -> list[float]:
    """The places moved as little as needed to be `gap` apart, in their order, between the two bounds."""
    order = sorted(range(len(places)), key=lambda i: places[i])
    moved = list(places)
    for before, i in zip([None, *order], order, strict=False):
        moved[i] = max(places[i], lowest if before is None else moved[before] + gap)
    ceiling = highest
    for i in reversed(order):
        moved[i] = min(moved[i], ceiling)
        ceiling = moved[i] - gap
    return moved


def stroke(color: int) -> str:
    """The classes of a line; it is dashed once colours repeat."""
    return f"line{color % COLORS}" + (" again" if color >= COLORS else "")


def text_width(words: str) -> float:
    """The width of a curve's name in pixels, rounded up: fonts differ."""
    return sum(12.5 if letter in "@mwMW%" else 9.2 if letter.isupper() else 7.6 for letter in words)


def _with_errors(line: Line) -> list[tuple[float, float]]:
    errors = line.errors or [0.0] * len(line.points)
    return [(value, error) for (_, value), error in zip(line.points, errors, strict=True)]


def _band(line: Line, x: Scale, y: Scale) -> Markup:
    if not any(line.errors):
        return Markup("")
    both = list(zip((place for place, _ in line.points), _with_errors(line), strict=True))
    upper = [f"{x(place):.1f},{y(value + error):.1f}" for place, (value, error) in both]
    lower = [f"{x(place):.1f},{y(value - error):.1f}" for place, (value, error) in reversed(both)]
    return Markup('<polygon class="band fill{}" points="{}"/>').format(
        line.color % COLORS, " ".join(upper + lower)
    )


def _curve(line: Line, x: Scale, y: Scale, unit: str, *, marked: bool) -> Markup:
    color, end = line.color % COLORS, len(line.points) if line.whole is None else line.whole
    drawn = _path(line.points[:end], x, y, stroke(line.color))
    if end < len(line.points):
        drawn += _path(line.points[max(0, end - 1) :], x, y, f"{stroke(line.color)} partial")
    if not marked:
        return drawn
    for (place, value), (_, error) in zip(line.points, _with_errors(line), strict=True):
        drawn += Markup('<circle class="fill{}" cx="{}" cy="{}" r="2.6"><title>{}</title></circle>').format(
            color, f"{x(place):.1f}", f"{y(value):.1f}", _tip(line.label, unit, place, value, error)
        )
    return drawn


def _tip(name: str, unit: str, place: float, value: float, error: float) -> str:
    where = f"{unit} {place:g}" if unit == "update" else f"{place:,.4g} {unit}"
    return f"{name}, {where}: {value:.4g}" + (f" ± {error:.2g}" if error else "")


def _path(points: Points, x: Scale, y: Scale, kind: str) -> Markup:
    path = " ".join(f"{x(place):.1f},{y(value):.1f}" for place, value in points)
    return Markup('<polyline class="{}" points="{}"/>').format(kind, path)


def _crowds(ranges: Sequence[tuple[float, float]]) -> list[list[int]]:
    """The indices of ranges that overlap, each with its neighbours."""
    crowds: list[list[int]] = []
    reached = float("-inf")
    for i in sorted(range(len(ranges)), key=lambda i: ranges[i]):
        if ranges[i][0] > reached:
            crowds.append([])
        crowds[-1].append(i)
        reached = max(reached, ranges[i][1])
    return crowds


def _end_labels(lines: Sequence[Line], x: Scale, y: Scale) -> list[Markup]:
    ends = [(x(line.points[-1][0]), y(line.points[-1][1])) for line in lines]
    heights = [height for _, height in ends]
    for crowd in _crowds(
        [(place, place + text_width(line.label)) for line, (place, _) in zip(lines, ends, strict=True)]
    ):
        moved = spread_out([heights[i] for i in crowd], LINE_OF_TEXT, y.end, y.start)
        for i, height in zip(crowd, moved, strict=True):
            heights[i] = height
    return [
        text(place + 7, height + 4, line.label, f"name ink{line.color % COLORS}")
        for line, (place, _), height in zip(lines, ends, heights, strict=True)
    ]
