"""A forest plot: differences with their errors, a row each, under the headings of their groups."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from resd.report.chart import WIDE, Size, rule, svg, text, text_width
from resd.report.scales import Scale, label, ticks

HEIGHT = 19.0  # of a row, in pixels
MARGIN = 24.0  # below the rows, for the axis


@dataclass(frozen=True, slots=True)
class Row:
    """A name with a difference and half the length of its whisker; a heading without."""

    name: str
    difference: float | None = None
    error: float = 0.0


def forest(rows: Sequence[Row]) -> tuple[Markup, Size]:
    """The plot and its size. The axis holds all whiskers and 0."""
    left = 24 + max(text_width(row.name) for row in rows if row.difference is not None)
    size = Size(WIDE.width, HEIGHT * len(rows) + MARGIN, left, top=0, bottom=MARGIN)
    ends = [
        row.difference + sign * row.error for row in rows if row.difference is not None for sign in (-1, 1)
    ]
    marks = ticks(min(0.0, *ends), max(0.0, *ends), 7)
    x = Scale(marks[0], marks[-1], left, size.width - 20)
    parts = [*_axis(marks, x, size)]
    for place, row in enumerate(rows):
        parts += _row(row, x, HEIGHT * (place + 0.5))
    return svg("", parts, size), size


def _axis(marks: Sequence[float], x: Scale, size: Size) -> Iterator[Markup]:
    bottom = size.height - size.bottom
    for mark in marks:
        yield rule("zero" if mark == 0 else "grid", x(mark), x(mark), 0, bottom)
        yield text(x(mark), bottom + 16, label(mark, marks[1] - marks[0]), "tick middle")


def _row(row: Row, x: Scale, y: float) -> Iterator[Markup]:
    if row.difference is None:
        yield text(2, y + 4, row.name, "group")
        return
    yield text(x.start - 12, y + 4, row.name, "tick end")
    yield rule("whisker line0", x(row.difference - row.error), x(row.difference + row.error), y, y)
    yield Markup('<circle class="fill0" cx="{}" cy="{}" r="3.4"><title>{}</title></circle>').format(
        f"{x(row.difference):.1f}", f"{y:.1f}", f"{row.name}: {row.difference:+.1f} ± {row.error / 2:.1f}"
    )
