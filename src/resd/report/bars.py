"""Stacked bars, and the samples of legends."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from markupsafe import Markup

from resd.report.chart import COLORS, SMALL, Frame, Line, axes, axis_marks, stroke, svg
from resd.report.scales import Scale, widen

MOST_BARS, FEWEST_BARS = 120, 24  # of a chart; more share bars
WIDEST = 40.0  # one bar alone should not fill the chart
DENSE = 0.85  # of its place that a bar takes


def stacked_bars(
    title: str,
    unit: str,
    parts: Sequence[Line],
    frame: Frame,
    top: float,
    kind: str = "fill",
    most: int = MOST_BARS,
) -> Markup:
    """The parts of each step's sum, stacked, on an axis up to `top`. Neighbouring steps share bars if needed.

    `kind` and the colour of a part are the class of its bars.
    """
    steps = sorted({step for part in parts for step, _ in part.points})
    group = -(-len(steps) // most) or 1
    bars = [steps[i : i + group] for i in range(0, len(steps), group)]
    values = [dict(part.points) for part in parts]
    marks, size = axis_marks(0.0, top), SMALL
    apart = min((b - a for a, b in pairwise(steps)), default=max(frame.last, 1.0))
    first = min(0.5 if apart <= 1 else 0.0, *steps, 0.5) - apart / 2 * (apart > 1)
    x = Scale(*widen(first, max(frame.last, 1) + apart / 2), size.left, size.width - size.right)
    y = Scale(marks[0], marks[-1], size.height - size.bottom, size.top)
    drawn = Markup("")
    for bar in bars:
        heights = [sum(value.get(step, 0.0) for step in bar) / len(bar) for value in values]
        place = (x(bar[0] - apart / 2), x(bar[-1] + apart / 2))
        drawn += _bar(bar, place, heights, parts, y, kind)
    return svg(title, [*axes(unit, frame, x, y, marks, size), drawn], size)


def bars_of(charts: int) -> int:
    """How many bars each of `charts` charts may have, so that the page stays small."""
    return max(FEWEST_BARS, min(MOST_BARS, 2 * MOST_BARS // max(charts, 1)))


def swatch(color: int, *, kind: str = "fill") -> Markup:
    """A legend's sample of a bar or, with kind "line", of a line."""
    shape = (
        Markup('<line x1="1" x2="15" y1="5" y2="5" class="{}"/>').format(stroke(color))
        if kind == "line"
        else Markup('<rect x="3" width="11" height="10" rx="2" class="{}{}"/>').format(kind, color % COLORS)
    )
    return Markup('<svg class="swatch" viewBox="0 0 16 10" aria-hidden="true">{}</svg>').format(shape)


def _bar(
    steps: Sequence[float],
    place: tuple[float, float],
    heights: Sequence[float],
    parts: Sequence[Line],
    y: Scale,
    kind: str,
) -> Markup:
    """`steps` share the bar; `heights` are from the bottom up."""
    left, right = place
    width = min(DENSE * (right - left), WIDEST)
    where = f"update {steps[0]:g}" if len(steps) == 1 else f"updates {steps[0]:g} to {steps[-1]:g}, mean"
    drawn, base = Markup(""), 0.0
    for part, height in zip(parts, heights, strict=True):
        if height > 0:
            drawn += Markup(
                '<rect class="{}{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>'
            ).format(
                kind,
                part.color % COLORS,
                f"{(left + right - width) / 2:.1f}",
                f"{y(base + height):.1f}",
                f"{width:.1f}",
                f"{y(base) - y(base + height):.1f}",
                f"{part.label}, {where}: {height:.4g}",
            )
        base += height
    return drawn
