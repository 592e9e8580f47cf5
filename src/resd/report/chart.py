"""Charts as inline SVG: pure functions from numbers to markup. Colours are classes of the style sheet."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean

from markupsafe import Markup

from resd.report.runs import Points
from resd.report.scales import Scale, label, ticks, widen

WIDTH, HEIGHT = 560, 240
LEFT, RIGHT, TOP, BOTTOM = 50, 16, 26, 38
COLORS = 8  # in the style sheet
DASHES = ("", "6 4", "2 3", "8 3 2 3")
# More than this are not drawn one by one.
MOST_MARKERS, MOST_BOUNDARIES, MOST_BARS, MOST_POINTS = 60, 60, 120, 120


@dataclass(frozen=True, slots=True)
class Line:
    """One curve. `color` and `dash` count from 0 and repeat."""

    label: str
    points: Points
    color: int = 0
    dash: int = 0


@dataclass(frozen=True, slots=True)
class Frame:
    """What charts that stand side by side share: the last update, and where batches end."""

    last: int
    boundaries: Sequence[float] = ()

    def x(self, first: float = 0) -> Scale:
        return Scale(*widen(first, max(self.last, 1)), LEFT, WIDTH - RIGHT)


def line_chart(title: str, unit: str, lines: Sequence[Line], frame: Frame) -> Markup:
    """Curves by update, thinned where they are long. The vertical axis starts at 0, or at values below."""
    lines = [replace(line, points=thinned(line.points)) for line in lines]
    values = [value for line in lines for _, value in line.points]
    x, marks = frame.x(), _marks(min(0.0, *values), max(0.0, *values))
    y = _y_scale(marks)
    drawn = [_curve(line, x, y) for line in lines if line.points]
    return _svg(title, [*_axes(unit, frame, x, y, marks), *drawn])


def thinned(points: Points) -> Points:
    """The points themselves, or the means of as many neighbours as leave at most `MOST_POINTS`."""
    size = -(-len(points) // MOST_POINTS) or 1
    groups = [points[i : i + size] for i in range(0, len(points), size)]
    return tuple((fmean(s for s, _ in group), fmean(v for _, v in group)) for group in groups)


def stacked_bars(title: str, unit: str, parts: Sequence[Line], frame: Frame, top: float) -> Markup:
    """The parts of each update's sum, one on another, on an axis to `top`. Too many share bars."""
    steps = sorted({step for part in parts for step, _ in part.points})
    group = -(-len(steps) // MOST_BARS) or 1
    bars = [steps[i : i + group] for i in range(0, len(steps), group)]
    values = {part.label: dict(part.points) for part in parts}
    heights = [[sum(values[p.label].get(s, 0.0) for s in bar) / len(bar) for p in parts] for bar in bars]
    marks = _marks(0.0, top)
    x, y = Scale(*widen(0.5, max(frame.last, 1) + 0.5), LEFT, WIDTH - RIGHT), _y_scale(marks)
    drawn = [_bar(bar, height, parts, x, y) for bar, height in zip(bars, heights, strict=True)]
    return _svg(title, [*_axes(unit, frame, x, y, marks), *drawn])


def swatch(line: Line, *, bar: bool = False) -> Markup:
    """A legend's sample of a line or a bar."""
    if bar:
        return Markup('<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true">{}</svg>').format(
            Markup('<rect x="7" width="12" height="10" rx="2" class="fill{}"/>').format(line.color % COLORS)
        )
    return Markup('<svg class="swatch" viewBox="0 0 26 10" aria-hidden="true">{}</svg>').format(
        Markup('<line x1="1" x2="25" y1="5" y2="5" class="line{}" stroke-dasharray="{}"/>').format(
            line.color % COLORS, DASHES[line.dash % len(DASHES)]
        )
    )


def _marks(low: float, high: float) -> tuple[float, ...]:
    """Of the vertical axis; where all values are 0 it goes up to 1."""
    return ticks(low, high if low < high else 1.0)


def _y_scale(marks: Sequence[float]) -> Scale:
    return Scale(marks[0], marks[-1], HEIGHT - BOTTOM, TOP)


def _svg(title: str, parts: Iterable[Markup]) -> Markup:
    return Markup('<svg class="chart" viewBox="0 0 {} {}" role="img" aria-label="{}">{}</svg>').format(
        WIDTH, HEIGHT, title, Markup("").join(parts)
    )


def _axes(unit: str, frame: Frame, x: Scale, y: Scale, marks: Sequence[float]) -> list[Markup]:
    bottom, right = HEIGHT - BOTTOM, WIDTH - RIGHT
    parts = [_text(LEFT - 42, 12, unit, "unit")]
    if len(frame.boundaries) <= MOST_BOUNDARIES:
        parts += [_line("batch", x(end), x(end), TOP, bottom) for end in frame.boundaries if end < x.high]
    for mark in marks:
        parts.append(_line("axis" if mark == 0 else "grid", LEFT, right, y(mark), y(mark)))
        parts.append(_text(LEFT - 7, y(mark) + 4, label(mark, marks[1] - marks[0]), "tick end"))
    across = [mark for mark in ticks(0, max(frame.last, 1), 7, whole=True) if x.low <= mark <= x.high]
    for mark in across:
        parts.append(_line("axis", x(mark), x(mark), bottom, bottom + 4))
        parts.append(_text(x(mark), bottom + 17, label(mark, across[-1] - across[0] or 1.0), "tick middle"))
    return [*parts, _text(right, HEIGHT - 4, "update", "unit end")]


def _curve(line: Line, x: Scale, y: Scale) -> Markup:
    path = " ".join(f"{x(step):.1f},{y(value):.1f}" for step, value in line.points)
    color, dash = line.color % COLORS, DASHES[line.dash % len(DASHES)]
    drawn = Markup('<polyline class="line{}" stroke-dasharray="{}" points="{}"/>').format(color, dash, path)
    if len(line.points) > MOST_MARKERS:
        return drawn
    return drawn + Markup("").join(
        Markup('<circle class="fill{}" cx="{}" cy="{}" r="2.6"><title>{}</title></circle>').format(
            color, f"{x(step):.1f}", f"{y(value):.1f}", f"{line.label}, update {step:g}: {value:.4g}"
        )
        for step, value in line.points
    )


def _bar(
    steps: Sequence[float], heights: Sequence[float], parts: Sequence[Line], x: Scale, y: Scale
) -> Markup:
    """`steps` share the bar; `heights` are from the bottom up."""
    left, right = x(steps[0] - 0.5), x(steps[-1] + 0.5)
    gap = min(0.15 * (right - left), 4.0, max(0.0, right - left - 1.0))
    # One update alone should not fill the page.
    width = min(right - left - gap, 48.0)
    where = f"update {steps[0]:g}" if len(steps) == 1 else f"updates {steps[0]:g} to {steps[-1]:g}, mean"
    drawn, base = Markup(""), 0.0
    for part, height in zip(parts, heights, strict=True):
        drawn += Markup(
            '<rect class="fill{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
        ).format(
            part.color % COLORS,
            f"{(left + right - width) / 2:.1f}",
            f"{y(base + height):.1f}",
            f"{width:.1f}",
            f"{y(base) - y(base + height):.1f}",
            f"{part.label}, {where}: {height:.3g}",
        )
        base += height
    return drawn


def _line(kind: str, x1: float, x2: float, y1: float, y2: float) -> Markup:
    ends = [f"{end:.1f}" for end in (x1, x2, y1, y2)]
    return Markup('<line class="{}" x1="{}" x2="{}" y1="{}" y2="{}"/>').format(kind, *ends)


def _text(x: float, y: float, text: str, kind: str) -> Markup:
    return Markup('<text class="{}" x="{}" y="{}">{}</text>').format(kind, f"{x:.1f}", f"{y:.1f}", text)
